"""Nuclei that a segmentation holds twice, as at the seams of the tiles it was made in."""

import numpy as np
import shapely
from scipy.spatial import KDTree

from extract.crops import AREA_UM2
from extract.segment.detections import BATCH, Outlines

REACH_UM = 3.0  # how far apart the centres of two outlines of one nucleus may be
POINT_UM = 1.0  # and two points for it; nuclei are 3 µm and more across
OVERLAP = 0.5  # of the smaller outline, as at the seams of our own tiles


def find_duplicates(outlines: Outlines, xy: np.ndarray, mpp: float) -> np.ndarray:
    """Mark nuclei that repeat an earlier one.

    An outline of no nucleus' size (a region among the cells, say) neither is nor has a duplicate.

    Args:
        outlines: N, valid.
        xy: (N, 2) centres, level-0 px.
        mpp: µm/px.

    Returns:
        (N,) bool.
    """
    duplicate = np.zeros(len(xy), bool)
    pairs = KDTree(xy).query_pairs(REACH_UM / mpp, output_type="ndarray")  # (P, 2), a < b
    pairs = pairs[np.lexsort([pairs[:, 0], pairs[:, 1]])]
    for some in np.split(pairs, range(BATCH, len(pairs), BATCH)):
        a, b = some[_same_nucleus(outlines, xy, mpp, some)].T
        for earlier, later in zip(a, b, strict=True):
            duplicate[later] |= not duplicate[earlier]
    return duplicate


def _same_nucleus(outlines: Outlines, xy: np.ndarray, mpp: float, pairs: np.ndarray) -> np.ndarray:
    """Tell which pairs (P, 2) of neighbours are one nucleus, (P,) bool."""
    a, b = pairs.T
    present = outlines.present
    drawn = present[a] & present[b]
    one = ~drawn & (np.linalg.norm(xy[a] - xy[b], axis=1) * mpp <= POINT_UM)
    first, second = outlines[a[drawn]], outlines[b[drawn]]
    areas = np.stack([shapely.area(first), shapely.area(second)])  # (2, P')
    nuclear = (areas * mpp**2 >= AREA_UM2[0]) & (areas * mpp**2 <= AREA_UM2[1])
    both = np.flatnonzero(nuclear.all(axis=0))
    shared = shapely.area(shapely.intersection(first[both], second[both]))
    covered = np.zeros(drawn.sum(), bool)
    covered[both] = shared > OVERLAP * areas[:, both].min(axis=0)
    one[drawn] = covered
    return one
