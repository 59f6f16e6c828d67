"""From the network's output to instances: markers from the maps' slopes, a watershed.

The rule is HoverFast's (utils_wsi.py, pre_watershed and watershed_object): a nucleus' inside is
where both maps rise; a piece of foreground with several insides is divided among them. HoverFast
measures slopes against the steepest of each tile, so that a nucleus depends on what else its tile
holds; OURS measures them against fixed limits everywhere.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import find_objects
from scipy.special import expit
from skimage.segmentation import watershed

MIN_AREA = 80  # px (5 µm²)
MIN_PROBABILITY = 0.7  # mean over a nucleus: the unsure are mostly none
OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


@dataclass(frozen=True)
class Rule:
    """How pieces of foreground are divided.

    Attributes:
        limits: slopes (Sobel 5x5 of maps halved) that count as steepest fall and rise; None: the
            tile's own extremes.
        steep: from there on a pixel belongs to a border, not to a marker.
        openings: of the foreground in a row, before it is divided.
        marker_px: smaller markers divide nothing.
    """

    limits: tuple[float, float] | None
    steep: float
    openings: int
    marker_px: int


HOVERFAST = Rule(None, 0.4, 2, 1)
# Limits about the mean of tiles' extremes; all chosen on fields left out of training. A change here
# finds other nuclei: count up `Network.rule` (extract/segment/options.py) with it.
OURS = Rule((-25.0, 10.0), 0.38, 1, 25)


def nuclei(odds: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Label the nuclei of a tile by our rule; specks and what is unsure all over are none.

    Args:
        odds: (H, W) float32, above 0 where nucleus outweighs background.
        maps: (2, H, W) float32.

    Returns:
        (H, W) int32, 0 is background.
    """
    labels = instances(odds > 0, maps)
    inside = np.flatnonzero(labels)
    of = labels.ravel()[inside]
    area = np.bincount(of, minlength=1)
    probability = np.bincount(of, expit(odds.ravel()[inside]), len(area)) / np.maximum(area, 1)
    none = (area < MIN_AREA) | (probability < MIN_PROBABILITY)
    labels[none[labels]] = 0
    return labels


def instances(mask: np.ndarray, maps: np.ndarray, rule: Rule = OURS) -> np.ndarray:
    """Label the nuclei of a tile.

    Args:
        mask: (H, W) bool, where nuclei are.
        maps: (2, H, W) float32, along x and along y.
        rule: by which they are told apart.

    Returns:
        (H, W) int32, 0 is background, nuclei are 1 to n.
    """
    mask = mask.astype(np.uint8)
    pieces, found = cv2.connectedComponents(mask, connectivity=4)
    labels = np.asarray(found, np.int32)
    if pieces == 1:
        return labels
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, OPENING, iterations=rule.openings)
    border = np.hypot(
        _steepness(maps[0], 1, 0, rule.limits), _steepness(maps[1], 0, 1, rule.limits)
    )
    border = np.maximum(border - (1 - opened), 0)
    marked = opened.astype(bool) & (border < rule.steep)
    found = cv2.connectedComponentsWithStats(_fill_holes(marked), connectivity=4)
    count, markers, sizes = found[0], np.asarray(found[1], np.int32), found[2][:, cv2.CC_STAT_AREA]
    markers[(sizes < rule.marker_px)[markers]] = 0
    # Which piece each marker lies in, and so which pieces hold several.
    at = np.flatnonzero(markers)
    held = np.zeros(count, np.int32)
    held[markers.ravel()[at]] = labels.ravel()[at]
    several = np.flatnonzero(np.bincount(held[1:]) > 1)
    depth = -cv2.GaussianBlur(((1 - border) * opened).astype(np.float32), (3, 3), 0)
    boxes = find_objects(labels)
    for piece in several[several > 0]:  # one by one: the rest of the tile is most of it
        box = boxes[piece - 1]
        within = labels[box] == piece
        divide = within & (opened[box] > 0)
        parts = watershed(depth[box], np.where(divide, markers[box], 0), mask=divide)
        labels[box][within] = np.where(parts > 0, parts + pieces, 0)[within]
    present = np.bincount(labels.ravel()) > 0
    present[0] = True
    return (np.cumsum(present, dtype=np.int32) - 1)[labels]


def _steepness(
    values: np.ndarray, dx: int, dy: int, limits: tuple[float, float] | None
) -> np.ndarray:
    """Return how steeply a map falls, 1 where most, 0 where it rises most, (H, W) float32."""
    if limits is None:  # the map, too, from 0 to 1 over the tile
        low, high = float(values.min()), float(values.max())
        values = (values - low) / max(high - low, 1e-6)
        slope = cv2.Sobel(values, cv2.CV_32F, dx, dy, ksize=5)
        low, high = float(slope.min()), float(slope.max())
    else:
        slope = cv2.Sobel(values * np.float32(0.5), cv2.CV_32F, dx, dy, ksize=5)
        low, high = limits
    return 1 - np.clip((slope - low) / (high - low), 0, 1)


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """Fill what the mask encloses, (H, W) uint8."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(mask.astype(np.uint8), outlines, -1, 1, cv2.FILLED)
