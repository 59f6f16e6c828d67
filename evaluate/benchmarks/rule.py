"""Which nuclei of an image are kept and how they are cut: what papers and publishers leave open."""

import re
from dataclasses import dataclass

import numpy as np

from shards.crop import cut, inside
from shards.scale import check_mpp
from shards.schema import MPP


@dataclass(frozen=True)
class Rule:
    """A nucleus stays if a window around its centre lies wholly within its image.

    Paper, A.1: PanNuke's cells stay "whose associated images of size 60 by 60 fall within the full
    crops", cut to 40x40 later. Paper leaves open: the scale of the 60 px where images are not at
    0.25 µm/px, whether a closed border counts as within, and what a cell's centre is.
    """

    mpp: float  # of the publisher's images, µm/px
    window: str  # side, px at 0.25 µm/px; or "60@0.2", px at another scale
    centre: str  # "box" or "centroid"
    view_px: int  # side of what is cut, px at 0.25 µm/px

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+(@\d*\.?\d+)?", self.window) or not int(self.window.split("@")[0]):
            raise ValueError(
                f"a window of {self.window!r}; give px at {MPP} µm/px, as in 60, or px at another "
                "scale, as in 60@0.2"
            )
        if self.centre not in ("box", "centroid"):
            raise ValueError(f"a centre of {self.centre!r}; there are box and centroid")
        check_mpp(self.mpp, "the publisher's images", "give another --mpp (40X is 0.25)")

    def keep(self, xy: np.ndarray, width: int, height: int) -> np.ndarray:
        """Tell which centres, (N, 2) float in px, have their window and view in the image."""
        px, _, mpp = self.window.partition("@")
        whole = inside(xy, width, height, self.mpp, int(px), float(mpp or MPP))
        return whole & inside(xy, width, height, self.mpp, self.view_px)

    def cut(self, image: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """Cut (N, view_px, view_px, 3) uint8 around centres that are kept."""
        return cut(image, xy, self.mpp, self.view_px)

    def __str__(self) -> str:
        px, _, mpp = self.window.partition("@")
        return (
            f"images at {self.mpp} µm/px, whole window {px}x{px} px at {mpp or MPP} µm/px, "
            f"centre of the {'box' if self.centre == 'box' else 'outline (centroid)'}"
        )
