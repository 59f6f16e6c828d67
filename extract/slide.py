"""A slide: its scale and its pixels, through OpenSlide."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import openslide
from PIL import Image

from shards.schema import MPP_40X


class Slide:
    """An open slide, read in level-0 pixels of OpenSlide's full frame."""

    def __init__(self, path: Path, mpp: float | None = None):
        """Open a slide and settle its scale.

        Args:
            path: of a file that OpenSlide reads.
            mpp: µm/px at level 0; None: what the slide says.

        Raises:
            ValueError: OpenSlide cannot open it, or it says nothing of its scale.
        """
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise ValueError(f"{path} is no slide that OpenSlide can open") from error
        except openslide.OpenSlideError as error:
            raise ValueError(f"{path} does not open: {error}; is it complete?") from error
        self.path = path
        self.width, self.height = self._slide.dimensions
        self.mpp, self.mpp_source = (mpp, "given") if mpp else scale(path, self._slide.properties)

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a region of level 0; what the scanner left out is white.

        Args:
            x, y: upper left corner, px, within the slide.
            width, height: px; the region must lie within the slide.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            ValueError: a tile under it is damaged.
        """
        return self._read((x, y), 0, (width, height))

    def thumbnail(self, mpp: float) -> tuple[np.ndarray, float]:
        """Return the whole slide as an image of about `mpp` µm/px, and its exact scale."""
        shrink = max(mpp / self.mpp, 1.0)
        level = self._slide.get_best_level_for_downsample(shrink)
        image = self._read((0, 0), level, self._slide.level_dimensions[level])
        size = (max(round(self.width / shrink), 1), max(round(self.height / shrink), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image, self.mpp * self.width / image.shape[1]

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        try:
            region = self._slide.read_region(corner, level, size)
        except openslide.OpenSlideError as error:
            raise ValueError(
                f"{self.path}: level {level}, {size[0]}x{size[1]} px at {corner} cannot be read: "
                f"{error}; the file is damaged or incomplete"
            ) from error
        white = Image.new("RGBA", region.size, "white")
        return np.asarray(Image.alpha_composite(white, region).convert("RGB"))


def scale(path: Path, properties: Mapping[str, str]) -> tuple[float, str]:
    """Return a slide's µm/px and the property that says so; never a guess.

    Args:
        path: named in the error.
        properties: OpenSlide's.

    Raises:
        ValueError: neither mpp nor objective power is there.
    """
    for name in ("openslide.mpp-x", "aperio.MPP"):
        mpp = _positive(properties.get(name))
        if mpp:
            return mpp, name
    for name in ("openslide.objective-power", "aperio.AppMag"):
        power = _positive(properties.get(name))
        if power:
            return 10 / power, name  # 40X is 0.25 µm/px
    raise ValueError(
        f"slide {path.name} has no mpp and no objective power; add an `mpp` column or pass "
        "--mpp 0.25"
    )


def _positive(text: str | None) -> float | None:
    """Return the number a property holds, if it is one above 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def not_40x(slide: Slide) -> str | None:
    """Say why a slide does not count as 40X, or nothing if it does (DESIGN, section 2)."""
    low, high = MPP_40X
    if low <= slide.mpp <= high:
        return None
    return (
        f"not 40X: {slide.mpp:.4g} µm/px by {slide.mpp_source}, outside {low}–{high}; "
        "--any-scale takes it, resampled"
    )
