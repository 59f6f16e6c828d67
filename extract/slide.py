"""A slide: its scale and its pixels, tile by tile, each tile decoded once."""

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np

from extract.tiff import JpegTiles
from shards.scale import check_mpp, scale
from shards.scans.scan import open_scan
from shards.schema import MPP_40X

TILE_PX = (128, 1024)  # sides of tiles worth reading one by one; others are read in squares of
SQUARE_PX = 512
CACHE_BYTES = 256 * 2**20  # of decoded tiles; two rows of a slide 200,000 px wide
CHECKED = 4  # tiles compared with OpenSlide before the fast path is trusted
DAMAGED = 0.1  # a slide that lacks a larger share of its tiles is not worth the rest
THUMBNAIL_PX = 4e7  # the most pixels of a level that are read at once


class Slide:
    """An open slide, read in level-0 pixels; of OpenSlide's full frame, where it reads the slide.

    A damaged tile is white in what is read, and is listed in `damaged`: who uses the pixels asks
    `whole` whether they are the slide's own.

    Attributes:
        properties: of `shards.scans.scan.Scan`.
        damaged: (left, top, right, bottom) of each damaged tile met so far, px.
        fast: whether tiles are decoded here instead of by OpenSlide.
    """

    def __init__(self, path: Path, mpp: float | None = None):
        """Open a slide and determine its scale.

        Args:
            path: of a file that `shards.scans.scan.open_scan` opens.
            mpp: µm/px at level 0; None: what the slide says.

        Raises:
            FileNotFoundError: it is not there, or its download did not end.
            ValueError: nothing opens it, or its scale is not known or no microscope's.
        """
        self.path = Path(path)
        self._scan = open_scan(self.path)
        self.width, self.height = self._scan.width, self._scan.height
        self.properties = properties = dict(self._scan.properties)
        if mpp is None:
            self.mpp, self.mpp_source = scale(self.path, properties)
        else:
            what = f"slide {self.path.name} (as given by --mpp or the `mpp` column)"
            self.mpp, self.mpp_source = check_mpp(mpp, what), "given"
        self.damaged: list[tuple[int, int, int, int]] = []
        self._cache: OrderedDict[tuple[int, int], np.ndarray | None] = OrderedDict()
        self._cached = 0
        self._tile_px = self._scan.tile_px
        if not all(TILE_PX[0] <= side <= TILE_PX[1] for side in self._tile_px):
            self._tile_px = (SQUARE_PX, SQUARE_PX)
        self._tiles = self._checked_tiles()
        self.fast = self._tiles is not None

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a region of level 0; what the scanner left out is white, and so is what is damaged.

        Args:
            x, y: upper left corner, px, within the slide.
            width, height: px; the region must lie within the slide.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            ValueError: more than one tile and a tenth of the slide are damaged.
            FileNotFoundError: the slide vanished.
        """
        side_x, side_y = self._tile_px
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                left, top = column * side_x - x, row * side_y - y  # of the tile, in the region
                x0, y0 = max(left, 0), max(top, 0)
                x1, y1 = min(left + side_x, width), min(top + side_y, height)
                tile = self._tile(row, column)
                region[y0:y1, x0:x1] = (
                    255 if tile is None else tile[y0 - top : y1 - top, x0 - left : x1 - left]
                )
        return region

    def whole(self, left: np.ndarray, top: np.ndarray, side: float) -> np.ndarray:
        """Tell which windows touch no damaged tile met so far.

        Args:
            left, top: (N,) of the windows, px.
            side: of the windows, px.

        Returns:
            (N,) bool.
        """
        whole = np.ones(len(left), bool)
        for x0, y0, x1, y1 in self.damaged:
            whole &= (left >= x1) | (left + side <= x0) | (top >= y1) | (top + side <= y0)
        return whole

    def thumbnail(self, mpp: float) -> tuple[np.ndarray, float]:
        """Return the whole slide as an image of about `mpp` µm/px, and its exact scale."""
        shrink = max(mpp / self.mpp, 1.0)
        size = (max(round(self.width / shrink), 1), max(round(self.height / shrink), 1))
        image = self._scan.reduced(shrink, THUMBNAIL_PX)
        if image is None:  # a lone level, too large to be read at once, or a damaged one
            image = self._strips(size[0])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return image, self.mpp * self.width / image.shape[1]

    def _strips(self, width: int) -> np.ndarray:
        """Read level 0 in strips, shrunk to no less than twice `width` px, (H, W, 3)."""
        shrink = max(self.width // (2 * width), 1)
        step = shrink * max(SQUARE_PX // shrink, 1)
        strips = []
        for y in range(0, self.height, step):
            strip = self.read(0, y, self.width, min(step, self.height - y))
            size = (-(-self.width // shrink), -(-strip.shape[0] // shrink))
            strips.append(cv2.resize(strip, size, interpolation=cv2.INTER_AREA))
        return np.concatenate(strips)

    def _tile(self, row: int, column: int) -> np.ndarray | None:
        """Return a tile of level 0; None: left out by the scanner, or damaged (and noted so)."""
        place = (row, column)
        if place in self._cache:
            self._cache.move_to_end(place)
            return self._cache[place]
        try:
            tile = self._tiles.read(row, column) if self._tiles else self._square(row, column)
        except ValueError as error:
            self._note_damage(row, column, error)
            tile = None
        self._cache[place] = tile
        self._cached += 0 if tile is None else tile.nbytes
        while self._cached > CACHE_BYTES:
            _, oldest = self._cache.popitem(last=False)
            self._cached -= 0 if oldest is None else oldest.nbytes
        return tile

    def _square(self, row: int, column: int) -> np.ndarray:
        """Read a tile of level 0 through the slide's reader."""
        (side_x, side_y), (x, y) = (
            self._tile_px,
            (column * self._tile_px[0], row * self._tile_px[1]),
        )
        size = (min(side_x, self.width - x), min(side_y, self.height - y))
        return self._scan.region(x, y, *size)

    def _note_damage(self, row: int, column: int, error: ValueError) -> None:
        """List a tile as damaged."""
        (side_x, side_y) = self._tile_px
        left, top = column * side_x, row * side_y
        box = (left, top, min(left + side_x, self.width), min(top + side_y, self.height))
        if box in self.damaged:
            return  # met before, and dropped from the cache since
        self.damaged.append(box)
        area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.damaged)
        if len(self.damaged) > 1 and area > DAMAGED * self.width * self.height:
            raise ValueError(
                f"{self.path}: {len(self.damaged)} tiles cannot be read, more than a tenth of the "
                f"slide, the last at ({left}, {top}): {error}; the file is damaged or incomplete"
            ) from error

    def _checked_tiles(self) -> JpegTiles | None:
        """Return the slide's tiles if they can be decoded here to the very pixels of OpenSlide."""
        if self.properties.get("openslide.vendor") not in ("aperio", "generic-tiff"):
            return None
        try:
            tiles = JpegTiles(self.path)
        except ValueError:
            return None
        if (tiles.width, tiles.height) != (self.width, self.height):
            return None
        if (tiles.tile_width, tiles.tile_height) != self._tile_px:
            return None
        agreed = 0
        for row, column in tiles.largest(CHECKED):
            try:
                ours = tiles.read(row, column)
                theirs = self._square(row, column)
            except ValueError:
                continue  # a damaged tile tells nothing; its turn will come
            if ours is None or not np.array_equal(ours[: len(theirs), : theirs.shape[1]], theirs):
                return None
            agreed += 1
        return tiles if agreed else None


def not_40x(slide: Slide) -> str | None:
    """Say why a slide does not count as 40X, or nothing if it does (docs/slides-and-scale.md)."""
    low, high = MPP_40X
    if low <= slide.mpp <= high:
        return None
    return (
        f"not 40X: {slide.mpp:.4g} µm/px by {slide.mpp_source}, outside {low}–{high}; "
        "--any-scale takes it, resampled"
    )
