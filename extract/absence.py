"""Why a slide ends without nuclei, in words for its record and for the screen."""

import cv2
import numpy as np

from extract.crops import BLUR_SQUARE
from extract.slide import Slide
from extract.tiles import TISSUE_MPP, find_tissue

ONE_COLOUR = 8  # grey levels between nearly all pixels of a blank slide
REGIONS, REGION_PX = 16, 256  # regions that are looked at for contrast, and their side, px


def why_none(slide: Slide, segmenter: str, about: dict, mask: np.ndarray | None, seed: int) -> str:
    """Say why no nucleus was detected on a slide.

    Args:
        about: what it said, with `file` where it read one.
        mask: (H, W) bool over the whole slide, where nuclei were sought; None: in its tissue.
    """
    if segmenter == "import":
        return f"no nucleus: the segmentation {about['file']} holds none for it"
    thumbnail, _ = slide.thumbnail(TISSUE_MPP)
    low, high = np.percentile(thumbnail.reshape(-1, 3), (0.5, 99.5), axis=0)
    if (high - low).max() < ONE_COLOUR:
        colour = ", ".join(f"{value:.0f}" for value in np.median(thumbnail, axis=(0, 1)))
        return f"no nucleus: the slide is blank, of one colour all over (RGB {colour})"
    if mask is not None and not mask.any():
        return "no nucleus: its mask marks nothing"
    tissue = find_tissue(slide)[0] if mask is None else mask
    if not tissue.any():
        return "no nucleus: no tissue, for nothing on it is stained more than the glass"
    where = "tissue" if mask is None else "its mask"
    area = f"{tissue.mean() * slide.width * slide.height * slide.mpp**2 / 1e6:.3g} mm² of {where}"
    if _sharpness(slide, tissue, seed) < BLUR_SQUARE:
        return f"no nucleus: no contrast in {area}; is it out of focus?"
    return f"no nucleus: {segmenter} found none in {area}"


def why_none_kept(fates: dict[str, int]) -> str:
    """Say what became of the nuclei of a slide of which none was kept."""
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    return f"no nucleus kept of {sum(fates.values())} detected: {counts}"


def _sharpness(slide: Slide, tissue: np.ndarray, seed: int) -> float:
    """Return the largest mean square of the Laplacian among some regions of tissue."""
    rows, columns = np.nonzero(tissue)
    width, height = min(REGION_PX, slide.width), min(REGION_PX, slide.height)
    sharpest = 0.0
    for i in np.random.default_rng(seed).permutation(len(rows))[:REGIONS]:
        x = int((columns[i] + 0.5) * slide.width / tissue.shape[1] - width / 2)
        y = int((rows[i] + 0.5) * slide.height / tissue.shape[0] - height / 2)
        x = min(max(x, 0), slide.width - width)
        y = min(max(y, 0), slide.height - height)
        grey = cv2.cvtColor(slide.read(x, y, width, height), cv2.COLOR_RGB2GRAY)
        sharpest = max(sharpest, float(np.square(cv2.Laplacian(grey, cv2.CV_32F)).mean()))
    return sharpest
