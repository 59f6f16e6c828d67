"""Outlines that cross themselves, mended: every polygon that is used or written is valid."""

import numpy as np
import shapely

from extract.morphology import largest_parts
from extract.segment.detections import BATCH, Outlines

GRID_PX = 1 / 64  # to which a mended outline's corners are rounded; float32 holds it to 262,144 px
SLACK_PX2 = 1e-6  # by which twice an edge's triangle with the centre must differ from nothing


def mend(outlines: Outlines, xy: np.ndarray) -> tuple[Outlines, np.ndarray, int]:
    """Replace every outline that is no valid polygon by the largest valid polygon within it.

    One that encloses nothing is taken away: its nucleus is a place.

    Args:
        outlines: N.
        xy: (N, 2) their centroids, px; those of mended ones are changed in place.

    Returns:
        The outlines, xy, and how many were replaced or taken away.
    """
    suspects = [np.empty(0, np.int64)]
    for first in range(0, len(outlines), BATCH):
        rows = slice(first, first + BATCH)
        found = first + np.flatnonzero(~_is_star(outlines, rows, xy[rows]))
        suspects.append(found[~shapely.is_valid(outlines[found])] if len(found) else found)
    bad = np.concatenate(suspects)
    if not len(bad):
        return outlines, xy, 0
    fixed = Outlines.pack(_repaired(outlines[bad]))
    lengths = np.diff(outlines.start)
    old = np.repeat(~_marked(bad, len(lengths)), lengths)
    lengths[bad] = np.diff(fixed.start)
    kept = np.repeat(~_marked(bad, len(lengths)), lengths)
    points = np.empty((len(kept), 2), np.float32)
    points[kept], points[~kept] = outlines.points[old], fixed.points
    centres = fixed.centres()
    some = fixed.present
    xy[bad[some]] = centres[some]
    return Outlines(points, np.concatenate([[0], np.cumsum(lengths)])), xy, len(bad)


def _is_star(outlines: Outlines, rows: slice, xy: np.ndarray) -> np.ndarray:
    """Tell which outlines are seen whole from their centroid, (M,) bool; true where there is none.

    Such a ring turns about the centroid one way only and once, so it cannot cross itself. Most
    nuclei are so, and it costs a twentieth of GEOS' test.
    """
    start = outlines.start[rows.start : rows.stop + 1]
    lengths = np.diff(start)
    star = lengths == 0
    some = np.flatnonzero(~star)
    if not len(some):
        return star
    firsts = start[some] - start[0]
    x, y = (outlines.points[start[0] : start[-1]] - np.repeat(xy, lengths, axis=0)).T
    turn = x[:-1] * y[1:] - x[1:] * y[:-1]
    below = y < 0
    score = (turn > SLACK_PX2).astype(np.int64) - (turn < -SLACK_PX2)
    score += (below[:-1] & ~below[1:]) * np.int64(1 << 20)  # once in a turn
    score[firsts[1:] - 1] = 0  # from one ring's end to the next one's begin
    total = np.add.reduceat(score, firsts)
    turns = (total + (1 << 19)) >> 20
    star[some] = (turns == 1) & (np.abs(total - (turns << 20)) == lengths[some] - 1)
    return star


def _repaired(polygons: np.ndarray) -> np.ndarray:
    """Return the largest valid polygon within each of (B,) invalid ones, None where none is."""
    shapes = largest_parts(shapely.make_valid(polygons))
    some = np.flatnonzero(~shapely.is_missing(shapes))
    if not len(some):
        return shapes
    # The corners where it crossed itself are new: rounded here so that they stay valid as float32.
    reach = np.abs(shapely.bounds(shapes[some])).max()
    grid = max(GRID_PX, float(np.spacing(np.float32(reach))))
    shapes[some] = largest_parts(shapely.set_precision(shapes[some], grid))
    return shapes


def _marked(rows: np.ndarray, count: int) -> np.ndarray:
    """Return (count,) bool, true at the rows."""
    marks = np.zeros(count, bool)
    marks[rows] = True
    return marks
