"""Nuclei as outlines, and the shape measured from an outline, whoever drew it."""

import cv2
import numpy as np
import shapely
from scipy.ndimage import find_objects

CONTOUR_TOLERANCE_PX = 0.3  # by how much an outline may be simplified

SHAPE_COLUMNS = (
    "area_um2",
    "perimeter_um",
    "eccentricity",
    "solidity",
    "major_um",
    "minor_um",
    "orientation",
)


def outlines(labels: np.ndarray) -> np.ndarray:
    """Trace the outer outline of every labelled region.

    OpenCV's contour runs through the centres of the border pixels, half a pixel inside the region;
    it is widened by that half, so that the polygon's area is the region's.

    Args:
        labels: (H, W) int32, 0 is background.

    Returns:
        (N,) shapely polygons in px, whole numbers being pixel centres, in the labels' order.
    """
    rings = []
    for label, box in enumerate(find_objects(labels), start=1):
        if box is None:
            continue
        mask = (labels[box] == label).astype(np.uint8)
        found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        ring = max(found, key=len)[:, 0] + np.array([box[1].start, box[0].start])  # (K, 2)
        rings.append(np.resize(ring, (max(len(ring), 3), 2)))  # one or two pixels: repeated
    if not rings:
        return np.empty(0, object)
    owner = np.repeat(np.arange(len(rings)), [len(r) for r in rings])
    lines = shapely.linearrings(np.concatenate(rings).astype(np.float64), indices=owner)
    wide = shapely.buffer(shapely.polygons(lines), 0.5, join_style="mitre")
    thin = shapely.is_empty(wide)  # a line of pixels encloses nothing
    wide[thin] = shapely.buffer(lines[thin], 0.5, cap_style="square", join_style="mitre")
    return shapely.simplify(largest_parts(wide), CONTOUR_TOLERANCE_PX)


def largest_parts(polygons: np.ndarray) -> np.ndarray:
    """Reduce every geometry to the largest polygon in it, without holes.

    Args:
        polygons: (N,) shapely Polygons or MultiPolygons.

    Returns:
        (N,) shapely Polygons.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    order = np.lexsort([-shapely.area(parts), owner])
    first = np.flatnonzero(np.diff(owner[order], prepend=-1))
    return shapely.polygons(shapely.get_exterior_ring(parts[order][first]))


def shape(polygons: np.ndarray, mpp: float) -> dict[str, np.ndarray]:
    """Measure outlines: area, perimeter, and the ellipse of equal second moments.

    The names and definitions are scikit-image's regionprops', computed from the polygon's exact
    moments instead of pixels.

    Args:
        polygons: (N,) shapely Polygons in px.
        mpp: µm/px.

    Returns:
        SHAPE_COLUMNS, (N,) float32 each: µm², µm, -, -, µm, µm, rad (from the rows' axis to the
        major axis, in [-π/2, π/2]).
    """
    area, xx, yy, xy = _moments(polygons)
    spread = np.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    major, minor = (xx + yy) / 2 + spread, np.maximum((xx + yy) / 2 - spread, 0)
    hull = shapely.area(shapely.convex_hull(polygons))
    values = {
        "area_um2": area * mpp**2,
        "perimeter_um": shapely.length(polygons) * mpp,
        "eccentricity": np.sqrt(1 - minor / major),
        "solidity": area / hull,
        "major_um": 4 * np.sqrt(major) * mpp,
        "minor_um": 4 * np.sqrt(minor) * mpp,
        "orientation": np.arctan2(2 * xy, yy - xx) / 2,
    }
    return {name: values[name].astype(np.float32) for name in SHAPE_COLUMNS}


def _moments(polygons: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return area and central second moments per area (xx, yy, xy) of polygons, (N,) each.

    Green's theorem over the edges of each exterior ring.
    """
    if not len(polygons):
        return (np.empty(0),) * 4
    centre = shapely.get_coordinates(shapely.centroid(polygons))  # (N, 2)
    points, owner = shapely.get_coordinates(
        shapely.get_exterior_ring(polygons), return_index=True
    )  # (K, 2), each ring closed
    points = points - centre[owner]
    inner = owner[1:] == owner[:-1]  # edges within a ring, not between two rings
    (x0, y0), (x1, y1) = points[:-1][inner].T, points[1:][inner].T
    start = np.flatnonzero(np.diff(owner[:-1][inner], prepend=-1))
    cross = x0 * y1 - x1 * y0

    def total(terms: np.ndarray) -> np.ndarray:
        return np.add.reduceat(terms, start)

    area = total(cross) / 2
    xx = total(cross * (x0 * x0 + x0 * x1 + x1 * x1)) / 12 / area
    yy = total(cross * (y0 * y0 + y0 * y1 + y1 * y1)) / 12 / area
    xy = total(cross * (x0 * y1 + 2 * x0 * y0 + 2 * x1 * y1 + x1 * y0)) / 24 / area
    return np.abs(area), xx, yy, xy
