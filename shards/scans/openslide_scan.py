"""A slide that OpenSlide reads."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from shards.scans.presence import check_present
from shards.scans.samples import check_sixteen
from shards.scans.stated import bits_of, ome_properties


class OpenSlideScan:
    """A slide read by OpenSlide; a `shards.scans.scan.Scan`."""

    def __init__(self, path: Path):
        """Open it.

        Raises:
            openslide.OpenSlideError: it cannot be.
            ValueError: its samples have other bits than its tags let OpenSlide believe.
        """
        self.path = path
        self._slide = openslide.OpenSlide(path)
        self.width, self.height = self._slide.dimensions
        properties = dict(self._slide.properties)
        self.tile_px = (
            int(properties.get("openslide.level[0].tile-width", 0)),
            int(properties.get("openslide.level[0].tile-height", 0)),
        )
        if properties.get("openslide.vendor") == "generic-tiff":
            properties |= ome_properties(properties.get("tiff.ImageDescription", ""))
            depth, stated = bits_of(path)
            if depth > 8:  # OpenSlide takes the full range for granted
                brightest = int(self.thumbnail(512).max()) / 255
                check_sixteen(path, brightest * (2**depth - 1), depth, stated, scaled=False)
        self.properties: Mapping[str, str] = properties

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._read((x, y), 0, (width, height))

    def reduced(self, shrink: float, most: float) -> np.ndarray | None:
        level = self._slide.get_best_level_for_downsample(shrink)
        width, height = self._slide.level_dimensions[level]
        if not level or width * height > most:
            return None
        try:
            return self._read((0, 0), level, (width, height))
        except ValueError:
            return None

    def thumbnail(self, side: int) -> np.ndarray:
        return np.asarray(self._slide.get_thumbnail((side, side)).convert("RGB"))

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        """Read a region over white."""
        try:
            region = np.asarray(self._slide.read_region(corner, level, size))  # (H, W, 4)
        except openslide.OpenSlideError as error:
            check_present(self.path)
            # After an error OpenSlide answers every call with that error.
            self._slide = openslide.OpenSlide(self.path)
            raise ValueError(str(error)) from error
        rgb, alpha = region[..., :3], region[..., 3:]
        if (alpha == 255).all():
            return np.ascontiguousarray(rgb)
        weight = alpha.astype(np.float32) / 255
        return np.rint(rgb * weight + 255 * (1 - weight)).astype(np.uint8)
