"""A slide's pixels: the fast path gives OpenSlide's, or is not taken."""

from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile

from demo.paint import paint, write_slide
from extract import slide as module
from extract.slide import Slide


def openslides(path: Path) -> np.ndarray:
    """Return level 0 as OpenSlide reads it, over white."""
    scan = openslide.OpenSlide(path)
    return np.asarray(scan.read_region((0, 0), 0, scan.dimensions).convert("RGB"))


def check(path: Path, fast: bool) -> None:
    """Compare regions at random, and the whole, with OpenSlide's."""
    slide, truth = Slide(path, 0.25), openslides(path)
    assert slide.fast == fast
    assert np.array_equal(slide.read(0, 0, slide.width, slide.height), truth)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x0, x1 = np.sort(rng.choice(slide.width + 1, 2, replace=False)).tolist()
        y0, y1 = np.sort(rng.choice(slide.height + 1, 2, replace=False)).tolist()
        assert np.array_equal(slide.read(x0, y0, x1 - x0, y1 - y0), truth[y0:y1, x0:x1])
    assert not slide.damaged


def test_real_scans_are_read_to_the_pixel(data):
    for path in [*sorted((data / "tcga-mini/slides").glob("*.svs"))[:3]]:
        check(path, fast=True)
    check(data / "slides/CMU-1-Small-Region.svs", fast=True)  # RGB JPEG, tables in the head


@pytest.mark.parametrize(
    ("options", "fast"),
    [
        ({"compression": "jpeg"}, True),
        ({"compression": "jpeg", "compressionargs": {"level": 90, "outcolorspace": "rgb"}}, True),
        ({"compression": "jpeg", "tile": (64, 64)}, False),  # read in larger squares
        ({"compression": "deflate"}, False),
        ({"compression": None}, False),
        ({"compression": "jpeg", "bigtiff": True}, True),
    ],
)
def test_tiffs_of_many_kinds_are_read_to_the_pixel(tmp_path, options, fast):
    rgb, _ = paint(700, 500, 2)
    path = tmp_path / "s.tiff"
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(path, rgb, **options)
    check(path, fast)


def test_a_fast_path_that_differs_is_not_taken(tmp_path, monkeypatch):
    rgb, _ = paint(512, 512, 2)
    write_slide(tmp_path / "s.tiff", rgb)
    assert Slide(tmp_path / "s.tiff").fast
    read = module.JpegTiles.read
    monkeypatch.setattr(module.JpegTiles, "read", lambda *a: read(*a) ^ np.uint8(1))
    slide = Slide(tmp_path / "s.tiff")
    assert not slide.fast
    assert np.array_equal(slide.read(0, 0, 512, 512), openslides(tmp_path / "s.tiff"))


def test_the_cache_is_bounded_and_a_tile_is_decoded_once(tmp_path, monkeypatch):
    rgb, _ = paint(1536, 1024, 2)
    write_slide(tmp_path / "s.tiff", rgb)
    slide, decoded = Slide(tmp_path / "s.tiff"), []
    read = slide._tiles.read
    monkeypatch.setattr(slide._tiles, "read", lambda *place: decoded.append(place) or read(*place))
    for y in range(0, 1024, 128):
        for x in range(0, 1536, 128):
            slide.read(x, y, 128, 128)
    assert len(decoded) == len(set(decoded)) == 24
    monkeypatch.setattr(module, "CACHE_BYTES", 3 * 256 * 256 * 3)
    assert np.array_equal(slide.read(0, 0, 1536, 1024), openslides(tmp_path / "s.tiff"))
    slide._cache.clear()
    slide._cached = 0
    slide.read(0, 0, 1536, 1024)
    assert len(slide._cache) == 3


def test_the_thumbnail_of_a_lone_level_is_read_in_strips(tmp_path):
    rgb, _ = paint(1300, 1100, 2)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    tifffile.imwrite(tmp_path / "one.tiff", rgb, **options)
    write_slide(tmp_path / "many.tiff", rgb)
    expected = cv2.resize(rgb, (81, 69), interpolation=cv2.INTER_AREA).astype(int)
    for name in ("one", "many"):
        thumbnail, mpp = Slide(tmp_path / f"{name}.tiff", 0.25).thumbnail(4.0)
        assert mpp == pytest.approx(0.25 * 1300 / 81)
        assert np.abs(thumbnail - expected).mean() < 4


def test_what_the_scanner_left_out_is_white(tmp_path):
    rgb, _ = paint(768, 512, 2)
    path = tmp_path / "s.tiff"
    write_slide(path, rgb)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        sizes = tiff.pages[0].tags["TileByteCounts"]
        sizes.overwrite((0, *sizes.value[1:]))
    slide = Slide(path)
    assert (slide.read(0, 0, 256, 256) == 255).all()
    assert not slide.damaged
    assert (slide.read(256, 0, 256, 256) < 250).any()
