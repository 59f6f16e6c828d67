"""Any image is a slide: fields as PNG, JPEG and TIFFs of all kinds are read to the pixel or refused
for a true reason."""

import logging
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from evaluate.slides.annotations import spatial
from evaluate.slides.qupath import scanned_part
from extract.job import extract_slide
from extract.ledger import Settings
from extract.slide import Slide
from extract.slides import Entry, list_slides
from shards.scale import scale
from shards.scans import image as image_module
from shards.scans.scan import open_scan

SETTINGS = Settings("rays", "jpeg", 0, None, any_scale=False)
RGB = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
ALPHA = np.linspace(0, 255, 300).astype(np.uint8)[None].repeat(200, 0)
ON_WHITE = np.rint(RGB * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None].astype(float))
TILED = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
WORDS = RGB.astype(np.uint16) * 257
WHITE = np.full((200, 300, 3), 255, np.uint8)


def pillow(pixels, mode=None, **options):
    """Return what writes an image by Pillow."""
    made = Image.fromarray(pixels)
    return lambda path: (made.convert(mode) if mode else made).save(path, **options)


def tiff(pixels, **options):
    """Return what writes a TIFF."""
    return lambda path: tifffile.imwrite(path, pixels, **options)


def png16(pixels, bits=None):
    """Return what writes a PNG of 16 bits, with an sBIT chunk."""
    data = imagecodecs.png_encode(pixels)
    if bits:
        body = b"sBIT" + bytes([bits] * 3)
        data = (
            data[:33]
            + struct.pack(">I", 3)
            + body
            + struct.pack(">I", zlib.crc32(body))
            + data[33:]
        )
    return lambda path: path.write_bytes(data)


def palette() -> Image.Image:
    return Image.fromarray(RGB).quantize(256)


def palette_tiff(path: Path) -> None:
    table = np.asarray(palette().getpalette("RGB"), np.uint16).reshape(-1, 3).T * 257
    tifffile.imwrite(path, np.asarray(palette()), photometric="palette", colormap=table)


READ = {
    "plain.png": (pillow(RGB), RGB),
    "plain.bmp": (pillow(RGB), RGB),
    "lossless.webp": (pillow(RGB, lossless=True), RGB),
    "alpha.png": (pillow(np.dstack([RGB, ALPHA])), ON_WHITE),
    "palette.png": (lambda path: palette().save(path), np.asarray(palette().convert("RGB"))),
    "sixteen.png": (png16(WORDS), RGB),
    "twelve.png": (png16(WORDS >> 4, 12), RGB),
    "untiled.tif": (tiff(RGB), RGB),
    "striped.tif": (tiff(RGB, rowsperstrip=7, compression="deflate", predictor=True), RGB),
    "lzw.tif": (tiff(RGB, compression="lzw", rowsperstrip=16), RGB),
    "planes.tif": (tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"), RGB),
    "palette.tif": (palette_tiff, np.asarray(palette().convert("RGB"))),
    "alpha.tif": (tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=[2]), ON_WHITE),
    "sixteen.tif": (tiff(WORDS, photometric="rgb"), RGB),
    "twelve.tif": (
        tiff(WORDS >> 4, photometric="rgb", extratags=[(281, "H", 3, (4095,) * 3, True)]),
        RGB,
    ),
    "webp.tif": (tiff(RGB, **TILED, compression="webp", compressionargs={"lossless": True}), RGB),
    "jpeg2000.tif": (
        tiff(RGB, **TILED, compression="jpeg2000", compressionargs={"reversible": True}),
        RGB,
    ),
    "tiled.ome.tif": (tiff(RGB, tile=(128, 128), photometric="rgb", ome=True), RGB),
    "big-endian.tif": (tiff(RGB, byteorder=">"), RGB),
}


