"""Run small vessels through the stroma, and fill them with red blood cells."""

import cv2
import numpy as np

from demo.brush import cover, patch, turn

PER_MEGAPIXEL = 3.0  # vessels per 1000 x 1000 px of stroma
REACH = 16  # px from a red cell's centre to the edge of the patch it is drawn on

VESSEL = np.dtype([(name, np.float32) for name in ("x", "y", "major", "minor", "angle")])


def draw_vessels(
    free: np.ndarray, angle: np.ndarray, grid: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw where vessels run, along the fibres.

    Args:
        free: (H / grid, W / grid) bool, where a vessel's centre may lie.
        angle: rad, of the same shape, in which fibres run.
        grid: px per cell of the two.
        rng: of every draw.

    Returns:
        (N,) VESSEL: centres and semi-axes in px of the canvas, angles in rad.
    """
    rows, columns = np.nonzero(free)
    count = min(rng.poisson(PER_MEGAPIXEL * len(rows) * grid**2 / 1e6), len(rows))
    chosen = rng.choice(len(rows), count, replace=False) if count else np.zeros(0, int)
    vessels = np.zeros(count, VESSEL)
    vessels["x"], vessels["y"] = columns[chosen] * grid, rows[chosen] * grid
    vessels["major"] = rng.uniform(17, 46, count)
    vessels["minor"] = rng.uniform(10, 19, count)
    vessels["angle"] = angle[rows[chosen], columns[chosen]]
    return vessels


def hollow(vessels: np.ndarray, shape: tuple[int, int], grid: int) -> np.ndarray:
    """Return where the vessels' lumina are on the coarse grid, `shape` bool."""
    mask = np.zeros(shape, np.uint8)
    for v in vessels:
        centre = (float(v["x"]) / grid, float(v["y"]) / grid)
        axes = (2 * float(v["major"]) / grid, 2 * float(v["minor"]) / grid)
        cv2.ellipse(mask, (centre, axes, float(np.degrees(v["angle"]))), 1, -1)
    return mask > 0


def fill(dye: np.ndarray, vessels: np.ndarray, rng: np.random.Generator) -> None:
    """Paint red blood cells into the vessels, some empty, some full, in place."""
    for vessel in vessels:
        room = float(vessel["major"] * vessel["minor"]) / 110
        for _ in range(rng.integers(0, int(1.6 * room) + 2)):
            out, turned = np.sqrt(rng.random()) * 0.8, rng.uniform(0, 2 * np.pi)
            along = float(vessel["major"]) * out * np.cos(turned)
            across = float(vessel["minor"]) * out * np.sin(turned)
            cos, sin = np.cos(float(vessel["angle"])), np.sin(float(vessel["angle"]))
            x = float(vessel["x"]) + along * cos - across * sin
            y = float(vessel["y"]) + along * sin + across * cos
            _red_cell(dye, x, y, rng)


def _red_cell(dye: np.ndarray, x: float, y: float, rng: np.random.Generator) -> None:
    """Paint one: a disc with a paler middle, seen at a slant."""
    window, dx, dy = patch(dye.shape, x, y, REACH)
    u, v = turn(dx, dy, rng.uniform(0, np.pi))
    radius = rng.uniform(8.5, 12)
    far = np.hypot(u, v / rng.uniform(0.55, 1))
    alpha = np.clip((radius - far) / 1.5 + 0.5, 0, 1) * rng.uniform(0.8, 1)
    blood = rng.uniform(0.75, 1.05) * (
        1 - rng.uniform(0, 0.4) * np.exp(-((far / radius) ** 2) / 0.2)
    )
    cover(dye, window, alpha, 0.0, 0.1, blood)
