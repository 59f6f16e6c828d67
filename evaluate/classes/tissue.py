"""How much tissue a slide shows, and its picture, where its file still lies where it was."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shards.scans.scan import open_scan
from shards.tissue import tissue_mask

TISSUE_MPP = 8.0  # µm/px at which tissue is sought, as when the slide was extracted


@dataclass(frozen=True, eq=False)
class View:
    """A slide's picture."""

    image: np.ndarray  # (H, W, 3) uint8
    down: float  # level-0 px to a px of it
    tissue_mm2: float | None  # None: the slide's file is gone, and the picture is blank


def view(record: dict, longest: int) -> View:
    """Return a slide's picture and the area of its tissue.

    Args:
        longest: side of the picture, px.
    """
    width, height, mpp = record["width"], record["height"], record["mpp"]
    down = max(1.0, max(width, height) / longest)
    size = (max(1, round(width / down)), max(1, round(height / down)))
    path = Path(record["path"])
    if not path.is_file():
        return View(np.full((size[1], size[0], 3), 255, np.uint8), down, None)
    sought = max(1.0, TISSUE_MPP / mpp)  # of a small field, its own pixels
    fine = min(down, sought)  # both come out of one reading, of the finer
    rgb = open_scan(path).thumbnail(max(1, round(max(width, height) / fine)))
    low = (max(1, round(width / sought)), max(1, round(height / sought)))
    mask = tissue_mask(cv2.resize(rgb, low, interpolation=cv2.INTER_AREA), mpp * width / low[0])
    area = float(mask.mean()) * width * height * mpp**2 / 1e6
    return View(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), down, area)
