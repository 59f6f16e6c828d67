"""Find a slide's tissue on a thumbnail."""

import cv2
import numpy as np

from shards.stain import optical_density

GLASS = 0.06  # optical density above the glass' own at which even pale tissue (fat, lung) begins
STAINED = 0.20  # and the density that is tissue whatever the histogram says
SMOOTH_UM = 8.0  # sigma; cells are smaller than the gaps between tissue pieces
CLOSE_UM = 25.0  # radius; lumina and clear cells belong to the tissue around them
PIECE_UM2 = 2500.0  # smaller pieces are dust

PALE_MPP = 8.0  # µm/px at which threads are sought; a membrane of fat is 1 to 2 µm thick
THREAD = 0.015  # optical density above its surroundings from which on a px is part of a thread,
NOISE = 4.0  # and so many times what a quarter of the glass stays below, up to twice THREAD
THREAD_UM = 40.0  # across; what is shorter is dust or noise
AROUND_UM = 60.0  # radius of the surroundings; fat cells are 50 to 120 µm wide
NET_UM = 100.0  # sigma within which threads are counted
NET = 0.12  # share of px on threads: of fat about 0.17; beside a lone hair or bubble at most 0.1


def tissue_mask(thumbnail: np.ndarray, mpp: float) -> np.ndarray:
    """Mark what is tissue: what is stained more than the glass, and fat's net of fine threads.

    Args:
        thumbnail: (H, W, 3) uint8 RGB, best at 4 to 8 µm/px.
        mpp: of the thumbnail, µm/px.

    Returns:
        (H, W) bool.

    Raises:
        ValueError: the shape or type is another, or mpp is not above 0.
    """
    stained = stained_tissue(thumbnail, mpp)
    return stained | pale_tissue(thumbnail, mpp, stained)


def stained_tissue(thumbnail: np.ndarray, mpp: float) -> np.ndarray:
    """Mark what is stained more than the glass, and not with a pen; arguments as of `tissue_mask`.

    The cut in density is Otsu's where the histogram has glass and tissue, held between GLASS and
    STAINED, so that a field without any white is all tissue and an empty slide is all glass.
    """
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise ValueError(
            f"thumbnail must be (H, W, 3) uint8, found {thumbnail.shape} {thumbnail.dtype}"
        )
    if not mpp > 0:
        raise ValueError(f"mpp must be above 0 µm/px, found {mpp}")
    density = optical_density(thumbnail)
    pen = _pen(density)
    stained = _above_glass(density)
    stained[pen] = 0
    stained = cv2.GaussianBlur(stained, (0, 0), max(SMOOTH_UM / mpp, 0.3))
    grey = np.clip(stained * 127, 0, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    mask = (stained > np.clip(otsu / 127, GLASS, STAINED)).astype(np.uint8)
    mask = _close(mask, CLOSE_UM / mpp)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    large = np.asarray(stats)[:, cv2.CC_STAT_AREA] >= PIECE_UM2 / mpp**2
    large[0] = False
    return large[np.asarray(labels, np.int32)] & ~pen


def pale_tissue(thumbnail: np.ndarray, mpp: float, stained: np.ndarray) -> np.ndarray:
    """Mark fat and loose tissue: where thin threads form a net, however little they absorb.

    Smoothed over a few µm, the membranes of fat cells are as pale as glass that is lit unevenly.
    But they stand out of their surroundings, which shading does not, and there are many of them
    near each other, which hairs, scratches, bubbles' rims and dust are not.

    Args:
        thumbnail: (H, W, 3) uint8 RGB.
        mpp: of the thumbnail, µm/px.
        stained: (H, W) bool, of `stained_tissue`; nothing near it is marked again.

    Returns:
        (H, W) bool.
    """
    size = (stained.shape[1], stained.shape[0])
    shrink = max(PALE_MPP / mpp, 1.0)
    small = (max(round(size[0] / shrink), 1), max(round(size[1] / shrink), 1))
    image = cv2.resize(thumbnail, small, interpolation=cv2.INTER_AREA)
    mpp = mpp * size[0] / small[0]
    taken = cv2.resize(stained.astype(np.uint8), small, interpolation=cv2.INTER_AREA)
    free = cv2.dilate(taken, np.ones((3, 3), np.uint8)) == 0
    density = optical_density(image)
    above = _above_glass(density)
    levels = np.clip(above * 500, 0, 255).astype(np.uint8)  # medianBlur's wide windows want bytes
    around = cv2.medianBlur(levels, 2 * round(AROUND_UM / mpp) + 1) / 500
    contrast = above - around
    glass = free & (above < GLASS)
    noise = np.percentile(np.abs(contrast[glass]), 25) if glass.any() else 0.0
    threads = (contrast > np.clip(NOISE * noise, THREAD, 2 * THREAD)) & free & ~_pen(density)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(threads.astype(np.uint8))
    long = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) * mpp >= THREAD_UM
    threads &= long[labels]
    sigma = NET_UM / mpp
    counted, whole = (
        cv2.GaussianBlur(part.astype(np.float32), (0, 0), sigma) for part in (threads, free)
    )
    net = (counted > NET * np.maximum(whole, 0.2)) & free
    return cv2.resize(net.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def _above_glass(density: np.ndarray) -> np.ndarray:
    """Return what is absorbed beyond the glass, of the channel with most, (H, W)."""
    # Glass may be tinted or dim: take its own density where glass is there to be seen.
    glass = np.clip(np.percentile(density.reshape(-1, 3), 1, axis=0), -0.07, GLASS)
    return np.clip(density - glass, 0, None).max(axis=2)


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
