"""Lay out the tissue: where glass, stroma, epithelium and lumen lie, and how fibres run.

Everything large is worked out on a grid GRID times coarser than the slide and enlarged; what is
seen as texture is worked out at full size.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.noise import along, ramp, smooth
from demo.stain import Look
from demo.vessel import draw_vessels, hollow

GRID = 4  # px of the slide per cell of the coarse grid
NO_LUMEN = -2000.0  # of `Tissue.apical`, px, in solid nests
BORDERED_PX = 1500  # slides with a shorter side are all tissue: too small to hold its border


@dataclass(frozen=True)
class Tissue:
    """The layout on the coarse grid, every array (H / GRID, W / GRID) float32."""

    solid: np.ndarray  # signed distance to the tissue's border, px, positive in the tissue
    depth: np.ndarray  # signed distance to the epithelium's border, px, positive within
    apical: np.ndarray  # how far within a gland's lumen, px, negative outside; far below 0: none
    angle: np.ndarray  # rad, in which fibres run, from the x to the y axis
    vessels: np.ndarray  # (N,) VESSEL


def lay(height: int, width: int, look: Look, rng: np.random.Generator) -> Tissue:
    """Lay out a slide of (height, width) px, both multiples of GRID."""
    rows, columns = height // GRID, width // GRID
    nests = smooth(rng, rows, columns, 230 / GRID, 3) + 0.6 * smooth(rng, rows, columns, 500 / GRID)
    depth = _signed(nests > np.quantile(nests, 1 - look.nests))
    glandular = smooth(rng, rows, columns, 400 / GRID) < _normal_quantile(look.glands)
    wall = np.maximum(75 + 14 * smooth(rng, rows, columns, 150 / GRID, 2), 45)
    apical = np.where(glandular, depth - wall, NO_LUMEN).astype(np.float32)
    apical = cv2.GaussianBlur(apical, (0, 0), 4)  # else lumina have the sharp corners of a skeleton

    # Fibres run along the contours of a potential: around nests near them, elsewhere in waves
    # across one direction, with a crimp.
    y, x = np.mgrid[0:height:GRID, 0:width:GRID].astype(np.float32)
    heading = rng.uniform(0, 2 * np.pi)
    potential = 0.5 * (x * np.cos(heading) + y * np.sin(heading)) + 1.5 * np.clip(-depth, -30, 60)
    potential += 60 * smooth(rng, rows, columns, 420 / GRID, 2)
    dy, dx = np.gradient(cv2.GaussianBlur(potential.astype(np.float32), (0, 0), 3))
    angle = np.arctan2(dx, -dy) + 0.22 * smooth(rng, rows, columns, 45 / GRID, 2)
    angle = angle.astype(np.float32)

    tissue = np.ones((rows, columns), bool)
    if min(height, width) >= BORDERED_PX:
        tissue = _tissue(rows, columns, rng)
    vessels = draw_vessels(tissue & (depth < -28), angle, GRID, rng)
    solid = _signed(tissue & ~hollow(vessels, tissue.shape, GRID))
    return Tissue(solid, depth, apical, angle, vessels)


def _normal_quantile(share: float) -> float:
    """Return about the value that a share of a unit normal lies under."""
    share = min(max(share, 0.01), 0.99)
    return float(np.log(share / (1 - share)) / 1.702)


def _signed(mask: np.ndarray) -> np.ndarray:
    """Return the signed distance to a mask's border in slide px, positive inside."""
    mask = mask.astype(np.uint8)
    inner = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    outer = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    most = max(mask.shape)  # where there is no border at all, OpenCV gives its distance as endless
    signed = np.minimum(inner, most) - np.minimum(outer, most)
    return cv2.GaussianBlur(signed * GRID, (0, 0), 1.2)


