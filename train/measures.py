"""Handcrafted features of a nucleus: what a pathologist would measure, as a baseline.

The nucleus is the connected dark component of the haematoxylin channel nearest the centre
(Otsu); shape, colour in and around it, texture of the haematoxylin and a radial profile follow.
Texture: Haralick 1973 (grey-level co-occurrence) and Ojala 2002 (rotation-invariant uniform local
binary patterns). Stains: Ruifrok and Johnston 2001.
"""

import cv2
import numpy as np

# Rows: optical density of pure haematoxylin, eosin, DAB in R, G, B (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
LEVELS = 16  # grey levels of the co-occurrence matrix, over a haematoxylin density of 0 to 1.6
RING_PX = 5  # width of what counts as around the nucleus: 1.25 µm
RINGS = 5  # of the radial profile, 4 px each
STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))  # the co-occurrence matrix's directions

_SHAPE = (
    "area", "perimeter", "major", "minor", "eccentricity", "solidity", "circularity", "extent",
    "off_centre", "at_border", "dark_fraction", "components", "threshold",
)  # fmt: skip
_HARALICK = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
_COLOUR = (
    tuple(f"nucleus_{c}_{s}" for c in "RGBHE" for s in ("mean", "sd"))
    + tuple(f"nucleus_{c}_{s}" for c in "HE" for s in ("p10", "p50", "p90"))
    + tuple(f"around_{c}_{s}" for c in "RGBHE" for s in ("mean", "sd"))
    + ("contrast_H", "contrast_E", "gradient_edge", "gradient_inside", "laplacian_inside")
)
NAMES = (
    _SHAPE
    + _COLOUR
    + tuple(f"glcm{d}_{name}" for d in (1, 3) for name in _HARALICK)
    + tuple(f"lbp_{i}" for i in range(10))
    + tuple(f"radial_{c}_{i}" for c in "HE" for i in range(RINGS))
)


def stain_density(crops: np.ndarray) -> np.ndarray:
    """Separate haematoxylin and eosin.

    Args:
        crops: (N, H, W, 3) uint8 RGB.

    Returns:
        (N, H, W, 2) float32, optical density (base 10) of haematoxylin and eosin.
    """
    table = -np.log10(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
    unmix = np.linalg.inv(STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True))
    return table[crops] @ unmix[:, :2].astype(np.float32)


