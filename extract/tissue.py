"""Find a slide's tissue on a thumbnail."""

import cv2
import numpy as np

from shards.stain import optical_density

GLASS = 0.06  # optical density above the glass' own at which even pale tissue (fat, lung) begins
STAINED = 0.20  # and the density that is tissue whatever the histogram says
SMOOTH_UM = 8.0  # sigma; cells are smaller than the gaps between tissue pieces
CLOSE_UM = 25.0  # radius; lumina and clear cells belong to the tissue around them
PIECE_UM2 = 2500.0  # smaller pieces are dust


def tissue_mask(thumbnail: np.ndarray, mpp: float) -> np.ndarray:
    """Mark what is tissue: stained more than the glass, and not with a pen.

    The cut in density is Otsu's where the histogram has glass and tissue, held between GLASS and
    STAINED, so that a field without any white is all tissue and an empty slide is all glass.

    Args:
        thumbnail: (H, W, 3) uint8 RGB, best at 4 to 16 µm/px.
        mpp: of the thumbnail, µm/px.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: the shape or type is another, or mpp is not above 0.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise ValueError(
            f"thumbnail must be (H, W, 3) uint8, found {thumbnail.shape} {thumbnail.dtype}"
        )
    if not mpp > 0:
        raise ValueError(f"mpp must be above 0 µm/px, found {mpp}")
    density = optical_density(thumbnail)
    pen = _pen(density)
    # Glass may be tinted or dim: take its own density where glass is there to be seen.
    glass = np.clip(np.percentile(density.reshape(-1, 3), 1, axis=0), -0.07, GLASS)
    stained = np.clip(density - glass, 0, None).max(axis=2)
    stained[pen] = 0
    stained = cv2.GaussianBlur(stained, (0, 0), max(SMOOTH_UM / mpp, 0.3))
    grey = np.clip(stained * 127, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    mask = (stained > np.clip(otsu / 127, GLASS, STAINED)).astype(np.uint8)
    mask = _close(mask, CLOSE_UM / mpp)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    large = stats[:, cv2.CC_STAT_AREA] >= PIECE_UM2 / mpp**2
    large[0] = False
    return large[labels] & ~pen


def _pen(density: np.ndarray) -> np.ndarray:
    """Mark blue, green and black ink by what H&E cannot be, (H, W) bool.

    In H&E green light is absorbed most. Blue and green ink absorb red more; black absorbs all
    three alike and nearly wholly. Red ink is too near eosin to be told apart.

    Args:
        density: (H, W, 3).
    """
    red, green, blue = np.moveaxis(density, 2, 0)
    coloured = (red > 0.3) & (red > 1.25 * green)
    black = (density.min(axis=2) > 1.6) & (density.max(axis=2) < 1.3 * density.min(axis=2))
    ink = (coloured | (black & (blue > 0))).astype(np.uint8)
    return cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0


def _close(mask: np.ndarray, radius: float) -> np.ndarray:
    """Close gaps up to twice the radius (px), the image's border counting as the mask's end."""
    size = 2 * round(radius) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disk)
