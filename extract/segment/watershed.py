"""Outline nuclei without weights: haematoxylin, a local threshold, a marked watershed.

Everything is local: a pixel's label depends on the slide's stain and on what lies within about
a nucleus and a window's half around it, not on where the tile begins.
"""

import cv2
import numpy as np
from skimage.measure import label
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from shards.schema import MPP
from shards.stain import Stain, concentrations

VERSION = "watershed 1"

WINDOW = int(20 / MPP) | 1  # px (20 µm): side of the local threshold's window
PRIOR = (0.1, 0.5)  # haematoxylin of stroma and of nuclei, in the slide's 99th percentiles
PRIOR_WEIGHT = 0.15  # of a window's pixels
MIN_AREA = int(10 / MPP**2)  # px (10 µm²)


def segment(rgb: np.ndarray, stain: Stain) -> np.ndarray:
    """Label the nuclei of a tile.

    Args:
        rgb: (H, W, 3) uint8 at 0.25 µm/px.
        stain: of the whole slide.

    Returns:
        (H, W) int32, 0 is background, nuclei are 1 to n.
    """
    haematoxylin = concentrations(rgb, stain)[..., 0] / np.float32(stain.max_concentration[0])
    smooth = cv2.GaussianBlur(np.clip(haematoxylin, 0, 1.5), (0, 0), 1.5)
    mask = (smooth > _local_threshold(smooth)).astype(np.uint8)
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mask = _fill_holes(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk), 400)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    distance = cv2.GaussianBlur(distance, (0, 0), 2.0)
    markers = label(h_maxima(distance, 1.0))
    labels = watershed(-distance, markers, mask=mask > 0)
    area = np.bincount(labels.ravel())
    keep = area >= MIN_AREA
    keep[0] = False
    number = np.cumsum(keep) * keep
    return number[labels].astype(np.int32)


def _local_threshold(smooth: np.ndarray) -> np.ndarray:
    """Split each window into two means, drawn towards the slide's where one is missing."""
    mean = (WINDOW, WINDOW)
    threshold = np.full_like(smooth, sum(PRIOR) / 2)
    for _ in range(3):
        dark = (smooth > threshold).astype(np.float32)
        share = cv2.blur(dark, mean)
        total_dark = cv2.blur(dark * smooth, mean)
        total = cv2.blur(smooth, mean)
        high = (total_dark + PRIOR_WEIGHT * PRIOR[1]) / (share + PRIOR_WEIGHT)
        low = (total - total_dark + PRIOR_WEIGHT * PRIOR[0]) / (1 - share + PRIOR_WEIGHT)
        threshold = (high + low) / 2
    return threshold


def _fill_holes(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Fill holes of up to max_area px."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= max_area
    small[0] = False
    return mask | small[labels].astype(np.uint8)
