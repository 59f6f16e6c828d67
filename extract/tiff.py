"""Tiles of a JPEG TIFF (Aperio's SVS among them), read and decoded without OpenSlide's detour.

simplejpeg decodes them, for it refuses a tile that ends early, as OpenSlide does; imagecodecs
fills the rest with grey and says nothing. JPEG2000 is left to OpenSlide for the same reason.
"""

import os
import struct
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile

RGB, YCBCR = 2, 6  # TIFF's PhotometricInterpretation
JPEG = 7  # TIFF's Compression
SOI = b"\xff\xd8"
# Adobe's segment with its transform byte: how libjpeg is told the colours of a tile without JFIF.
ADOBE = {
    RGB: b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x00",
    YCBCR: b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01",
}


class JpegTiles:
    """The tiles of a TIFF's first image, each decoded on demand."""

    def __init__(self, path: Path):
        """Read where the tiles are.

        Raises:
            ValueError: the file is no TIFF of tiled 8-bit RGB JPEG, or a damaged one.
            OSError: it cannot be read.
        """
        try:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                self.width, self.height = page.imagewidth, page.imagelength
                self.tile_width, self.tile_height = page.tilewidth, page.tilelength
                self._offsets, self._sizes = page.dataoffsets, page.databytecounts
                photometric = int(page.photometric)
                known = page.is_tiled and page.compression == JPEG and photometric in ADOBE
                samples = (page.samplesperpixel, page.bitspersample, page.planarconfig)
                tables = page.jpegtables or b""
        except (tifffile.TiffFileError, struct.error, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no TIFF that can be read tile by tile: {error}") from error
        if not known or samples != (3, 8, 1):
            raise ValueError(f"{path} does not hold tiles of 8-bit RGB JPEG")
        self.columns = -(-self.width // self.tile_width)
        self.rows = -(-self.height // self.tile_height)
        if len(self._offsets) != self.columns * self.rows or len(self._sizes) != len(self._offsets):
            raise ValueError(
                f"{path} lists {len(self._offsets)} tiles, not {self.rows} rows of {self.columns}"
            )
        # Tables in the file's head, shared by all tiles, stand between SOI and EOI of their own.
        self._head = SOI + ADOBE[photometric] + tables[2:-2]
        self._plain = photometric == YCBCR and not tables
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "_file"):
            os.close(self._file)

    def largest(self, count: int) -> list[tuple[int, int]]:
        """Return the (row, column) of the tiles with most bytes: those with most to compare."""
        largest = np.argsort(-np.asarray(self._sizes), kind="stable")[:count]
        return [divmod(int(i), self.columns) for i in largest]

    def read(self, row: int, column: int) -> np.ndarray | None:
        """Decode a tile.

        Returns:
            (tile_height, tile_width, 3) uint8 RGB, padding beyond the slide's border included;
            None: the scanner left the tile out.

        Raises:
            ValueError: the tile is damaged or cut short.
            OSError: it cannot be read.
        """
        index = row * self.columns + column
        size = self._sizes[index]
        if not size:
            return None
        data = os.pread(self._file, size, self._offsets[index])
        if len(data) < size or data[:2] != SOI:
            raise ValueError(f"its {size} bytes at {self._offsets[index]} are no JPEG")
        if not self._plain:
            data = self._head + data[2:]
        tile = simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
        if tile.shape[:2] != (self.tile_height, self.tile_width):
            raise ValueError(f"it is {tile.shape[1]}x{tile.shape[0]} px")
        return tile
