"""An image or a slide that a benchmark names, opened for cutting windows."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import openslide
import tifffile
from PIL import Image, UnidentifiedImageError

from evaluate.benchmarks.checks import listed
from shards.crop import cut, inside, window_px
from shards.errors import dead_link
from shards.filetype import check_file
from shards.folder import visible
from shards.scale import check_square

BLOCK_PX = 1024  # side of the regions a slide is read in
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".svs", ".ndpi", ".mrxs")
WHOLE_BYTES = 2**22  # of a file: up to twice as many are compared whole


class Picture:
    """What windows are cut from: an image in memory. PNG and JPEG say no scale one could rely on.

    A context manager.
    """

    mpp: float | None = None  # its own word on its scale, µm/px

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels  # (H, W, 3) uint8
        self.size = (pixels.shape[1], pixels.shape[0])  # width, height, px of level 0

    def inside(self, xy: np.ndarray, mpp: float, out_px: int) -> np.ndarray:
        """Tell which windows, (N,) bool, lie wholly in the picture; arguments as of `cut`."""
        return inside(xy, *self.size, mpp, out_px)

    def cut(self, xy: np.ndarray, mpp: float, out_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut the windows that lie wholly in the picture.

        Args:
            xy: (N, 2) float, centres in level-0 px.
            mpp: scale of the picture, µm/px.
            out_px: side of a window, px at 0.25 µm/px.

        Returns:
            (M,) the rows of xy that lie within, and (M, out_px, out_px, 3) uint8.
        """
        rows = np.flatnonzero(self.inside(xy, mpp, out_px))
        return rows, cut(self._pixels, xy[rows], mpp, out_px)

    def __enter__(self) -> "Picture":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def open_picture(path: Path, source: str = "cells.csv") -> Picture:
    """Open a slide by OpenSlide where it knows the format, else a TIFF or an image whole.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none can open it.
    """
    _check_there(path, source)
    if openslide.OpenSlide.detect_format(path):
        try:
            return _Slide(openslide.OpenSlide(path))
        except openslide.OpenSlideError as error:
            raise ValueError(f"{path} does not open as a slide: {error}") from error
    if path.suffix.lower() in (".tif", ".tiff"):  # one that is not tiled, or too large for PIL
        try:
            return Picture(_first_page(path))
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise ValueError(
                f"{path} is neither a slide nor an image that opens: {error}"
            ) from error
    return Picture(read_pixels(path, source))


def read_pixels(path: Path, source: str) -> np.ndarray:
    """Read a whole image of 8 bits: (H, W, 3) uint8 RGB, what is transparent on white.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it does not open, is cut short, or has more than 8 bits.
    """
    _check_there(path, source)
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"it has pixels of {image.mode}, not of 8 bits; convert it")
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                return np.asarray(
                    Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
                )
            return np.asarray(image.convert("RGB"))
    except (
        UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError
    ) as error:  # fmt: skip
        raise ValueError(f"{path} is neither a slide nor an image that opens: {error}") from error


def read_size(path: Path, source: str) -> tuple[int, int]:
    """Return an image's width and height; arguments and errors as of `read_pixels`."""
    _check_there(path, source)
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} is no image that opens: {error}") from error


def _check_there(path: Path, source: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(
            f"{source} names an image that is not there: {path}{dead_link(path)}"
        )
    check_file(path)


def black_margins(crops: np.ndarray) -> int:
    """Count crops, (N, P, P, 3), with a whole black row or column: what lay beyond the image."""
    blank = crops.max(axis=3) == 0  # (N, P, P)
    return int((blank.all(axis=2).any(axis=1) | blank.all(axis=1).any(axis=1)).sum())


def strays(used: Iterable[Path], by_stem: bool = False) -> list[str]:
    """Return a note on the images that lie beside those used, and that no label names.

    Args:
        used: the images that labels name.
        by_stem: whether an image of another ending but the same name is the same one.
    """
    used = {path.absolute() for path in used}
    same = {path.with_suffix("") for path in used} if by_stem else set()
    beside = [
        path
        for folder in sorted({path.parent for path in used})
        for path in visible(folder.iterdir())
        if path.suffix.lower() in IMAGES and path not in used and path.with_suffix("") not in same
    ]
    if not beside:
        return []
    names = listed([path.name for path in beside])
    return [f"{len(beside)} images beside them have no labels, hence are not used: {names}"]


def fingerprint(path: Path) -> str:
    """Return a digest equal for two files of one image: of all bytes, or of its ends."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(WHOLE_BYTES))
        if size > WHOLE_BYTES:
            file.seek(max(WHOLE_BYTES, size - WHOLE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def _first_page(path: Path) -> np.ndarray:
    """Return a TIFF's largest image, (H, W, 3) uint8 RGB."""
    pixels = tifffile.imread(path)
    if pixels.ndim == 3 and pixels.shape[0] in (3, 4):  # planes one after another
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(f"a TIFF of {pixels.dtype} {pixels.shape}, not of 8-bit RGB")
    return np.ascontiguousarray(pixels[:, :, :3])


class _Slide(Picture):
    """A slide, read region by region: it may be larger than memory."""

    def __init__(self, slide: openslide.OpenSlide):
        self.slide = slide
        self.size = slide.dimensions

    @property
    def mpp(self) -> float | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        properties = self.slide.properties
        sides = [side for axis in "xy" if (side := properties.get(f"openslide.mpp-{axis}"))]
        power = properties.get("openslide.objective-power")
        if len(sides) < 2:
            return 10 / float(power) if power else None
        across, down = map(float, sides)
        check_square(across, down, "a slide", "give the true one in a column mpp")
        return (across + down) / 2

    def cut(self, xy: np.ndarray, mpp: float, out_px: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(self.inside(xy, mpp, out_px))
        crops = np.empty((len(rows), out_px, out_px, 3), np.uint8)
        margin = int(np.ceil(window_px(mpp, out_px) / 2)) + 12  # 12: the resampling filter's reach
        blocks = np.floor(xy[rows] / BLOCK_PX).astype(int)
        for block in np.unique(blocks, axis=0):
            here = np.flatnonzero((blocks == block).all(axis=1))
            left, top = np.maximum(block * BLOCK_PX - margin, 0)
            right, bottom = np.minimum((block + 1) * BLOCK_PX + margin, self.size)
            pixels = self._region(int(left), int(top), int(right - left), int(bottom - top))
            crops[here] = cut(pixels, xy[rows[here]] - (left, top), mpp, out_px)
        return rows, crops

    def _region(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """Return (height, width, 3) uint8; what was not scanned is white."""
        region = self.slide.read_region((left, top), 0, (width, height))
        white = Image.new("RGB", region.size, (255, 255, 255))
        white.paste(region, mask=region.getchannel("A"))
        return np.asarray(white)

    def __exit__(self, *error: object) -> None:
        self.slide.close()
