"""The stains that a benchmark is restained with: six of TCGA, or those of images or slides given.

Paper leaves open: which "TCGA breast samples spanning six centers" (A.4); here:
`shards.stain.macenko` of all pixels of six fields of MoNuSeg's training set (1000x1000 px at 40X of
TCGA slides) from six tissue source sites: the three sites whose fields there are breast, then, one
after another, the field whose stains lie farthest from those chosen.
"""

from pathlib import Path

import numpy as np

from shards.stain import Stain, macenko

# case -> rows of haematoxylin and eosin over RGB; their 99th percentiles of concentration
_TCGA = {
    "A7-A13E": ([[0.6461, 0.6820, 0.3427], [0.2873, 0.8133, 0.5060]], [2.7881, 0.8714]),  # breast
    "AR-A1AK": ([[0.5129, 0.7518, 0.4144], [0.1536, 0.8018, 0.5775]], [2.4603, 1.4438]),  # breast
    "E2-A14V": ([[0.5791, 0.7348, 0.3531], [0.2086, 0.8212, 0.5312]], [2.3552, 1.1413]),  # breast
    "49-4488": ([[0.5150, 0.7809, 0.3537], [0.1823, 0.9170, 0.3549]], [3.5550, 1.9033]),  # lung
    "G9-6363": ([[0.4919, 0.7743, 0.3980], [0.2144, 0.8488, 0.4833]], [1.0487, 1.0135]),  # prostate
    "AY-A8YK": ([[0.5617, 0.7401, 0.3698], [0.3491, 0.8334, 0.4285]], [3.0184, 1.4491]),  # colon
}
THUMBNAIL_PX = 4000  # longer side at which a slide's stains are estimated


def tcga_stains() -> dict[str, Stain]:
    """Return the six stored stains by their names."""
    stains = {}
    for name, (matrix, high) in _TCGA.items():
        matrix = np.array(matrix)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)  # four digits are stored
        stains[name] = Stain(matrix, np.array(high), fallback=False)
    return stains


def stains_of(paths: list[Path]) -> dict[str, Stain]:
    """Estimate the stains of images or slides, by their files' names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not open, two have one name, or its stains cannot be estimated.
    """
    stains = {}
    for path in paths:
        name = path.name.split(".")[0]
        if name in stains:
            raise ValueError(f"two references are named {name!r}; rename a file")
        stains[name] = macenko(_pixels(path))
        if stains[name].fallback:
            raise ValueError(f"{path}: no haematoxylin and eosin are found in it; take another")
    return stains


def _pixels(path: Path) -> np.ndarray:
    """Return the pixels of an image, or of a slide's thumbnail, (N, 3) uint8."""
    import openslide
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError(f"no reference at {path}")
    try:
        with openslide.open_slide(path) as slide:
            picture = slide.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX)).convert("RGB")
    except (openslide.OpenSlideError, Image.UnidentifiedImageError) as error:
        raise ValueError(f"{path} opens neither as a slide nor as an image: {error}") from error
    return np.asarray(picture).reshape(-1, 3)
