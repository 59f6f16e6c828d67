"""What a mask marks, in whatever kind of image a program has written it.

Marked is what is not black: 1 or 255 of 8, 16 or 32 bits, a colour, a label's number, an index of a
palette other than its ground; drawn on a transparent ground, what is not transparent. Of a JPEG,
whose black is never quite black, what is lighter than the middle. An image of several colours of
which none is black does not say what it marks.
"""

import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from shards.filetype import check_file, describe
from shards.scans.stated import UNREADABLE

LARGEST_PX = 1 << 28  # a mask of 2 µm/px and of 30x30 mm has 225 million px
MIDDLE = 127
TIFFS = ("a TIFF", "a BigTIFF")


def read_marked(path: Path) -> np.ndarray:
    """Return what a mask marks, (H, W) bool.

    Raises:
        ValueError: it is no image, cut short, too large to be meant as one, or drawn on white.
        OSError: it cannot be read.
    """
    check_file(path)
    kind = describe(path)
    try:
        values, ground = _tiff(path) if kind in TIFFS else _image(path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that can be read as a mask, but {kind}") from error
    except (SyntaxError, OSError, ValueError, RuntimeError, *UNREADABLE) as error:
        if str(path) in str(error) or getattr(error, "errno", None) is not None:
            raise
        raise ValueError(
            f"{path} is no image that can be read as a mask, but {kind} ({error}); is it complete?"
        ) from error
    if values.dtype == bool:
        return values
    marked = values > ground
    marked = np.any(marked, axis=2) if marked.ndim == 3 else marked
    spread = values.max(axis=(0, 1)).astype(float) - values.min(axis=(0, 1))
    if marked.all() and np.max(spread) > ground / 2:
        raise ValueError(
            f"{path} has several colours and no black: it does not say what it marks; draw it on "
            "black, or on a transparent ground"
        )
    return marked


def _tiff(path: Path) -> tuple[np.ndarray, int]:
    """Return the largest image of a TIFF, or what it marks, (H, W) bool; and its ground."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        _check_size(path, page.imagewidth, page.imagelength)
        values = page.asarray()
        by_tifffile = "tifffile" in page.software
    if values.ndim == 3 and page.planarconfig == 2:
        values = np.moveaxis(values, 0, 2)
    # Of two colours, 0 may be white, as of a fax; tifffile writes and reads True so, as 1.
    if page.photometric == 0 and not by_tifffile:
        values = ~values if values.dtype == bool else np.iinfo(values.dtype).max - values
    if values.ndim == 3 and page.extrasamples:
        return _on_ground(values[..., :-1], values[..., -1]), 0
    return values, 0


def _image(path: Path) -> tuple[np.ndarray, int]:
    """Return an image that Pillow opens, or what it marks, (H, W) bool; and its ground."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked here
        largest, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = largest
    with image:
        _check_size(path, *image.size)
        image.load()
        if image.mode == "P" and not image.has_transparency_data:
            index = np.asarray(image)
            colours = np.asarray(image.convert("RGB").getcolors(1 << 24) or [], object)
            black = any(tuple(colour) == (0, 0, 0) for _, colour in colours)
            return (np.asarray(image.convert("RGB")), 0) if black else (index, 0)
        if image.has_transparency_data:
            values = np.asarray(image.convert("RGBA"))
            return _on_ground(values[..., :3], values[..., 3]), 0
        if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
            values = np.asarray(image.convert("RGB"))
        else:
            values = np.asarray(image)
        lossy = image.format == "JPEG" and values.max(initial=0) > MIDDLE
    return values, MIDDLE if lossy else 0


def _on_ground(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return what is marked by colour, (H, W, C), where some of it is drawn on nothing."""
    coloured, seen = np.any(colours > 0, axis=2), alpha > 0
    if seen.all() or not seen.any():
        return coloured
    both = coloured & seen
    return both if both.any() else seen  # drawn in black


def _check_size(path: Path, width: int, height: int) -> None:
    """Refuse a mask of as many px as a slide."""
    if width * height > LARGEST_PX:
        raise ValueError(
            f"{path} has {width}x{height} px; a mask of more than {LARGEST_PX / 1e6:.0f} million "
            f"is not read: reduce it, e.g. vips resize '{path}' mask.png 0.0625 --kernel nearest"
        )
