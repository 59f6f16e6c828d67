"""Scales no microscope has: refused with the value, where it came from, and the cure."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile

from demo.paint import paint
from evaluate.benchmarks.find import find_benchmark
from evaluate.benchmarks.hest import _facts
from evaluate.benchmarks.rule import Rule
from extract.job import extract_slide
from extract.ledger import Settings
from extract.main import main
from extract.slide import Slide
from extract.slides import Entry, list_slides
from shards.crop import cut
from shards.scale import check_mpp, scale

ANY = Settings("rays", "jpeg", 0, None, any_scale=True)
PIXELS, _ = paint(512, 512, 3)


def write(path: Path, across: float, unit: str = "CENTIMETER", down: float | None = None) -> Path:
    """Write a tiled TIFF whose resolution tag holds these px per unit."""
    tifffile.imwrite(
        path,
        PIXELS,
        tile=(256, 256),
        photometric="rgb",
        metadata=None,
        resolution=(across, down or across),
        resolutionunit=unit,
    )
    return path


@pytest.mark.parametrize(
    ("across", "unit", "said"),
    [
        (72, "INCH", r"352\.8 µm/px"),  # of a screen
        (96, "INCH", r"264\.6 µm/px"),
        (300, "INCH", r"84\.67 µm/px"),  # of a printer
        (1, "CENTIMETER", r"1e\+04 µm/px"),  # a default
        (4000, "CENTIMETER", r"2\.5 µm/px"),  # px per mm
        (4, "CENTIMETER", r"2500 µm/px"),  # px per µm
        (365_000, "CENTIMETER", r"0\.0274 µm/px"),  # HEST's, ten times too small
    ],
)
@pytest.mark.parametrize("any_scale", [True, False])
def test_a_resolution_tag_that_is_none(tmp_path, across, unit, said, any_scale):
    entry = Entry("a", write(tmp_path / "a.tif", across, unit))
    record = extract_slide(entry, tmp_path, Settings("rays", "jpeg", 0, None, any_scale))
    assert record["outcome"] == "failed"
    for part in (said, "openslide.mpp-x", "resolution tag", "--mpp", "`mpp` column"):
        assert re.search(part, record["reason"]), record["reason"]
    assert "--any-scale" not in record["reason"]


@pytest.mark.parametrize("mpp", [40, 20.0, 352.8, 0.0274, 0.04, 2.01, 1e-9, float("nan")])
def test_a_scale_given_by_mistake(tmp_path, mpp):
    entry = Entry("a", write(tmp_path / "a.tif", 40_000), mpp=mpp)
    record = extract_slide(entry, tmp_path, ANY)
    assert record["outcome"] == "failed"
    assert f"at {mpp:.4g} µm/px, and no microscope is" in record["reason"]
    assert "as given by --mpp or the `mpp` column" in record["reason"]


@pytest.mark.parametrize("mpp", ["40", "0.0274", "nan", "-0.25", "0", "inf"])
def test_a_flag_by_mistake_is_refused_at_once(painted, tmp_path, mpp, capsys):
    message = rf"with --mpp {float(mpp):g} slides would be at .* 40X is --mpp 0\.25"
    assert main([str(painted), "--out", str(tmp_path / "o"), f"--mpp={mpp}"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


def test_a_columns_mistake_fails_its_slide_alone(run_stage, painted, tmp_path):
    path = tmp_path / "slides.csv"
    path.write_text(f"path,mpp\n{painted}/PAINTED-0001.tiff,40\n{painted}/PAINTED-0002.tiff,\n")
    done = run_stage("extract/main.py", path, "--out", tmp_path / "o", "--workers", 1)
    assert done.returncode == 1
    assert "1 slide done, 0 skipped, 1 failed" in done.stdout
    assert "at 40 µm/px, and no microscope is" in done.stdout
    assert [e.mpp for e in list_slides(path)] == [40, None]


@pytest.mark.parametrize(
    "properties",
    [
        {"openslide.objective-power": "1000"},
        {"openslide.objective-power": "0.5"},
        {"aperio.MPP": "250"},
        {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.2"},
        {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"},
        {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.2553"},
    ],
)
def test_properties_that_cannot_be(properties):
    with pytest.raises(ValueError, match=r"x\.svs .*µm/px.*--mpp or in an `mpp` column"):
        scale(Path("x.svs"), properties)


@pytest.mark.parametrize("mpp", [0.05, 0.1213, 0.25, 0.499, 1.0, 2.0])
def test_what_microscopes_have_is_taken(mpp):
    assert check_mpp(mpp, "a slide") == mpp
    near = {"openslide.mpp-x": str(mpp), "openslide.mpp-y": str(mpp * 1.015)}
    assert scale(Path("x.svs"), near) == (mpp, "openslide.mpp-x")


def test_pixels_that_are_not_square(tmp_path):
    path = write(tmp_path / "a.tif", 40_000, down=20_000)
    with pytest.raises(ValueError, match=r"0\.25 µm/px across .* but 0\.5 down"):
        Slide(path)
    assert Slide(path, 0.25).mpp == 0.25  # said so: taken as square


@pytest.mark.parametrize("mpp", ["40", "0.0274", "2.5", "-1", "0"])
def test_a_benchmarks_column(tmp_path, mpp):
    write(tmp_path / "a.tif", 40_000)
    (tmp_path / "cells.csv").write_text(f"image,x,y,label,mpp\na.tif,99,99,t,{mpp}\n")
    with pytest.raises(ValueError, match=r"a\.tif \(by the mpp column of cells.csv\) would be at"):
        find_benchmark(tmp_path)


@pytest.mark.parametrize(
    ("across", "down", "message"),
    [
        (72, None, r"by its own word\) would be at 138\.9 µm/px.*give the true one in the mpp"),
        (365_000, None, r"would be at 0\.0274 µm/px"),
        (40_000, 30_000, r"0\.25 µm/px across .* but 0\.3333 down.*give the true one in a column"),
    ],
)
def test_a_benchmarks_own_slide(tmp_path, across, down, message):
    write(tmp_path / "a.tif", across, down=down)
    (tmp_path / "cells.csv").write_text("image,x,y,label\na.tif,99,99,t\n")
    with pytest.raises(ValueError, match=message):
        find_benchmark(tmp_path)


@pytest.mark.parametrize("mpp", [40, 0.01, float("nan")])
def test_publishers_rules(tmp_path, mpp):
    with pytest.raises(ValueError, match=r"images would be at .*give another --mpp"):
        Rule(mpp, "60", "box", 40)
    (tmp_path / "metadata").mkdir()
    facts = tmp_path / "metadata/TENX1.json"
    facts.write_text(json.dumps({"pixel_size_um_estimated": mpp, "patient": "P"}))
    with pytest.raises(ValueError, match=r"TENX1 \(by pixel_size_um_estimated\) would be at"):
        _facts(tmp_path, "TENX1", None)


@pytest.mark.parametrize("mpp", [40, 352.8, 0.0274, 0.0, float("nan")])
def test_no_window_is_cut_at_such_a_scale(mpp):
    with pytest.raises(ValueError, match="no microscope is"):
        cut(np.zeros((100, 100, 3), np.uint8), [[50, 50]], mpp, 40, fill=255)
