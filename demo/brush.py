"""Dip, turn and lay: the few strokes that everything small is painted with.

A canvas is dye: (3, H, W) float32, the concentrations of haematoxylin, eosin and blood.
"""

import numpy as np

Window = tuple[slice, slice]


def patch(
    shape: tuple[int, ...], x: float, y: float, reach: int
) -> tuple[Window, np.ndarray, np.ndarray]:
    """Return the window of a canvas around a point, and how far its pixels lie from the point.

    Args:
        shape: of the canvas, (3, H, W).
        x: of the point, px; whole numbers are pixel centres.
        y: of the point, px.
        reach: px from the point to the window's edge; the window ends at the canvas' edge.

    Returns:
        The window, (rows, columns), and the offsets along x and y, (h, w) float32 each.
    """
    column, row = round(float(x)), round(float(y))
    left, right = max(column - reach, 0), min(column + reach + 1, shape[2])
    top, bottom = max(row - reach, 0), min(row + reach + 1, shape[1])
    rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
    return (slice(top, bottom), slice(left, right)), columns - np.float32(x), rows - np.float32(y)


def turn(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return offsets along and across an axis at `angle` rad from the x to the y axis."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def cover(
    dye: np.ndarray,
    window: Window,
    alpha: np.ndarray,
    haematoxylin: np.ndarray | float,
    eosin: np.ndarray | float,
    blood: np.ndarray | float = 0.0,
) -> None:
    """Lay a body of given dye over what is there, in place; `alpha` (h, w) says how opaquely."""
    for layer, value in zip(dye, (haematoxylin, eosin, blood), strict=True):
        layer[window] += alpha * (value - layer[window])
