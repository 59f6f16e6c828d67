"""Draw the four kinds of nuclei, each with its own outline and chromatin.

Kinds differ on average and overlap at the margins, as in life: small dark epithelial nuclei, pale
activated lymphocytes, plump fibroblasts, plasma cells with a faint body. What always holds is the
pattern: nucleoli and a rim; clumps; smooth spindles; a clock face.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.noise import smooth

KINDS = ("epithelial", "lymphocyte", "fibroblast", "plasma")
REACH = 44  # px from a nucleus' centre to the edge of the patch it is drawn on
TILE = 512  # side of the texture that chromatin is cut from, px

# One row per nucleus. Whole numbers are pixel centres; angle from the x to the y axis.
NUCLEUS = np.dtype(
    [
        ("x", np.float64),  # level-0 px
        ("y", np.float64),
        ("kind", "U10"),
        ("major", np.float32),  # semi-axis, px
        ("minor", np.float32),
        ("angle", np.float32),  # rad, of the major axis
        ("dark", np.float32),  # mean concentration of haematoxylin
        ("bend", np.float32),  # px that the tips of a spindle lie off its axis
    ]
)


@dataclass(frozen=True)
class Chromatin:
    """Textures that nuclei are cut from, (TILE, TILE) float32 each, sd 1."""

    fine: np.ndarray
    coarse: np.ndarray


def draw_chromatin(rng: np.random.Generator) -> Chromatin:
    """Draw a slide's two textures."""
    return Chromatin(smooth(rng, TILE, TILE, 2.2), smooth(rng, TILE, TILE, 4.5, 2))


