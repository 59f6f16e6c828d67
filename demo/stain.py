"""Hold a slide's look: its dyes, its optics, its mix of tissue; and turn dye into light.

Dye is painted as concentration and becomes colour by Beer-Lambert's law, so that slides differ as
stained slides do: by the dyes' hue and strength, not by a shift of RGB.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from demo.noise import smooth

# Optical density (natural log) of R, G, B at concentration 1; blood is a dye of its own: more
# orange than eosin. Measured by eye on the TCGA fields, near Macenko's published vectors.
HAEMATOXYLIN = np.array([1.12, 1.50, 0.80])
EOSIN = np.array([0.22, 1.00, 0.66])
BLOOD = np.array([0.20, 1.25, 1.05])


@dataclass(frozen=True)
class Look:
    """What distinguishes one slide from another."""

    dyes: np.ndarray  # (3, 3): haematoxylin, eosin, blood -> optical density of R, G, B
    light: np.ndarray  # (3,) grey levels of empty glass
    blur: float  # sd of the defocus, px
    noise: float  # sd of the sensor's noise, grey levels
    nests: float  # share of the tissue that is epithelium
    glands: float  # share of the epithelium that is built as glands around a lumen
    inflamed: float  # factor on the number of lymphocytes and plasma cells
    cytoplasm: tuple[float, float]  # haematoxylin and eosin taken up by epithelial cytoplasm
    vacuoles: float  # how clear the epithelial cytoplasm is, 0 to 1
    blue: float  # haematoxylin taken up by the stroma's ground substance


# Two laboratories that cut and stain different tissue: means that each slide is drawn around.
PROJECTS = {
    "PAINT-A": dict(hue=0.0, h=1.0, e=0.95, nests=0.40, glands=0.75, inflamed=0.9, blue=0.03),
    "PAINT-B": dict(hue=0.12, h=1.15, e=0.75, nests=0.46, glands=0.25, inflamed=1.15, blue=0.10),
}


def draw_look(rng: np.random.Generator, project: str) -> Look:
    """Draw a slide's look around its project's.

    Raises:
        ValueError: there is no such project.
    """
    if project not in PROJECTS:
        raise ValueError(f"project {project!r} is unknown; known are {', '.join(PROJECTS)}")
    lab = PROJECTS[project]
    # `hue` moves both dyes from red to blue: less green kept in eosin, more red in haematoxylin.
    hue = lab["hue"] + rng.normal(0, 0.06)
    tint = np.array([1 + hue, 1.0, 1 - hue])
    wobble = rng.normal(1, 0.05, (2, 3))
    haematoxylin = HAEMATOXYLIN * tint * wobble[0] * lab["h"] * rng.uniform(0.85, 1.15)
    eosin = EOSIN * (tint * [1 + hue, 1, 1]) * wobble[1] * lab["e"] * rng.uniform(0.8, 1.25)
    return Look(
        dyes=np.stack([haematoxylin, eosin, BLOOD]),
        light=rng.uniform([238, 236, 238], [247, 245, 247]),
        blur=rng.uniform(0.7, 1.05),
        noise=rng.uniform(1.5, 3.0),
        nests=lab["nests"] + rng.uniform(-0.06, 0.06),
        glands=float(np.clip(lab["glands"] + rng.normal(0, 0.15), 0, 1)),
        inflamed=lab["inflamed"] * rng.uniform(0.8, 1.2),
        cytoplasm=(rng.uniform(0.07, 0.22), rng.uniform(0.38, 0.62)),
        vacuoles=rng.uniform(0.1, 0.9),
        blue=lab["blue"] * rng.uniform(0.6, 1.4),
    )


def expose(dye: np.ndarray, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Shine light through the dyes onto the sensor.

    Args:
        dye: (3, H, W) float32, concentrations of haematoxylin, eosin and blood.
        look: the slide's.
        rng: the source of the sensor's noise.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = dye.shape[1:]
    blurred = [cv2.GaussianBlur(d, (0, 0), look.blur) for d in dye]
    # Sections are not evenly thick.
    thick = np.exp(0.05 * smooth(rng, height, width, max(height, width) / 3, 2))
    rgb = np.empty((height, width, 3), np.uint8)
    grain = rng.standard_normal((height, width), np.float32)
    for c in range(3):
        density = sum(float(look.dyes[d, c]) * blurred[d] for d in range(3)) * thick
        grey = float(look.light[c]) * np.exp(-density)
        own = rng.standard_normal((height, width), np.float32)
        grey += look.noise * (0.7 * grain + 0.7 * own)
        rgb[..., c] = np.clip(grey + 0.5, 0, 255)
    return rgb