@pytest.mark.parametrize("name", READ)
def test_images_of_many_kinds_are_read_to_the_pixel(tmp_path, name):
    write, truth = READ[name]
    write(tmp_path / name)
    slide = Slide(tmp_path / name, 0.25)
    assert (slide.width, slide.height) == (300, 200)
    assert np.abs(slide.read(0, 0, 300, 200).astype(int) - truth).max() <= (truth is ON_WHITE)
    assert np.array_equal(slide.read(120, 90, 80, 60), slide.read(0, 0, 300, 200)[90:150, 120:200])
    assert slide.thumbnail(0.5)[0].shape == (100, 150, 3)
    assert open_scan(tmp_path / name).thumbnail(60).shape == (40, 60, 3)
    assert not slide.damaged


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    pillow(RGB, quality=90)(tmp_path / "a.jpg")
    truth = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.array_equal(Slide(tmp_path / "a.jpg", 0.25).read(0, 0, 300, 200), truth)


GREY = np.repeat(RGB[..., :1], 3, axis=2)
FEW = np.array([(255, 0, 0), (0, 255, 0), (9, 9, 9)], np.uint8)[RGB[..., 0] % 3]
STACK = np.stack([RGB, RGB])
REFUSED = {
    "grey.png": (pillow(RGB[..., 0]), "has one channel, not three; a mask, or a label image"),
    "label.png": (pillow(WORDS[..., 0]), "has one channel, not three"),
    "grey.jpg": (pillow(RGB[..., 0]), "has one channel"),
    "mask.png": (pillow(GREY), "it has no colour; a mask"),
    "classes.png": (pillow(FEW), "it has 3 colours; a mask, or a label image"),
    "inks.jpg": (pillow(RGB, "CMYK"), r"is in CMYK, not in RGB; convert it: vips colourspace"),
    "label.tif": (tiff(WORDS[..., 0]), "has one channel of 16 bits, not three"),
    "label32.tif": (tiff(RGB[..., 0].astype(np.int32)), "has one channel of 32 bits"),
    "inks.tif": (
        tiff(np.dstack([RGB, ALPHA]), photometric="separated"),
        "holds 4 samples of SEPARATED, not RGB; convert it: vips",
    ),
    "infrared.tif": (
        tiff(np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=[0]),
        "does not say that those beyond RGB are alpha",
    ),
    "float.tif": (tiff(RGB / np.float32(255), photometric="rgb"), "samples of float32"),
    "stack.tif": (tiff(STACK, photometric="rgb"), "holds more than one image of that size"),
    "channels.ome.tif": (
        tiff(np.moveaxis(RGB, 2, 0), ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
        "has one channel of 8 bits|3 by channel",
    ),
    "dim.tif": (tiff(WORDS >> 4, photometric="rgb"), "does not say how many; state them .OME's"),
    "dim.png": (png16(WORDS >> 6), "has 16 bits a sample and nothing above 1023"),
    "over.png": (png16(WORDS, 12), "states 12 bits, but holds 65535"),
    "cut.png": (lambda p: _cut(pillow(RGB), p), "a PNG image that cannot be read"),
    "cut16.png": (lambda p: _cut(png16(WORDS), p), "a PNG image that cannot be read"),
    "cut.jpg": (lambda p: _cut(pillow(RGB), p), "a JPEG image that cannot be read"),
    "cut.tif": (lambda p: _cut(tiff(RGB), p), "cut short|are not there|end early"),
    "strip.tif": (
        lambda p: _cut(tiff(RGB, compression="jpeg", photometric="rgb", rowsperstrip=64), p),
        "cut short|end early|are not there",
    ),
}  # fmt: skip


def _cut(write, path: Path) -> None:
    """Write a file without its last third."""
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_slide_is_refused_for_a_true_reason(tmp_path, name):
    write, said = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=said) as refused:
        Slide(tmp_path / name, 0.25)
    assert name in str(refused.value)
    record = extract_slide(Entry("x", tmp_path / name, mpp=0.25), tmp_path, SETTINGS)
    assert record["outcome"] == "failed"


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("a.png", pillow(RGB), r"it is not tiled; save it in tiles: vips tiffsave '.*a\.png' out"),
        ("a.tif", tiff(RGB), r"it is not tiled; save it in tiles: vips tiffsave"),
        (
            "b.tif",
            tiff(WORDS, **TILED, compression="jpeg2000"),
            "not of 8-bit RGB.*vips colourspace",
        ),
    ],
)
def test_large_images_that_would_be_read_whole_are_refused_with_the_cure(
    tmp_path, monkeypatch, name, write, said
):
    write(tmp_path / name)
    monkeypatch.setattr(image_module, "WHOLE_PX", 59_999)
    with pytest.raises(ValueError, match=said):
        open_scan(tmp_path / name)


