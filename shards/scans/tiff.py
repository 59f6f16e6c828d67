"""A TIFF that OpenSlide does not open: read tile by tile where it is tiled, else whole.

tifffile and imagecodecs decode. They pass over a JPEG or JPEG 2000 stream that was cut short, so
its end is looked for here.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile

from shards.filetype import AGAIN
from shards.scans.image import SAVE_TILED, ImageScan, check_size, fitted
from shards.scans.samples import SAVE_8_BITS, check_colours, rgb8
from shards.scans.stated import UNREADABLE, stated_bits, tiff_properties

RGB, PALETTE, YCBCR = 2, 3, 6  # TIFF's PhotometricInterpretation
GREY = (0, 1, 4)
JPEG = (6, 7, 33007)  # TIFF's Compression
JPEG_2000 = (33003, 33004, 33005, 34712)
TO_RGB = (*JPEG, 50001, 34927)  # whose decoders make RGB of YCbCr: JPEG and WebP
END = b"\xff\xd9"  # of a JPEG and of a JPEG 2000 stream
IMAGE_AXES = ("width", "height", "sample")
TAIL = 64  # bytes of a strip's end that are looked at
ASSOCIATED, UNASSOCIATED = 1, 2  # TIFF's ExtraSamples: alpha


class TiffScan:
    """A tiled TIFF of 8-bit colour; a `shards.scans.scan.Scan`."""

    def __init__(self, path: Path, levels: list[tifffile.TiffPage], properties: Mapping[str, str]):
        """Take its levels, the largest first, as `open_tiff` has checked them; the file is open."""
        self.path, self.properties, self._levels = path, properties, levels
        self._decode = {id(page): page.decode for page in levels}  # made with the file open
        page = levels[0]
        self.width, self.height = page.imagewidth, page.imagelength
        self.tile_px = (page.tilewidth, page.tilelength)
        self._file = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "_file"):
            os.close(self._file)

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._read(self._levels[0], x, y, width, height)

    def reduced(self, shrink: float, most: float) -> np.ndarray | None:
        fit = [p for p in self._levels[1:] if self.width / p.imagewidth <= shrink]
        page = min(fit, key=lambda p: p.imagewidth, default=None)
        if page is None or page.imagewidth * page.imagelength > most:
            return None
        try:
            return self._read(page, 0, 0, page.imagewidth, page.imagelength)
        except ValueError:
            return None

    def thumbnail(self, side: int) -> np.ndarray:
        pixels = self.reduced(max(self.width, self.height) / side, 4 * side**2)
        if pixels is not None:
            return fitted(pixels, side)
        strips = []
        shrink = max(max(self.width, self.height) // side, 1)
        step = shrink * max(self.tile_px[1] // shrink, 1)
        for y in range(0, self.height, step):
            strip = self.region(0, y, self.width, min(step, self.height - y))
            strips.append(fitted(strip, max(max(strip.shape[:2]) // shrink, 1)))
        width = min(strip.shape[1] for strip in strips)
        return fitted(np.concatenate([strip[:, :width] for strip in strips]), side)

    def _read(self, page: tifffile.TiffPage, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a region of a level."""
        side_x, side_y = page.tilewidth, page.tilelength
        columns = -(-page.imagewidth // side_x)
        region = np.empty((height, width, 3), np.uint8)
        for row in range(y // side_y, (y + height - 1) // side_y + 1):
            for column in range(x // side_x, (x + width - 1) // side_x + 1):
                tile = self.tile(page, row * columns + column)
                left, top = column * side_x - x, row * side_y - y  # of the tile, in the region
                x0, y0 = max(left, 0), max(top, 0)
                x1, y1 = min(left + tile.shape[1], width), min(top + tile.shape[0], height)
                region[y0:y1, x0:x1] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return region

    def tile(self, page: tifffile.TiffPage, index: int) -> np.ndarray:
        """Decode a tile; white where the scanner left it out."""
        offset, size = page.dataoffsets[index], page.databytecounts[index]
        if not size:
            return np.full((page.tilelength, page.tilewidth, 3), 255, np.uint8)
        data = os.pread(self._file, size, offset)
        check_end(page, data, size)
        tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        try:
            tile = self._decode[id(page)](
                data, index, **(tables if page.compression in JPEG else {})
            )[0]
        except (ValueError, RuntimeError) as error:  # imagecodecs' are RuntimeErrors
            raise ValueError(f"its {size} bytes at {offset} cannot be decoded: {error}") from error
        if tile is None:
            raise ValueError(f"its {size} bytes at {offset} hold no tile")
        return coloured(self.path, page, tile[0], None)


def open_tiff(path: Path) -> TiffScan | ImageScan:
    """Open a TIFF's largest image: tile by tile where its tiles hold 8-bit colour, else whole.

    Raises:
        ValueError: it is damaged, not one image in colour, or too large to be read whole.
        OSError: it cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            number, series = _largest(path, tiff)
            pages = [_page(level) for level in series.levels]
            page = pages[0]
            check_photometric(path, page)
            properties = tiff_properties(tiff, page, number)
            on_demand = page.is_tiled and page.planarconfig == 1 and page.bitspersample == 8
            if on_demand:
                scan = TiffScan(path, [p for p in pages if p.is_tiled], properties)
            else:
                pixels = _whole(path, page, properties)
    except UNREADABLE as error:
        raise ValueError(f"{path} is a TIFF that cannot be read: {error}") from error
    if not on_demand:
        check_colours(path, pixels)
        return ImageScan(pixels, properties)
    try:
        telling = scan.tile(page, int(np.argmax(page.databytecounts)))
    except ValueError:
        return scan  # a damaged tile tells nothing; its turn will come
    check_colours(path, telling)
    return scan


def check_photometric(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse what is not in colour, or in colours that nothing here makes RGB of.

    Raises:
        ValueError: so it is.
    """
    photometric, compression = int(page.photometric), int(page.compression)
    if photometric in GREY and page.samplesperpixel == 1:
        raise ValueError(
            f"{path} is no slide: it has one channel of {page.bitspersample} bits, not three; a "
            "mask, or a label image?"
        )
    known = photometric in (RGB, PALETTE) or (photometric == YCBCR and compression in TO_RGB)
    if not known:
        kind = getattr(page.photometric, "name", page.photometric)
        raise ValueError(
            f"{path} holds {page.samplesperpixel} samples of {kind}, not RGB; "
            f"convert it: {SAVE_8_BITS.format(path)}"
        )
    alpha = tuple(int(kind) for kind in page.extrasamples)
    if photometric == PALETTE:
        known = page.samplesperpixel == 1
    else:
        known = page.samplesperpixel == 3 or (
            page.samplesperpixel == 4 and alpha in ((ASSOCIATED,), (UNASSOCIATED,))
        )
    if not known:
        kind = getattr(page.photometric, "name", page.photometric)
        raise ValueError(
            f"{path} holds {page.samplesperpixel} samples a pixel, and does not say that those "
            "beyond RGB are alpha; save it as RGB"
        )


def check_end(page: tifffile.TiffPage, data: bytes, size: int) -> None:
    """Refuse a tile or strip that ends early.

    Args:
        page: of it.
        data: its bytes.
        size: how many there should be.

    Raises:
        ValueError: there are fewer, or its stream has no end.
    """
    coded = page.compression in JPEG or page.compression in JPEG_2000
    if len(data) < size or (coded and not data.rstrip(b"\0").endswith(END)):
        raise ValueError(f"its {size} bytes end early")


def coloured(
    path: Path, page: tifffile.TiffPage, samples: np.ndarray, bits: int | None
) -> np.ndarray:
    """Return decoded samples, (H, W, S), as 8-bit RGB on white."""
    if page.photometric == PALETTE:
        table = (np.asarray(page.colormap) >> 8).astype(np.uint8).T  # (colours, 3)
        return table[samples[..., 0]]
    associated = ASSOCIATED in [int(kind) for kind in page.extrasamples]
    return rgb8(path, samples, bits, associated)


def _largest(path: Path, tiff: tifffile.TiffFile) -> tuple[int, tifffile.TiffPageSeries]:
    """Return the largest image of a file, and its number among them."""
    if not tiff.series:
        raise ValueError(f"{path} is a TIFF without an image")
    areas = [s.sizes.get("height", 0) * s.sizes.get("width", 0) for s in tiff.series]
    number = int(np.argmax(areas))
    series = tiff.series[number]
    stack = {name: n for name, n in series.sizes.items() if name not in IMAGE_AXES and n > 1}
    if stack or areas.count(areas[number]) > 1:
        found = ", ".join(f"{n} by {name}" for name, n in stack.items()) or "several"
        raise ValueError(
            f"{path} holds more than one image of that size ({found}): channels or a stack; save "
            "the one that is the slide as an RGB image"
        )
    return number, series


def _page(level: tifffile.TiffPageSeries) -> tifffile.TiffPage:
    """Return the page of a level."""
    page = level.pages[0]
    if page is None:
        file = level.parent.filename if level.parent else "the TIFF"
        raise ValueError(f"a level of {file} lies in another file")
    return page.aspage() if isinstance(page, tifffile.TiffFrame) else page


def _whole(path: Path, page: tifffile.TiffPage, properties: Mapping[str, str]) -> np.ndarray:
    """Read an image whole, (H, W, 3) uint8."""
    if page.is_tiled:
        why, cure = "its tiles are not of 8-bit RGB", SAVE_8_BITS
    else:
        why, cure = "it is not tiled", SAVE_TILED
    check_size(path, page.imagewidth, page.imagelength, why, cure)
    file = page.parent.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(max(offset + size - TAIL, offset))
        tail = file.read(min(size, TAIL))
        if not size or len(tail) < min(size, TAIL):
            raise ValueError(f"{path}: its {size} bytes at {offset} are not there; {AGAIN}")
        try:
            check_end(page, tail, len(tail))
        except ValueError as error:
            raise ValueError(f"{path}: {error} at {offset}; {AGAIN}") from error
    try:
        samples = page.asarray(squeeze=False, maxworkers=1)[:, 0]  # planes, H, W, samples
    except (ValueError, RuntimeError) as error:  # imagecodecs' are RuntimeErrors
        raise ValueError(f"{path} is a TIFF that cannot be decoded: {error}") from error
    samples = np.moveaxis(samples, 0, 2).reshape(*samples.shape[1:3], -1)
    depth = int(page.bitspersample)
    bits = stated_bits(page, properties) or (depth if depth not in (8, 16) else None)
    return coloured(path, page, samples, bits)