def draw_shapes(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw sizes, shades and bends of nuclei of one kind; places and angles are left at 0.

    Returns:
        (count,) NUCLEUS.
    """
    nuclei = np.zeros(count, NUCLEUS)
    nuclei["kind"] = kind
    normal, odd = rng.standard_normal((4, count)), rng.random(count)
    if kind == "epithelial":
        major = np.clip(16.5 + 2.6 * normal[0], 11, 24)
        ratio = np.clip(0.78 + 0.10 * normal[1], 0.5, 0.97)
        dark = 0.50 + 0.10 * normal[2] + 0.35 * (odd < 0.2)
    elif kind == "lymphocyte":
        major = np.clip(12.2 + 1.2 * normal[0] + 3.0 * (odd < 0.15), 9.5, 18)
        ratio = np.clip(0.90 + 0.06 * normal[1], 0.7, 1)
        dark = 0.98 + 0.12 * normal[2] - 0.28 * (odd < 0.2)
    elif kind == "fibroblast":
        major = np.clip(20.0 + 3.6 * normal[0] - 5 * (odd < 0.2), 11, 30)
        ratio = np.clip(0.28 + 0.06 * normal[1] + 0.22 * (odd < 0.2), 0.17, 0.65)
        dark = 0.78 + 0.15 * normal[2] - 0.2 * (odd < 0.12)
    else:
        major = np.clip(13.8 + 1.3 * normal[0], 10.5, 17.5)
        ratio = np.clip(0.91 + 0.05 * normal[1], 0.75, 1)
        dark = 0.84 + 0.12 * normal[2]
    nuclei["major"], nuclei["minor"] = major, major * ratio
    nuclei["dark"] = np.clip(dark, 0.3, 1.3)
    if kind == "fibroblast":
        nuclei["bend"] = 2.5 * normal[3]
    return nuclei


def paint_body(dye: np.ndarray, nucleus: np.void, rng: np.random.Generator) -> None:
    """Paint a plasma cell's or lymphocyte's cytoplasm under its nucleus, in place.

    Args:
        dye: (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
        nucleus: a row of NUCLEUS.
        rng: the source of chance.
    """
    kind, radius = nucleus["kind"], float(nucleus["major"])
    if kind not in ("plasma", "lymphocyte"):
        return
    towards = rng.uniform(0, 2 * np.pi)
    if kind == "plasma":
        offset, size = rng.uniform(0.45, 0.75) * radius, rng.uniform(1.45, 1.7) * radius
        depth, h, e = rng.uniform(0.45, 0.95), rng.uniform(0.22, 0.42), rng.uniform(0.42, 0.62)
    else:
        offset, size = rng.uniform(0.0, 0.15) * radius, rng.uniform(1.1, 1.35) * radius
        depth, h, e = rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.3), rng.uniform(0.15, 0.45)
    cx = nucleus["x"] + offset * np.cos(towards)
    cy = nucleus["y"] + offset * np.sin(towards)
    window, x, y = _patch(dye.shape, cx, cy)
    u, v = _turn(x, y, towards)
    edge = size * (1 + 0.06 * np.sin(3 * np.arctan2(v, u) + rng.uniform(0, 6)))
    far = np.hypot(u / 1.08, v / 0.94)
    alpha = depth * np.clip((edge - far) / 2 + 0.5, 0, 1)
    if kind == "plasma":  # the Golgi field, pale, beside the nucleus
        pale = np.exp(-((u - 0.1 * size) ** 2 + v**2) / (2 * (0.28 * size) ** 2))
        h, e = h * (1 - 0.6 * pale), e * (1 - 0.35 * pale)
    _cover(dye, window, alpha, h, e)


def paint_nucleus(
    dye: np.ndarray, nucleus: np.void, chromatin: Chromatin, rng: np.random.Generator
) -> None:
    """Paint a nucleus, in place.

    Args:
        dye: (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
        nucleus: a row of NUCLEUS, its position in px of `dye`.
        chromatin: the slide's textures.
        rng: the source of chance.
    """
    window, x, y = _patch(dye.shape, nucleus["x"], nucleus["y"])
    u, v = _turn(x, y, float(nucleus["angle"]))
    major, minor = float(nucleus["major"]), float(nucleus["minor"])
    v = v - float(nucleus["bend"]) * ((u / major) ** 2 - 0.25)  # the centroid stays in place
    round_ = np.arctan2(v / minor, u / major)  # angle on the circle that the outline is drawn from
    far = np.hypot(u / major, v / minor)
    if nucleus["kind"] == "fibroblast":  # pointed tips
        far = np.hypot(
            u / major, v / (minor * np.sqrt(np.clip(1 - (u / major) ** 2, 0.05, 1)) + 0.6)
        )
    waves = rng.normal(0, [0.035, 0.03, 0.018, 0.012])
    phases = rng.uniform(0, 2 * np.pi, 4)
    edge = 1 + sum(
        w * np.sin((k + 2) * round_ + p) for k, (w, p) in enumerate(zip(waves, phases, strict=True))
    )
    near = far / edge  # 0 in the middle, 1 on the outline
    inside = (1 - near) * minor  # px from the outline, roughly
    fine, coarse = _texture(chromatin.fine, x.shape, rng), _texture(chromatin.coarse, x.shape, rng)
    h, e = _PATTERNS[str(nucleus["kind"])](near, inside, round_, fine, coarse, minor, rng)
    h = h * float(nucleus["dark"])
    alpha = np.clip(inside / 1.6 + 0.5, 0, 1)
    defocus = abs(rng.normal(0, 0.55))  # nuclei lie at different heights in the section
    if defocus > 0.35:
        h, alpha = (cv2.GaussianBlur(a.astype(np.float32), (0, 0), defocus) for a in (h, alpha))
    _cover(dye, window, alpha * rng.uniform(0.9, 1), h, e)


def _epithelial(near, inside, round_, fine, coarse, minor, rng):
    """Vesicular: a pale ground with threads, a sharp rim, one to three nucleoli."""
    h = 0.80 + 0.20 * fine + 0.16 * coarse
    h = h + rng.uniform(0.3, 0.6) * np.exp(-((inside - 1.2) ** 2) / 2.4)
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        turn, out, sd = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.55), rng.uniform(1.5, 2.5)
        gap = (near * np.cos(round_) - out * np.cos(turn)) ** 2
        gap = gap + (near * np.sin(round_) - out * np.sin(turn)) ** 2
        h = h + rng.uniform(0.7, 1.2) * np.exp(-gap * minor**2 / (2 * sd**2))
    return np.maximum(h, 0.25), 0.38


def _lymphocyte(near, inside, round_, fine, coarse, minor, rng):
    """Dense: blocks of heterochromatin all over, the space between them narrow."""
    clumps = np.tanh(1.8 * coarse)
    h = 0.96 + 0.16 * clumps + 0.06 * fine + 0.10 * np.exp(-((inside - 1.5) ** 2) / 4)
    return h, 0.35


def _fibroblast(near, inside, round_, fine, coarse, minor, rng):
    """Even: finely granular chromatin, a thin rim, a nucleolus now and then."""
    h = 0.95 + 0.13 * fine + 0.08 * coarse + 0.12 * np.exp(-((inside - 1) ** 2) / 2)
    if rng.random() < 0.25:
        h = h + 0.45 * np.exp(-((near * minor) ** 2) / 5)
    return h, 0.40


def _plasma(near, inside, round_, fine, coarse, minor, rng):
    """Clock face: clumps along the rim like hours, a spoke or two, pale between."""
    hours = int(rng.integers(5, 9))
    angles = np.arange(hours) * 2 * np.pi / hours + rng.uniform(0, 6) + rng.normal(0, 0.12, hours)
    h = 0.66 + 0.08 * fine + 0.06 * coarse
    x, y = near * np.cos(round_), near * np.sin(round_)
    for angle in angles:
        out, sd = rng.uniform(0.66, 0.8), rng.uniform(0.15, 0.2)
        gap = (x - out * np.cos(angle)) ** 2 + (y - out * np.sin(angle)) ** 2
        h = h + rng.uniform(0.55, 0.85) * np.exp(-gap / (2 * sd**2))
    h = h + rng.uniform(0.1, 0.6) * np.exp(-(x**2 + y**2) / (2 * 0.17**2))
    return h + 0.18 * np.exp(-((inside - 1.2) ** 2) / 3), 0.36


_PATTERNS = {
    "epithelial": _epithelial,
    "lymphocyte": _lymphocyte,
    "fibroblast": _fibroblast,
    "plasma": _plasma,
}


def _patch(shape: tuple, cx: float, cy: float) -> tuple[tuple, np.ndarray, np.ndarray]:
    """Return the window of the canvas around a centre and its pixels' offsets, (h, w) each."""
    column, row = round(float(cx)), round(float(cy))
    x0, x1 = max(column - REACH, 0), min(column + REACH + 1, shape[2])
    y0, y1 = max(row - REACH, 0), min(row + REACH + 1, shape[1])
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    return (slice(y0, y1), slice(x0, x1)), x - np.float32(cx), y - np.float32(cy)


def _turn(x: np.ndarray, y: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets along and across an axis."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _texture(tile: np.ndarray, shape: tuple, rng: np.random.Generator) -> np.ndarray:
    """Cut a random piece of a texture."""
    row, column = rng.integers(0, TILE - 2 * REACH - 1, 2)
    return tile[row : row + shape[0], column : column + shape[1]]


def _cover(dye: np.ndarray, window: tuple, alpha: np.ndarray, h, e) -> None:
    """Lay a translucent body of given dye over what is there."""
    for layer, value in zip(dye, (h, e, 0.0), strict=True):
        layer[window] += alpha * (value - layer[window])