def test_pillows_own_limit_is_the_same_refusal(tmp_path, monkeypatch):
    pillow(RGB)(tmp_path / "a.png")
    for limit in (59_999, 1_000):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"larger than the 80 million px .* vips tiffsave"):
            open_scan(tmp_path / "a.png")


def test_a_blank_image_is_a_blank_slide(tmp_path):
    pillow(WHITE)(tmp_path / "a.png")
    assert (Slide(tmp_path / "a.png", 0.25).read(0, 0, 300, 200) == 255).all()


def test_a_damaged_tile_is_white_and_noted(tmp_path):
    path = tmp_path / "a.tif"
    rgb = np.random.default_rng(1).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    tiff(rgb, **TILED, compression="webp", compressionargs={"lossless": True})(path)
    with tifffile.TiffFile(path) as opened:
        offset, size = (opened.pages.first.dataoffsets[7], opened.pages.first.databytecounts[7])
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(size))
    slide = Slide(path, 0.25)
    pixels = slide.read(0, 0, 640, 640)
    assert slide.damaged == [(256, 128, 384, 256)]
    assert (pixels[128:256, 256:384] == 255).all()
    assert np.array_equal(pixels[256:], rgb[256:])


@pytest.mark.parametrize(
    ("options", "mpp", "source"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25, "tiff.mpp-x"),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "um"}}, 0.25, "imagej.mpp-x"),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.25}}, 0.25, "ome.mpp-x"),
        (
            {"ome": True, "metadata": {"PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}},
            0.25,
            "ome.mpp-x",
        ),
    ],
)
def test_a_tiff_says_its_scale(tmp_path, options, mpp, source):
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", **options)
    slide = Slide(tmp_path / "a.tif")
    assert (slide.mpp, slide.mpp_source) == (pytest.approx(mpp), source)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({}, "has no mpp and no objective power; add an `mpp` column or pass --mpp 0.25"),
        ({"tiff.mpp-x": "352.8", "tiff.XResolution": "72", "tiff.ResolutionUnit": "inch"},
         "by tiff.mpp-x, the TIFF's resolution tag: 72 px per inch"),
        ({"ome.mpp-x": "0.25", "ome.mpp-y": "0.5"}, r"across \(ome.mpp-x\) but 0.5 down \(ome"),
    ],
)  # fmt: skip
def test_no_scale_is_guessed(properties, said):
    with pytest.raises(ValueError, match=said):
        scale(Path("x.png"), properties)


def test_omes_scale_goes_before_a_resolution_tag_that_says_another():
    tags = {"openslide.mpp-x": "352.8", "openslide.mpp-y": "352.8"}
    assert scale(Path("x"), tags | {"ome.mpp-x": "0.25"}) == (0.25, "ome.mpp-x")
    tags = {"openslide.mpp-x": "0.2501", "openslide.mpp-y": "0.2501"}
    assert scale(Path("x"), tags | {"ome.mpp-x": "0.25"}) == (0.2501, "openslide.mpp-x")


def test_openslides_sixteen_bits_are_checked(tmp_path):
    tiff(WORDS, **TILED)(tmp_path / "full.tif")
    assert np.abs(open_scan(tmp_path / "full.tif").region(0, 0, 99, 99) - RGB[:99, :99]).max() == 0
    tiff(WORDS >> 4, **TILED)(tmp_path / "dim.tif")
    with pytest.raises(ValueError, match="seems to use fewer bits, and does not say how many"):
        open_scan(tmp_path / "dim.tif")


