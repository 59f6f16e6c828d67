"""The handcrafted measures of a batch's crops, for a head that learns to predict them."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from train.measures import NAMES, measure

KEPT = 250_000  # crops whose measures are kept, of about 0.5 kB: a small set is measured once


class Measured:
    """Measure crops in the loader, before augmentation; those seen before are looked up."""

    def __init__(self) -> None:
        self.known: dict[bytes, np.ndarray] = {}

    def __call__(self, step: int, rows: Sequence[int], crops: np.ndarray) -> Tensor:
        """Return the measures of a batch.

        Args:
            step: of the run; not used.
            rows: places in the global batch; not used.
            crops: (N, 3, P, P) uint8.

        Returns:
            (N, len(NAMES)) float32, in the measures' own units.
        """
        pixels = np.ascontiguousarray(crops.transpose(0, 2, 3, 1))  # as they lie in memory already
        keys = [blake2b(crop, digest_size=16).digest() for crop in pixels]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        found = np.empty((len(crops), len(NAMES)), np.float32)
        if new:
            found[new] = measure(pixels[new])
        for i, key in enumerate(keys):
            if key in self.known:
                found[i] = self.known[key]
        for i in new[: max(KEPT - len(self.known), 0)]:
            self.known[keys[i]] = found[i].copy()
        return torch.from_numpy(found)
