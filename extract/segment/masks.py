"""Masks of where nuclei are sought, as HistoQC writes them: an image over the whole slide."""

from pathlib import Path

import cv2
import numpy as np

from extract.segment.imported import bounds
from extract.segment.mask_image import read_marked
from extract.segment.matching import own_file
from extract.slide import Slide
from extract.slides import Entry
from extract.tiles import find_tissue

BARE = 3  # times: from which on tissue is denser where a mask does not mark
STRETCH = 0.05  # by which a mask's sides may be to each other otherwise than the slide's


def find_mask(masks: str | None, slide: Slide, entry: Entry) -> np.ndarray | None:
    """Read the mask that belongs to a slide, (H, W) bool; None where no masks are given.

    Args:
        masks: folder, or a pattern such as `histoqc/*/*_mask_use.png`.

    Raises:
        FileNotFoundError: no mask belongs to the slide.
        ValueError: several do, or it is no image, too large, or of other proportions.
    """
    if masks is None:
        return None
    path = own_file(entry.mask, masks, entry, "--masks")
    image = read_marked(path)
    stretch = image.shape[1] / image.shape[0] * slide.height / slide.width
    if not 1 - STRETCH < stretch < 1 + STRETCH:
        raise ValueError(
            f"{path} is {image.shape[1]}x{image.shape[0]} px, of other proportions than the slide "
            f"({slide.width}x{slide.height} px): another slide's mask?"
        )
    return image


def judge(mask: np.ndarray, slide: Slide) -> dict[str, float]:
    """Return the shares of a slide and of its tissue that a mask marks.

    Raises:
        ValueError: it marks the glass and leaves the tissue out.
    """
    tissue, _ = find_tissue(slide)
    rows, columns = (
        ((np.arange(count) + 0.5) * side / count).astype(int)
        for count, side in zip(tissue.shape, mask.shape, strict=True)
    )
    marked = mask[rows[:, None], columns]
    whole, held = float(mask.mean()), float(tissue[marked].mean()) if marked.any() else 0.0
    left = float(tissue[~marked].mean()) if not marked.all() else 0.0
    if marked.any() and left > 0.5 and left > BARE * held:
        raise ValueError(
            f"its mask marks {whole:.1%} of the slide, of which {held:.0%} is tissue, and leaves "
            f"out a part of which {left:.0%} is: black on white? Invert it: marked is what is not "
            "black (e.g. mogrify -negate FILE); or another slide's"
        )
    found = int(tissue.sum())
    return {
        "slide": round(whole, 4),
        "tissue": round(float((tissue & marked).sum() / found), 4) if found else 0.0,
    }


def write_reduced(mask: np.ndarray, slide: Slide, path: Path) -> None:
    """Write the part of a mask within OpenSlide's bounds, reduced by a whole number.

    HoverFast takes the number that its width is nearest to for the reduction.

    Args:
        mask: (H, W) bool over the whole slide.
    """
    left, top = bounds(slide)
    width = int(slide.properties.get("openslide.bounds-width", slide.width))
    height = int(slide.properties.get("openslide.bounds-height", slide.height))
    reduction = max(round(slide.width / mask.shape[1]), 1)
    x = (np.arange(0, width, reduction) + left + reduction / 2) * mask.shape[1] / slide.width
    y = (np.arange(0, height, reduction) + top + reduction / 2) * mask.shape[0] / slide.height
    columns = np.minimum(x.astype(int), mask.shape[1] - 1)
    rows = np.minimum(y.astype(int), mask.shape[0] - 1)
    cv2.imwrite(str(path), mask[rows[:, None], columns].astype(np.uint8) * 255)