def test_a_folder_of_images_is_a_folder_of_slides_without_its_masks(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "labels").mkdir()
    pillow(RGB)(tmp_path / "a.png")
    pillow(RGB)(tmp_path / "b.jpg")
    pillow(WORDS[..., 0])(tmp_path / "labels/a.png")
    pillow(RGB[..., 0])(tmp_path / "b_mask.png")
    Image.fromarray(FEW).quantize(3).save(tmp_path / "b_classes.png")
    entries = list_slides(tmp_path, mpp=0.25)
    assert [entry.slide for entry in entries] == ["a", "b"]
    assert f"{tmp_path}: 2 slides (1 .png, 1 .jpg)" in caplog.text
    assert "3 images (" in caplog.text
    assert "of one channel or a few colours left out, as masks or labels" in caplog.text
    tiff(RGB)(tmp_path / "c.tif")
    tiff(WORDS[..., 0])(tmp_path / "c_labels.tif")
    caplog.clear()
    assert [entry.slide for entry in list_slides(tmp_path)] == ["c"]
    assert "c_labels.tif) of one channel" in caplog.text
    assert "5 files that are no slides by their names left out (4 .png, 1 .jpg" in caplog.text
    assert "PNG, JPEG and the like are taken for slides only where they are alone" in caplog.text


def test_a_list_names_any_image(tmp_path):
    pillow(RGB)(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,mpp\na.png,0.25\n")
    assert [(e.slide, e.mpp) for e in list_slides(tmp_path / "list.csv")] == [("a", 0.25)]
    (tmp_path / "paths.txt").write_text("a.png\n")
    assert [e.slide for e in list_slides(tmp_path / "paths.txt", 0.25)] == ["a"]
    assert [e.slide for e in list_slides(tmp_path / "a.png")] == ["a"]


def test_cells_of_an_image_are_those_of_the_same_slide(painted, tmp_path):
    path = next(painted.glob("*.tiff"))
    pixels = Slide(path, 0.25).read(0, 0, 512, 512)
    pillow(pixels)(tmp_path / "s.png")
    tiff(pixels, **TILED, compression="deflate")(tmp_path / "s.tif")
    records = []
    for name in ("s.png", "s.tif"):
        out = tmp_path / f"cells-{name}"
        out.mkdir()
        records.append(extract_slide(Entry("s", tmp_path / name, mpp=0.25), out, SETTINGS))
    assert records[0]["outcome"] == "done", records[0]["reason"]
    assert records[0]["sha256"] == records[1]["sha256"]
    assert records[0]["fates"]["kept"] > 10
    tables = [(tmp_path / f"cells-{name}/s.parquet").read_bytes() for name in ("s.png", "s.tif")]
    assert tables[0] == tables[1]
    nuclei = SimpleNamespace(record=records[0], described={"mpp": 0.25}, slide="s")
    picture = spatial(nuclei)["s"]
    assert picture["images"]["hires"].shape == (512, 512, 3)
    assert picture["scalefactors"]["tissue_hires_scalef"] == 1
    assert scanned_part(records[0]["path"]) == (0, 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd-slides/CMU-1-Small-Region.jpeg.tiff", r"resolution tag: .* would be at 0\.00499"),
        ("odd-slides/CMU-1-Small-Region.webp.tiff", r"resolution tag: .* would be at 0\.00499"),
        ("odd-slides/small_HE_levels.tiff", r"resolution tag: .* would be at 352\.9"),
        ("odd-slides/tcga-cr-7395-01a-01-ts1.svs", "has no mpp and no objective power"),
        ("odd-slides/xyc-jpeg.ome.tiff", "has no mpp and no objective power"),
        ("odd-slides/dicom", None),
        ("exports/ytma10_010704_benign1_ccd.tif", "resolution tag: 72 px per inch"),
        ("slides/tcga_tile.png", "has no mpp and no objective power"),
    ],
)
def test_real_odd_slides_open(data, name, said):
    path = data / name
    if not path.exists():
        pytest.skip(f"no {path}")
    slide = Slide(path, 0.25)
    assert slide.read(0, 0, 200, 150).shape == (150, 200, 3)
    assert slide.thumbnail(4.0)[0].std() > 1
    if said is None:
        assert Slide(path).mpp == pytest.approx(0.499)
        return
    with pytest.raises(ValueError, match=said):
        Slide(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odd-slides/XYC-half-mpp.tiff", "it has 12 colours"),
        ("exports/ytma10_010704_benign1_ccd_labels.tif", "has one channel of 16 bits"),
    ],
)
def test_real_images_that_are_none_are_refused(data, name, said):
    if not (data / name).exists():
        pytest.skip(f"no {data / name}")
    with pytest.raises(ValueError, match=said):
        Slide(data / name, 0.25)
