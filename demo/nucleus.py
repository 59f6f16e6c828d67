"""Draw the four kinds of nuclei, each with its own outline and chromatin.

Kinds differ on average and overlap at the margins, as in life: small dark epithelial nuclei, pale
activated lymphocytes, plump fibroblasts, plasma cells with a faint body. What always holds is the
pattern: nucleoli and a rim; clumps; smooth spindles; a clock face.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.brush import cover, patch, turn
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
        major = np.clip(15.6 + 2.9 * normal[0], 10, 24)
        ratio = np.clip(0.80 + 0.09 * normal[1], 0.58, 0.97)
        dark = 0.58 + 0.12 * normal[2] + 0.30 * (odd < 0.25)
    elif kind == "lymphocyte":
        major = np.clip(11.8 + 1.2 * normal[0] + 2.5 * (odd < 0.2), 9, 17)
        ratio = np.clip(0.90 + 0.07 * normal[1], 0.68, 1)
        dark = 0.93 + 0.14 * normal[2] - 0.25 * (odd < 0.25)
    elif kind == "fibroblast":
        plump = odd < 0.25
        major = np.clip(21.0 + 4.0 * normal[0] - 5 * plump, 11, 31)
        ratio = np.clip(0.25 + 0.05 * normal[1] + 0.18 * plump, 0.15, 0.6)
        dark = 0.80 + 0.17 * normal[2] - 0.2 * plump
    else:
        major = np.clip(12.8 + 1.3 * normal[0], 10, 17)
        ratio = np.clip(0.91 + 0.06 * normal[1], 0.72, 1)
        dark = 0.86 + 0.14 * normal[2]
    nuclei["major"], nuclei["minor"] = major, np.maximum(major * ratio, 3.2)
    nuclei["dark"] = np.clip(dark, 0.3, 1.3)
    if kind == "fibroblast":
        nuclei["bend"] = 2.5 * normal[3]
    return nuclei


def paint_body(
    dye: np.ndarray, nucleus: np.void, chromatin: Chromatin, rng: np.random.Generator
) -> None:
    """Paint a plasma cell's or lymphocyte's cytoplasm under its nucleus, in place.

    Args:
        dye: (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
        nucleus: a row of NUCLEUS.
        chromatin: the slide's textures.
        rng: of every draw.
    """
    kind, radius = nucleus["kind"], float(nucleus["major"])
    if kind not in ("plasma", "lymphocyte"):
        return
    towards = rng.uniform(0, 2 * np.pi)
    if kind == "plasma":
        offset, size = rng.uniform(0.35, 0.75) * radius, rng.uniform(1.3, 1.7) * radius
        depth, h, e = rng.uniform(0.3, 0.85), rng.uniform(0.15, 0.38), rng.uniform(0.42, 0.65)
    else:
        offset, size = rng.uniform(0.0, 0.3) * radius, rng.uniform(1.1, 1.45) * radius
        depth, h, e = rng.uniform(0.0, 0.8), rng.uniform(0.0, 0.3), rng.uniform(0.1, 0.5)
    cx = nucleus["x"] + offset * np.cos(towards)
    cy = nucleus["y"] + offset * np.sin(towards)
    window, x, y = patch(dye.shape, cx, cy, REACH)
    u, v = turn(x, y, towards)
    edge = size * _outline(np.arctan2(v, u), rng.normal(0, [0.06, 0.06, 0.04, 0.03]), rng)
    far = np.hypot(u / rng.uniform(1, 1.25), v / rng.uniform(0.85, 1))
    alpha = depth * np.clip((edge - far) / 4 + 0.5, 0, 1)
    grain = 1 + 0.12 * _texture(chromatin.fine, x.shape, rng)
    if kind == "plasma":  # the Golgi field, pale, beside the nucleus
        pale = np.exp(-((u - 0.1 * size) ** 2 + v**2) / (2 * (0.28 * size) ** 2))
        h, e = h * (1 - 0.6 * pale), e * (1 - 0.35 * pale)
    cover(dye, window, alpha, h * grain, e * grain)


def paint_nucleus(
    dye: np.ndarray, nucleus: np.void, chromatin: Chromatin, rng: np.random.Generator
) -> None:
    """Paint a nucleus, in place.

    Args:
        dye: (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
        nucleus: a row of NUCLEUS, its position in px of `dye`.
        chromatin: the slide's textures.
        rng: of every draw.
    """
    window, x, y = patch(dye.shape, nucleus["x"], nucleus["y"], REACH)
    u, v = turn(x, y, float(nucleus["angle"]))
    major, minor = float(nucleus["major"]), float(nucleus["minor"])
    v = v - float(nucleus["bend"]) * ((u / major) ** 2 - 0.25)  # the centroid stays in place
    round_ = np.arctan2(v / minor, u / major)  # angle on the circle that the outline is drawn from
    far = np.hypot(u / major, v / minor)
    waves = rng.normal(0, [0.04, 0.035, 0.022, 0.014])
    if nucleus["kind"] == "fibroblast":  # tapered, one tip more than the other
        along = np.clip(u / major, -1, 1)
        taper = (1 - along**2) ** rng.uniform(0.0, 0.5) * (1 + rng.uniform(-0.35, 0.35) * along)
        far = np.hypot(u / major, v / (minor * np.maximum(taper, 0.1) + 0.4))
        waves = waves / 2
    edge = _outline(round_, waves, rng)
    near = far / edge  # 0 in the middle, 1 on the outline
    inside = (1 - near) * minor  # px from the outline, roughly
    fine, coarse = _texture(chromatin.fine, x.shape, rng), _texture(chromatin.coarse, x.shape, rng)
    h, e = _PATTERNS[str(nucleus["kind"])](near, inside, round_, fine, coarse, minor, rng)
    h = h * float(nucleus["dark"])
    alpha = np.clip(inside / 1.6 + 0.5, 0, 1)
    defocus = abs(rng.normal(0, 0.55))  # nuclei lie at different heights in the section
    if defocus > 0.35:
        h, alpha = (cv2.GaussianBlur(a.astype(np.float32), (0, 0), defocus) for a in (h, alpha))
    # Cut at a slant, a nucleus fades on one side.
    slant = 1 - rng.uniform(0, 0.3) * np.clip((u * rng.choice([-1, 1]) / major + 1) / 2, 0, 1)
    cover(dye, window, alpha * slant * rng.uniform(0.9, 1), h, e)


def _epithelial(near, inside, round_, fine, coarse, minor, rng):
    """Vesicular: a pale ground with granules, an uneven rim, one to three nucleoli."""
    h = 0.74 + 0.26 * np.tanh(1.3 * fine) + 0.16 * coarse
    rim = rng.uniform(0.3, 0.65) * (1 + 0.4 * np.sin(round_ * 3 + rng.uniform(0, 6)) + 0.3 * coarse)
    h = h + rim * np.exp(-((inside - 1.2) ** 2) / 2.4)
    for _ in range(rng.choice([1, 1, 2, 2, 3])):
        turned, out, sd = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.55), rng.uniform(1.5, 2.4)
        gap = (near * np.cos(round_) - out * np.cos(turned)) ** 2
        gap = gap + (near * np.sin(round_) - out * np.sin(turned)) ** 2
        h = h + rng.uniform(0.6, 1.2) * np.exp(-gap * minor**2 / (2 * sd**2))
    return np.maximum(h, 0.2), 0.36


def _lymphocyte(near, inside, round_, fine, coarse, minor, rng):
    """Dense: blocks of heterochromatin all over, the space between them narrow."""
    clumps = np.tanh(2.2 * coarse + 0.4)
    h = 0.93 + 0.22 * clumps + 0.07 * fine + 0.10 * np.exp(-((inside - 1.5) ** 2) / 4)
    return h, 0.36


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
    h = 0.60 + 0.09 * fine + 0.07 * coarse
    x, y = near * np.cos(round_), near * np.sin(round_)
    for angle in angles:
        out, sd = rng.uniform(0.66, 0.8), rng.uniform(0.15, 0.2)
        gap = (x - out * np.cos(angle)) ** 2 + (y - out * np.sin(angle)) ** 2
        h = h + rng.uniform(0.65, 1.0) * np.exp(-gap / (2 * sd**2))
    h = h + rng.uniform(0.1, 0.6) * np.exp(-(x**2 + y**2) / (2 * 0.17**2))
    return h + 0.18 * np.exp(-((inside - 1.2) ** 2) / 3), 0.36


_PATTERNS = {
    "epithelial": _epithelial,
    "lymphocyte": _lymphocyte,
    "fibroblast": _fibroblast,
    "plasma": _plasma,
}


def _outline(angle: np.ndarray, waves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a rough outline's radius at each angle, about 1; `waves` from two per turn up."""
    phases = rng.uniform(0, 2 * np.pi, len(waves))
    return 1 + sum(
        wave * np.sin((k + 2) * angle + phase)
        for k, (wave, phase) in enumerate(zip(waves, phases, strict=True))
    )


def _texture(tile: np.ndarray, shape: tuple, rng: np.random.Generator) -> np.ndarray:
    """Cut a random piece of a texture."""
    row, column = rng.integers(0, TILE - 2 * REACH - 1, 2)
    return tile[row : row + shape[0], column : column + shape[1]]