def _tissue(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Draw where there is tissue: an irregular border on some sides, a tear or two within."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    edges = np.stack([x, columns - x, y, rows - y])
    order = rng.permutation(4)
    edge = edges[order[: rng.integers(1, 3)]].min(0)  # the tissue runs on beyond the other sides
    side = min(rows, columns)
    field = edge / side + 0.05 * smooth(rng, rows, columns, side / 4, 4)
    tears = np.abs(smooth(rng, rows, columns, side / 2.2, 3)) + 0.05 * smooth(
        rng, rows, columns, 8, 2
    )
    rare = smooth(rng, rows, columns, side / 3)
    share = rng.uniform(0.10, 0.16)
    torn = (tears < 0.09) & (rare > 0.9)
    return (field > np.quantile(field, share)) & ~torn


def enlarge(field: np.ndarray) -> np.ndarray:
    """Bring a coarse field to the slide's size, (H, W) float32."""
    rows, columns = field.shape
    return cv2.resize(field, (columns * GRID, rows * GRID), interpolation=cv2.INTER_LINEAR)


def ground(tissue: Tissue, centres: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Paint everything but the nuclei and the inflammatory cells' bodies.

    Args:
        tissue: the layout.
        centres: (N, 2) float, x and y of the epithelial nuclei, px: their cells' seeds.
        look: the slide's.
        rng: of every draw.

    Returns:
        (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
    """
    rows, columns = tissue.depth.shape
    height, width = rows * GRID, columns * GRID
    fine = smooth(rng, height, width, 2.2)
    mottle = smooth(rng, height, width, 14, 3)
    depth = enlarge(tissue.depth) + 2.0 * mottle + 0.7 * fine

    h, e = _stroma(tissue, depth, mottle, look, rng)
    cell_h, cell_e = _epithelium(centres, height, width, fine, mottle, look, rng)
    within = ramp(depth, -1.0, 1.5)
    h += within * (cell_h - h)
    e += within * (cell_e - e)

    into_lumen = enlarge(tissue.apical) + 2.0 * mottle + 0.7 * fine
    secretion = 0.22 * ramp(smooth(rng, height, width, 90, 3), 0.6, 1.6)
    lumen = ramp(into_lumen, -1.5, 2.5)
    e += lumen * (secretion * (1 + 0.3 * mottle) - e)
    e += 0.25 * np.exp(-((into_lumen + 3) ** 2) / 8)  # the cells' apical border
    h -= lumen * h

    solid = ramp(enlarge(tissue.solid) + 5 * mottle + fine, -2, 3)
    blood = np.zeros_like(h)
    return np.stack([np.maximum(h, 0) * solid, np.maximum(e, 0) * solid, blood])


def _stroma(
    tissue: Tissue, depth: np.ndarray, mottle: np.ndarray, look: Look, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint collagen: bundles of fibres, slits between them; return its two dyes, (H, W) each."""
    rows, columns = tissue.angle.shape
    u, v = np.cos(tissue.angle), np.sin(tissue.angle)
    bundles = along(rng.standard_normal((rows, columns), np.float32), u, v, 4)
    thick = along(smooth(rng, rows, columns, 6), u, v, 6)
    bundles, thick, u, v = enlarge(bundles), enlarge(thick), enlarge(u), enlarge(v)
    height, width = depth.shape
    threads = along(rng.standard_normal((height, width), np.float32), u, v, 5)
    loose = ramp(smooth(rng, height, width, 300, 2), 0.0, 2.0)  # oedema: pale, more slits
    frayed = 0.4 + 0.6 * ramp(smooth(rng, height, width, 80, 2), -1, 1.5)  # else hyaline, even
    e = 0.60 + frayed * (0.09 * bundles + 0.07 * threads) + 0.11 * thick + 0.05 * mottle
    e *= 1 - 0.45 * loose
    h = look.blue * (1 + loose) * (1 + 0.5 * mottle + 0.4 * threads) + 0.04
    slit = ramp(-thick - 0.35 * bundles - 0.25 * threads + 0.8 * loose, 1.75, 2.3)
    # Tissue shrinks in fixing and comes away from the nests here and there.
    torn = ramp(smooth(rng, height, width, 120, 2), 0.7, 1.3)
    slit = np.maximum(slit, torn * np.exp(-((depth + 6) ** 2) / 18))
    return h * (1 - slit), e * (1 - 0.95 * slit)


def _epithelium(
    centres: np.ndarray,
    height: int,
    width: int,
    fine: np.ndarray,
    mottle: np.ndarray,
    look: Look,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Paint cytoplasm cell by cell, with membranes; return its two dyes, (H, W) each."""
    seeds = np.ones((height, width), np.uint8)
    column, row = np.round(centres).astype(int).T
    seeds[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)] = 0
    bent = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    away, label = bent
    shade = np.exp(0.16 * rng.standard_normal(label.max() + 1, np.float32))[label]
    wall = np.zeros((height, width), np.float32)
    wall[:, 1:] += label[:, 1:] != label[:, :-1]
    wall[1:] += label[1:] != label[:-1]
    wall = cv2.GaussianBlur(np.minimum(wall, 1), (0, 0), 1.2)
    wall *= 0.5 + 0.5 * ramp(smooth(rng, height, width, 40, 2), -1.2, 1.0)  # seen here and there
    clear = look.vacuoles * ramp(smooth(rng, height, width, 11, 2) + (away - 22) / 12, 0.3, 1.6)
    grain = 1 + 0.13 * fine + 0.11 * mottle
    e = look.cytoplasm[1] * grain * shade * (1 - 0.75 * clear) + 0.40 * wall
    h = look.cytoplasm[0] * grain * shade * (1 - 0.85 * clear) + 0.12 * wall
    return h, e
