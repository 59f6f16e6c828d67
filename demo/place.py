"""Place the nuclei: each kind where it lives, none upon another."""

import cv2
import numpy as np

from demo.noise import ramp, smooth
from demo.nucleus import KINDS, NUCLEUS, draw_shapes
from demo.stain import Look
from demo.tissue import GRID, NO_LUMEN, Tissue

# Nuclei per 1000 x 1000 px of the place a kind lives in (epithelium for the first, else stroma).
DENSITY = {"epithelial": 540, "lymphocyte": 165, "fibroblast": 165, "plasma": 118}
TRIES = 12  # places looked at per nucleus before it is given up: crowded places fill up
CORE = 0.96  # nuclei may touch: of each outline, this share must stay free of others'


def place(tissue: Tissue, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Place nuclei of all kinds on a layout.

    Returns:
        (N,) NUCLEUS, epithelial ones first; positions in px of the canvas.
    """
    rows, columns = tissue.depth.shape
    taken = np.zeros((rows * GRID // 2, columns * GRID // 2), np.uint8)  # half size is enough
    placed = []
    for kind, odds in _odds(tissue, look, rng).items():
        home = odds > 0
        room = home.sum() * GRID**2 / 1e6
        factor = look.inflamed if kind in ("lymphocyte", "plasma") else 1.0
        shapes = draw_shapes(kind, max(int(room * DENSITY[kind] * factor), 4), rng)
        placed.append(_settle(shapes, odds, tissue, taken, rng))
    return np.concatenate(placed)


def _odds(tissue: Tissue, look: Look, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return how likely each kind is in each place, (H / GRID, W / GRID) float64 each."""
    shape = tissue.depth.shape
    alive = tissue.solid > 14
    nest = alive & (tissue.depth > 11) & (tissue.apical < -13)
    basal = 0.35 + np.exp(-((tissue.depth - 24) ** 2) / 300)  # most nuclei of a gland lie deep
    basal = np.where(tissue.apical > NO_LUMEN / 2, basal, 1.0)
    stroma = alive & (tissue.depth < -9)
    heat = smooth(rng, *shape, 200 / GRID, 2)
    crowd = np.exp(1.5 * heat) + 0.15
    mates = np.exp(1.2 * smooth(rng, *shape, 180 / GRID, 2) + 0.7 * heat) + 0.1
    quiet = 0.25 + ramp(-heat, -1.0, 1.0)
    few = 0.25 * nest  # they wander into the epithelium
    return {
        "epithelial": nest * basal,
        "lymphocyte": stroma * crowd + few * (heat > 0.2),
        "plasma": stroma * mates + 0.4 * few * (heat > 0.5),
        "fibroblast": stroma * quiet,
    }


def _settle(
    shapes: np.ndarray,
    odds: np.ndarray,
    tissue: Tissue,
    taken: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Give each shape a free place drawn by the odds, mark it taken, drop those that find none."""
    cumulated = np.cumsum(odds.ravel().astype(np.float64))
    if cumulated[-1] == 0:
        return shapes[:0]
    rows, columns = odds.shape
    dy, dx = np.gradient(tissue.depth)
    placed = []
    for shape in shapes:
        cells = np.searchsorted(cumulated, rng.random(TRIES) * cumulated[-1], side="right")
        spots = (np.stack([cells % columns, cells // columns], 1) + rng.random((TRIES, 2))) * GRID
        for x, y in spots - 0.5:
            row, column = min(int(y / GRID), rows - 1), min(int(x / GRID), columns - 1)
            angle = rng.uniform(0, np.pi)
            if shape["kind"] == "fibroblast":
                angle = tissue.angle[row, column] + rng.normal(0, 0.22)
            elif shape["kind"] == "epithelial" and tissue.apical[row, column] > NO_LUMEN / 2:
                angle = np.arctan2(dy[row, column], dx[row, column]) + rng.normal(0, 0.35)
            if _take(taken, x, y, shape, angle):
                shape["x"], shape["y"], shape["angle"] = x, y, angle
                placed.append(shape)
                break
    return np.array(placed, NUCLEUS) if placed else shapes[:0]


def _take(taken: np.ndarray, x: float, y: float, shape: np.void, angle: float) -> bool:
    """Mark an outline as taken if none of it is."""
    reach = int(shape["major"] / 2) + 2
    column, row = int(x / 2), int(y / 2)
    x0, y0 = max(column - reach, 0), max(row - reach, 0)
    window = taken[y0 : row + reach + 1, x0 : column + reach + 1]
    mask = np.zeros_like(window)
    axes = [float(shape["major"]) * CORE, max(float(shape["minor"]), 5.0) * CORE]
    box = ((x / 2 - x0, y / 2 - y0), tuple(axes), float(np.degrees(angle)))
    cv2.ellipse(mask, box, 1, -1)
    if (mask & window).any():
        return False
    window |= mask
    return True


assert set(DENSITY) == set(KINDS)