def measure(crops: np.ndarray) -> np.ndarray:
    """Measure every crop.

    Args:
        crops: (N, P, P, 3) uint8 RGB at 0.25 µm/px, the nucleus in the middle.

    Returns:
        (N, len(NAMES)) float32, in the order of NAMES; lengths in px.
    """
    density = stain_density(crops)
    channels = np.concatenate([crops.astype(np.float32), density], axis=3)  # R, G, B, H, E
    masks, shape = np.empty(crops.shape[:3], bool), np.empty((len(crops), len(_SHAPE)))
    colour = np.empty((len(crops), len(_COLOUR)))
    for i in range(len(crops)):
        masks[i], shape[i] = _nucleus(density[i, :, :, 0])
        colour[i] = _colour(channels[i], masks[i])
    texture = [_cooccurrence(density[..., 0], distance) for distance in (1, 3)]
    parts = [shape, colour, *texture, _patterns(density[..., 0]), _radial(density)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _nucleus(haematoxylin: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the mask of the nucleus in the middle, (P, P) bool, and its shape's measures."""
    side = len(haematoxylin)
    grey = np.clip(haematoxylin * 160, 0, 255).astype(np.uint8)  # 1.6 OD is 255
    grey = cv2.GaussianBlur(grey, (0, 0), 1.2)
    threshold, dark = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, parts = cv2.connectedComponents(dark, connectivity=4)
    middle = (side - 1) / 2
    y, x = np.nonzero(dark)
    if len(x):
        nearest = np.argmin((x - middle) ** 2 + (y - middle) ** 2)
        mask = (parts == parts[y[nearest], x[nearest]]).astype(np.uint8)
    else:  # nothing stands out, a blank crop: a small disc, so that every measure is defined
        mask = cv2.circle(np.zeros_like(grey), (side // 2, side // 2), 6, 1, -1)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    mask = cv2.drawContours(np.zeros_like(mask), [outline], -1, 1, -1)  # holes filled
    area = float(mask.sum())
    perimeter = cv2.arcLength(outline, True) + 4  # the outline runs through pixel centres
    moments = cv2.moments(mask, binaryImage=True)
    mxx, myy, mxy = (moments[k] / area for k in ("mu20", "mu02", "mu11"))
    spread = np.sqrt((mxx - myy) ** 2 / 4 + mxy**2)
    long, short = (mxx + myy) / 2 + spread + 1 / 12, (mxx + myy) / 2 - spread + 1 / 12
    hull = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(outline), 1)
    _, _, width, height = cv2.boundingRect(outline)
    centre = (moments["m10"] / area - middle, moments["m01"] / area - middle)
    border = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return mask.astype(bool), (
        area,
        perimeter,
        4 * np.sqrt(long),
        4 * np.sqrt(short),
        np.sqrt(1 - short / long),
        area / hull.sum(),
        4 * np.pi * area / perimeter**2,
        area / (width * height),
        np.hypot(*centre),
        border / (4 * side),
        (dark > 0).mean(),
        count - 1,
        threshold / 160,
    )


def _colour(channels: np.ndarray, mask: np.ndarray) -> list[float]:
    """Return colour in and around a nucleus and the sharpness of its edge.

    Args:
        channels: (P, P, 5) float32, R, G, B, H, E.
        mask: (P, P) bool.
    """
    size = 2 * RING_PX + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    ring = (cv2.dilate(mask.astype(np.uint8), disc) > 0) & ~mask
    if not ring.any():  # the mask fills the crop
        ring = mask
    inner, outer = channels[mask], channels[ring]  # (pixels, 5)
    mean, around = inner.mean(axis=0), outer.mean(axis=0)
    percentiles = np.percentile(inner[:, 3:], (10, 50, 90), axis=0).T.ravel()
    haematoxylin = channels[:, :, 3]
    gradient = np.hypot(cv2.Sobel(haematoxylin, -1, 1, 0), cv2.Sobel(haematoxylin, -1, 0, 1))
    core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0
    edge = mask & ~core
    if not core.any():
        core = mask
    return [
        *np.stack([mean, inner.std(axis=0)], axis=1).ravel(),
        *percentiles,
        *np.stack([around, outer.std(axis=0)], axis=1).ravel(),
        *(mean - around)[3:],
        gradient[edge].mean(),
        gradient[core].mean(),
        cv2.Laplacian(haematoxylin, -1)[core].std(),
    ]


def _cooccurrence(haematoxylin: np.ndarray, distance: int) -> np.ndarray:
    """Return Haralick's measures of the grey levels at a distance, (N, 6), over four directions.

    Args:
        haematoxylin: (N, P, P) float32.
        distance: px, along rows and columns.
    """
    n, side = haematoxylin.shape[:2]
    levels = np.clip(haematoxylin * (LEVELS / 1.6), 0, LEVELS - 1).astype(np.int64)
    counts = np.zeros((n, LEVELS * LEVELS))
    start = np.arange(n)[:, None, None] * LEVELS**2
    for dy, dx in STEPS:
        dy, dx = dy * distance, dx * distance
        here = levels[:, : side - dy, max(-dx, 0) : side - max(dx, 0)]
        there = levels[:, dy:, max(dx, 0) : side + min(dx, 0)]
        pairs = start + here * LEVELS + there
        counts += np.bincount(pairs.ravel(), minlength=counts.size).reshape(counts.shape)
    matrix = counts.reshape(n, LEVELS, LEVELS)
    matrix = matrix + matrix.transpose(0, 2, 1)
    matrix /= matrix.sum(axis=(1, 2), keepdims=True)
    i, j = np.meshgrid(np.arange(LEVELS), np.arange(LEVELS), indexing="ij")
    mean = (matrix * i).sum(axis=(1, 2))
    variance = (matrix * (i - mean[:, None, None]) ** 2).sum(axis=(1, 2))
    covariance = (matrix * i * j).sum(axis=(1, 2)) - mean**2
    measures = [
        (matrix * (i - j) ** 2).sum(axis=(1, 2)),
        (matrix * abs(i - j)).sum(axis=(1, 2)),
        (matrix / (1 + (i - j) ** 2)).sum(axis=(1, 2)),
        np.sqrt((matrix**2).sum(axis=(1, 2))),
        covariance / np.maximum(variance, 1e-6),
        -(matrix * np.log(matrix + 1e-12)).sum(axis=(1, 2)),
    ]
    return np.stack(measures, axis=1)


def _patterns(haematoxylin: np.ndarray) -> np.ndarray:
    """Return the shares of the ten uniform local binary patterns, 8 neighbours at 1 px, (N, 10)."""
    n, side = haematoxylin.shape[:2]
    ring = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
    middle = haematoxylin[:, 1:-1, 1:-1]
    bits = np.stack(
        [haematoxylin[:, 1 + y : side - 1 + y, 1 + x : side - 1 + x] >= middle for y, x in ring]
    )  # (8, N, P-2, P-2)
    ones, changes = bits.sum(axis=0), (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, ones, 9)  # 0-8 by the number of ones; 9: not uniform
    flat = (np.arange(n)[:, None, None] * 10 + pattern).ravel()
    return np.bincount(flat, minlength=n * 10).reshape(n, 10) / middle[0].size


def _radial(density: np.ndarray) -> np.ndarray:
    """Return mean haematoxylin, then eosin, in rings from the middle out, (N, 2 * RINGS)."""
    side = density.shape[1]
    y, x = np.indices((side, side)) - (side - 1) / 2
    ring = np.minimum(np.hypot(x, y) / (side / 2) * RINGS, RINGS - 1).astype(int).ravel()
    weights = np.eye(RINGS)[ring] / np.bincount(ring, minlength=RINGS)  # (P*P, RINGS)
    flat = density.reshape(len(density), side * side, 2)
    return np.einsum("npc,pr->ncr", flat, weights, optimize=True).reshape(len(density), -1)
