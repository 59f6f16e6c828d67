"""The few of the handcrafted measures that a reader can picture, in the units of one."""

import numpy as np

from evaluate.baselines import Morphology

# Of train/measures.py: what each is called, what it is in, and how many of those a px is.
MEASURES = {
    "area": ("nuclear area", "µm²", 0.0625),  # of a px at 0.25 µm
    "eccentricity": ("eccentricity", "", 1.0),
    "solidity": ("solidity", "", 1.0),
    "nucleus_H_mean": ("haematoxylin in the nucleus", "OD", 1.0),
    "nucleus_H_sd": ("chromatin texture (s.d.)", "OD", 1.0),
    "around_E_mean": ("eosin around the nucleus", "OD", 1.0),
}


def nuclear_measures(crops: np.ndarray) -> list[tuple[str, np.ndarray, str]]:
    """Measure the nucleus in the middle of each crop.

    Args:
        crops: (N, P, P, 3) uint8 at 0.25 µm/px.

    Returns:
        Name, (N,) float and unit of each of MEASURES.
    """
    from train.measures import NAMES

    values = Morphology("morphology").embed(crops).astype(float)
    return [
        (name, values[:, NAMES.index(key)] * factor, unit)
        for key, (name, unit, factor) in MEASURES.items()
    ]
