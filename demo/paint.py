"""Paint synthetic H&E slides whose nuclei are known, and write them as a scanner would.

The picture is built as a slide is: tissue is laid out, nuclei are placed, dyes are taken up, light
passes through (Beer-Lambert), the lens blurs, the sensor adds noise, JPEG does the rest.
"""

import math
from pathlib import Path

import cv2
import numpy as np
import tifffile

from demo.nucleus import REACH, draw_chromatin, paint_body, paint_nucleus
from demo.place import place
from demo.stain import PROJECTS, draw_look, expose
from demo.tissue import GRID, ground, lay
from demo.vessel import fill
from shards.write import atomic

SMALLEST_PX = 128  # below this a nest does not fit; all four kinds are sure to show from 512 px
TILE_PX = 256
LEVEL_STEP = 4  # each level of the pyramid is this much smaller than the last
JPEG_QUALITY = 90


def paint(
    width: int, height: int, seed: int, project: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Paint a slide; the same arguments give the same pixels and nuclei.

    Args:
        width: px, at 0.25 µm/px; a shorter side of 1500 px or more shows the tissue's border.
        height: px.
        seed: of every draw.
        project: a key of PROJECTS, the laboratory's style; by default one after the other by seed.

    Returns:
        (height, width, 3) uint8 RGB, and the nuclei whose centre lies in the image: (N,) NUCLEUS
        with fields `x`, `y` (level-0 px, whole numbers are pixel centres), `kind`, `major`, …

    Raises:
        ValueError: the size is too small, or the project unknown.
    """
    if min(width, height) < SMALLEST_PX:
        raise ValueError(f"cannot paint {width}x{height} px: a side must be {SMALLEST_PX} or more")
    rng = np.random.default_rng(seed)
    look = draw_look(rng, project or list(PROJECTS)[seed % len(PROJECTS)])
    # A margin is painted and cut off, so that nuclei at the edge are cut as a camera cuts them.
    rows, columns = (math.ceil((side + 2 * REACH) / GRID) * GRID for side in (height, width))
    tissue = lay(rows, columns, look, rng)
    nuclei = place(tissue, look, rng)
    chromatin = draw_chromatin(rng)
    epithelial = nuclei[nuclei["kind"] == "epithelial"]
    dye = ground(tissue, np.stack([epithelial["x"], epithelial["y"]], 1), look, rng)
    fill(dye, tissue.vessels, rng)
    for nucleus in nuclei:
        paint_body(dye, nucleus, chromatin, rng)
    for nucleus in nuclei:
        paint_nucleus(dye, nucleus, chromatin, rng)
    rgb = expose(dye, look, rng)[REACH : REACH + height, REACH : REACH + width]
    nuclei["x"] -= REACH
    nuclei["y"] -= REACH
    seen = (nuclei["x"] >= 0) & (nuclei["x"] <= width - 1)
    seen &= (nuclei["y"] >= 0) & (nuclei["y"] <= height - 1)
    return np.ascontiguousarray(rgb), nuclei[seen]


def write_slide(path: str | Path, rgb: np.ndarray, mpp: float = 0.25) -> None:
    """Write a pyramidal tiled JPEG TIFF that OpenSlide opens with its scale.

    Args:
        path: of the file, conventionally `.tiff`.
        rgb: (H, W, 3) uint8 RGB, level 0.
        mpp: µm/px of level 0.
    """
    with atomic(Path(path)) as file, tifffile.TiffWriter(file) as tiff:
        level = 0
        while True:
            per_cm = 1e4 / (mpp * LEVEL_STEP**level)
            tiff.write(
                rgb,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=1 if level else 0,
                metadata=None,
            )
            if level and max(rgb.shape[:2]) <= TILE_PX:
                return
            level += 1
            size = [max(side // LEVEL_STEP, 1) for side in rgb.shape[1::-1]]
            rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
