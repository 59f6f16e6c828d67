"""An image in memory: a field as PNG, JPEG, WebP or BMP, or a TIFF that is not tiled.

PNG and JPEG say no scale that one could rely on: their densities are a screen's or a printer's.
Pixels are taken as they are stored; an EXIF rotation is not applied.
"""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from PIL import Image, UnidentifiedImageError

from shards.filetype import describe
from shards.scans.samples import SAVE_8_BITS, check_colours, rgb8

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "YCbCr", "RGBa")  # Pillow's modes
WHOLE_PX = 80_000_000  # that are read whole: 240 MB; Pillow itself warns from 89 million on
SAVE_TILED = "vips tiffsave '{}' out.tif --tile --pyramid --compression deflate --bigtiff"
PNG_HEAD = 26  # bytes: signature, and IHDR up to the colour type


class ImageScan:
    """An image that is read whole; a `shards.scans.scan.Scan`."""

    def __init__(self, pixels: np.ndarray, properties: Mapping[str, str]):
        """Take (H, W, 3) uint8 RGB."""
        self.pixels = pixels
        self.tile_px = (0, 0)
        self.properties = properties
        self.height, self.width = pixels.shape[:2]

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self.pixels[y : y + height, x : x + width]

    def reduced(self, shrink: float, most: float) -> np.ndarray | None:
        return None

    def thumbnail(self, side: int) -> np.ndarray:
        return fitted(self.pixels, side)


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """Shrink (H, W, 3) so that its longer side is at most `side` px."""
    shrink = max(max(pixels.shape[:2]) / side, 1.0)
    height, width = (max(round(length / shrink), 1) for length in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def open_image(path: Path) -> ImageScan:
    """Read an image by Pillow; of 16 bits by imagecodecs, for Pillow drops the lower eight.

    Raises:
        ValueError: it does not open, is cut short, too large, or not in colour.
        OSError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            check_size(path, *image.size)
            check_mode(path, image.mode)
            pixels = _sixteen(path) if _png_depth(path) == 16 else _eight(path, image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"{path} is larger than the {WHOLE_PX / 1e6:.0f} million px that are read whole "
            f"({error}); save it in tiles: {SAVE_TILED.format(path)}"
        ) from error
    except (UnidentifiedImageError, SyntaxError, OSError, imagecodecs.PngError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} is no slide that OpenSlide can open, but {describe(path)} that cannot be read "
            f"({error}); is it complete?"
        ) from error
    check_colours(path, pixels)
    return ImageScan(pixels, {})


def check_mode(path: Path, mode: str) -> None:
    """Refuse what is not in colour.

    Args:
        path: named in errors.
        mode: Pillow's.

    Raises:
        ValueError: it is grey, or of inks.
    """
    if mode in ("CMYK", "LAB", "HSV"):
        raise ValueError(f"{path} is in {mode}, not in RGB; convert it: {SAVE_8_BITS.format(path)}")
    if mode not in COLOUR:
        raise ValueError(
            f"{path} is no slide: it has one channel, not three; a mask, or a label image?"
        )


def check_size(
    path: Path, width: int, height: int, why: str = "it is not tiled", cure: str = SAVE_TILED
) -> None:
    """Refuse an image that would have to be read whole, and is too large for that.

    Args:
        path: named in the error, and in the cure.
        width, height: px.
        why: it would have to be.
        cure: the command, `{}` for the path.

    Raises:
        ValueError: it has more than WHOLE_PX.
    """
    if width * height > WHOLE_PX:
        raise ValueError(
            f"{path} has {width}x{height} px, more than the {WHOLE_PX / 1e6:.0f} million that are "
            f"read whole, and {why}; save it in tiles: {cure.format(path)}"
        )


def _eight(path: Path, image: Image.Image) -> np.ndarray:
    """Return an open image's pixels on white."""
    image.load()
    if image.mode == "RGBa":  # multiplied by alpha
        return rgb8(path, np.asarray(image), associated=True)
    if image.has_transparency_data:
        return rgb8(path, np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _sixteen(path: Path) -> np.ndarray:
    """Return a 16-bit PNG's pixels, scaled by the bits its sBIT chunk states."""
    data = path.read_bytes()
    return rgb8(path, imagecodecs.png_decode(data), _significant(data))


def _png_depth(path: Path) -> int | None:
    """Return the bits a sample of a PNG; None: it is none."""
    with open(path, "rb") as file:
        head = file.read(PNG_HEAD)
    return head[24] if head.startswith(b"\x89PNG") and len(head) == PNG_HEAD else None


def _significant(data: bytes) -> int | None:
    """Return what a PNG's sBIT chunk says; None: there is none before the pixels."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"sBIT":
            return max(data[place + 8 : place + 8 + min(length, 3)])
        if kind == b"IDAT":
            return None
        place += length + 12
    return None
