"""Masks as programs write them: what is marked is marked, whatever the kind of image."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from extract.segment.masks import find_mask, judge
from extract.slides import Entry

MARKED = np.zeros((60, 80), bool)
MARKED[20:40, 20:60] = True
GREY = MARKED.astype(np.uint8) * 255
BLACK = np.zeros_like(GREY)
NOISE = np.random.default_rng(0).integers(1, 255, GREY.shape).astype(np.uint8)


class OpenSlide:
    width, height, mpp, properties = 800, 600, 0.25, {}


def found(path: Path) -> np.ndarray:
    mask = find_mask(str(path), OpenSlide(), Entry("A", path.parent / "A.svs", mask=path))
    assert mask is not None
    return mask


def pillow(pixels: np.ndarray, **options) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path, **options)


def tiff(pixels: np.ndarray, **options) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def palette(*colours: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.fromarray(MARKED.astype(np.uint8))
        image.putpalette(list(colours))
        image.save(path)

    return write


def opencv(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: cv2.imwrite(str(path), pixels) and None


MASKS = {
    "black and white.png": opencv(GREY),
    "0 and 1.png": opencv(GREY // 255),
    "one bit.png": pillow(MARKED),
    "16 bits of 1.png": opencv((GREY // 255).astype(np.uint16)),
    "16 bits of 3.tif": tiff((GREY // 255).astype(np.uint16) * 3),
    "labels of 32 bits.tif": tiff(MARKED.astype(np.int32) * 70_000),
    "shares.tif": tiff(MARKED.astype(np.float32)),
    "double.tif": tiff(MARKED.astype(np.float64)),
    "true and false.tif": tiff(MARKED),
    "fax.tif": pillow(MARKED, compression="group4"),
    "white is 0.tif": tiff(255 - GREY, photometric="miniswhite", software="other"),
    "lzw.tif": pillow(GREY, compression="tiff_lzw"),
    "grey.jpg": pillow(GREY, quality=60),
    "colour.jpg": pillow(np.dstack([GREY] * 3), quality=40),
    "white on nothing.png": pillow(np.dstack([GREY | 255] * 3 + [GREY])),
    "black on nothing.png": pillow(np.dstack([BLACK] * 3 + [GREY])),
    "grey with alpha.png": pillow(np.dstack([GREY | 255, GREY])),
    "opaque.png": pillow(np.dstack([GREY] * 3 + [GREY | 255])),
    "alpha.tif": tiff(np.dstack([GREY | 255] * 3 + [GREY]), photometric="rgb", extrasamples=[2]),
    "planes.tif": tiff(np.stack([GREY, BLACK, BLACK]), photometric="rgb", planarconfig=2),
    "red of 1.png": pillow(np.dstack([GREY // 255, BLACK, BLACK])),
    "blue of 1.png": pillow(np.dstack([BLACK, BLACK, GREY // 255])),
    "palette.png": palette(0, 0, 0, 255, 0, 0),
    "palette on white.png": palette(255, 255, 255, 255, 0, 0),
    "bitmap.bmp": pillow(GREY),
    "gif.gif": pillow(GREY),
    "web.webp": pillow(np.dstack([GREY] * 3), lossless=True),
    "a pyramid.tif": tiff(np.stack([GREY, GREY // 2])),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_is_marked_is_sought(tmp_path, name):
    MASKS[name](tmp_path / name)
    assert np.array_equal(found(tmp_path / name), MARKED)


def cut(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE * MARKED).save(file, kind)
    return file.getvalue()[: len(file.getvalue()) // 2]


def vast() -> bytes:
    """Return a PNG of 60,000x45,000 px by its head."""
    head = struct.pack(">IIBBBBB", 60_000, 45_000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(head)) + b"IHDR" + head
    chunk += struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT"


def drawn(*, ground: int, colour: tuple[int, int, int], **options) -> bytes:
    pixels = np.full((60, 80, 3), ground, np.uint8)
    pixels[MARKED] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


REFUSED = {
    "red on white": (
        drawn(ground=255, colour=(255, 0, 0), format="PNG"),
        "has several colours and no black: .*draw it on black",
    ),
    "red on white, a JPEG": (
        drawn(ground=255, colour=(255, 0, 0), format="JPEG"),
        "has several colours and no black",
    ),
    "green on grey": (drawn(ground=128, colour=(0, 255, 0), format="TIFF"), "and no black"),
    "labels from 1": (drawn(ground=1, colour=(2, 2, 2), format="BMP"), "and no black"),
    "cut png": (cut("PNG"), "can be read as a mask, but a PNG image .*truncated"),
    "cut jpeg": (cut("JPEG"), "can be read as a mask, but a JPEG image .*truncated"),
    "cut tiff": (cut("TIFF"), "can be read as a mask, but a TIFF|cut short"),
    "vast": (vast(), "has 60000x45000 px; a mask of more .*vips resize"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid 1\nsize 99\n", "git lfs pull"),
    "a page": (b"<html><title>Sign in</title>", "a web page"),
    "GeoJSON": (b'{"type": "FeatureCollection", "features": []}', "as a mask, but JSON"),
    "empty": (b"", "is empty"),
    "an array": (b"\x93NUMPY" + bytes(99), "but a NumPy array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_mask_is_called_what_it_is(tmp_path, case):
    content, message = REFUSED[case]
    (tmp_path / "m.png").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        found(tmp_path / "m.png")
    assert str(error.value).startswith(str(tmp_path / "m.png"))


class Painted(OpenSlide):
    """A slide of 60x80 px at 8 µm/px, stained where it is marked, and not elsewhere."""

    def thumbnail(self, mpp: float) -> tuple[np.ndarray, float]:
        return np.where(MARKED[..., None], (150, 90, 160), 245).astype(np.uint8), 8.0


FEW = MARKED & (np.arange(80) < 30)
ALL = np.ones_like(MARKED)
MEANT = {
    "its tissue": (MARKED, 1 / 6, 1),
    "a part of it": (FEW, 1 / 24, 1 / 4),
    "all": (ALL, 1, 1),
    "nothing": (~ALL, 0, 0),
    "twice as large": (np.kron(MARKED, np.ones((2, 2), bool)), 1 / 6, 1),
    "tissue and glass": (MARKED | (np.arange(80) < 40), 1 / 2 + 1 / 12, 1),
}


@pytest.mark.parametrize("case", MEANT)
def test_how_much_a_mask_marks(case):
    mask, whole, held = MEANT[case]
    marked = judge(mask, Painted())
    assert marked["slide"] == pytest.approx(whole, abs=1e-3)
    assert marked["tissue"] == pytest.approx(held, abs=0.15)


INVERTED = {
    "black on white": ~MARKED,
    "with a part of the tissue": ~MARKED | FEW & (np.arange(80) < 25),
    "another slide's": np.roll(MARKED, 30, axis=0),
}


@pytest.mark.parametrize("case", INVERTED)
def test_a_mask_of_the_glass_is_refused(case):
    if case == "another slide's":
        assert judge(INVERTED[case], Painted())["tissue"] < 0.1  # said, for little is left out
        return
    with pytest.raises(ValueError, match=r"marks 8\d\.\d% of the slide, of which .*black on white"):
        judge(INVERTED[case], Painted())


def test_a_mask_of_other_proportions_is_another_slides(tmp_path):
    opencv(GREY.T)(tmp_path / "m.png")
    with pytest.raises(ValueError, match="of other proportions than the slide"):
        found(tmp_path / "m.png")
