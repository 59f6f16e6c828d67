"""Nuclei as outlines, and the shape measured from an outline, whoever drew it."""

import cv2
import numpy as np
import shapely
from scipy.ndimage import find_objects

from shards.stain import Stain, concentrations

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
DENSITY_COLUMNS = ("haematoxylin_mean", "haematoxylin_sd", "eosin_mean", "eosin_sd")


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
    lines = np.asarray(shapely.linearrings(np.concatenate(rings).astype(np.float64), indices=owner))
    wide = np.asarray(shapely.buffer(shapely.polygons(lines), 0.5, join_style="mitre"))
    thin = shapely.is_empty(wide)  # a line of pixels encloses nothing
    wide[thin] = shapely.buffer(lines[thin], 0.5, cap_style="square", join_style="mitre")
    return shapely.simplify(largest_parts(wide), CONTOUR_TOLERANCE_PX)


def largest_parts(geometries: np.ndarray) -> np.ndarray:
    """Reduce every geometry to the largest polygon in it, without holes.

    Args:
        geometries: (N,) shapely geometries of any kind, collections too.

    Returns:
        (N,) shapely Polygons, None where there is no polygon that encloses anything.
    """
    out = np.full(len(geometries), None, object)
    parts, owner = shapely.get_parts(geometries, return_index=True)
    while len(nested := np.flatnonzero(shapely.get_type_id(parts) > shapely.GeometryType.POLYGON)):
        within, of = shapely.get_parts(parts[nested], return_index=True)
        parts = np.concatenate([np.delete(parts, nested), within])
        owner = np.concatenate([np.delete(owner, nested), owner[nested][of]])
    areas = shapely.area(parts)
    order = np.lexsort([-areas, owner])
    order = order[areas[order] > 0]
    first = order[np.flatnonzero(np.diff(owner[order], prepend=-1))]
    out[owner[first]] = shapely.polygons(shapely.get_exterior_ring(parts[first]))
    return out


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


def stain_density(
    image: np.ndarray, polygons: np.ndarray, corner: tuple[int, int], stain: Stain
) -> np.ndarray:
    """Measure how much haematoxylin and eosin the pixels inside each outline hold.

    A pixel is inside when its centre is. The unit is the stains' own optical density (natural
    logarithm, as in `shards.stain`), not divided by the slide's 99th percentiles.

    Args:
        image: (H, W, 3) uint8 RGB.
        polygons: (N,) shapely Polygons or None, in px of the slide.
        corner: x and y of the image's upper left pixel in the slide.

    Returns:
        (N, 4) float32, DENSITY_COLUMNS; NaN where no pixel lies inside.
    """
    place, owner = _pixels_inside(polygons, corner, image.shape[:2])
    values = concentrations(image.reshape(-1, 3)[place], stain).astype(np.float64)  # (P, 2)
    out = np.full((len(polygons), 2, 2), np.nan)
    count = np.bincount(owner, minlength=len(polygons))
    some = count > 0
    for i in range(2):
        mean = np.bincount(owner, values[:, i], len(polygons))[some] / count[some]
        square = np.bincount(owner, values[:, i] ** 2, len(polygons))[some] / count[some]
        out[some, i, 0] = mean
        out[some, i, 1] = np.sqrt(np.maximum(square - mean**2, 0))
    return out.reshape(-1, 4).astype(np.float32)


def _pixels_inside(
    polygons: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """List the pixels whose centres lie inside each polygon, by crossings of rows with edges.

    Args:
        polygons: (N,) shapely Polygons or None; exterior rings count.
        corner: x and y of the image's upper left pixel, subtracted from the polygons'.
        size: (H, W) of the image.

    Returns:
        (P,) indices into the flattened image and (P,) the polygon each belongs to, in order.
    """
    height, width = size
    points, owner = shapely.get_coordinates(
        shapely.get_exterior_ring(polygons), return_index=True
    )  # (K, 2), each ring closed
    points = points - corner
    inner = owner[1:] == owner[:-1]
    (x0, y0), (x1, y1) = points[:-1][inner].T, points[1:][inner].T
    owner = owner[1:][inner]
    # An edge crosses the rows from its upper end on, its lower end excluded.
    first, last = np.ceil(np.minimum(y0, y1)), np.ceil(np.maximum(y0, y1))
    first, last = np.clip(first, 0, height), np.clip(last, 0, height)
    edge, row = _ranges(first.astype(int), (last - first).astype(int))
    slope = np.divide(x1 - x0, y1 - y0, out=np.zeros_like(x0), where=y0 != y1)
    x = x0[edge] + (row - y0[edge]) * slope[edge]
    order = np.lexsort([x, row, owner[edge]])
    x, row, owner = x[order], row[order], owner[edge][order]
    # Crossings come in pairs: into the polygon and out of it.
    start = np.clip(np.ceil(x[0::2]), 0, width).astype(int)
    stop = np.clip(np.ceil(x[1::2]), 0, width).astype(int)
    span, column = _ranges(start, np.maximum(stop - start, 0))
    return row[0::2][span] * width + column, owner[0::2][span]


def _ranges(start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for the ranges start, start + 1, … laid end to end: whose each is, and its value."""
    owner = np.repeat(np.arange(len(start)), length)
    before = np.cumsum(length) - length
    return owner, start[owner] + np.arange(len(owner)) - before[owner]
