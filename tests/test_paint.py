"""The painter: pictures that are the same each time, open as slides, and whose truth is true."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import openslide
import pytest
from scipy.spatial import cKDTree

from demo.nucleus import KINDS
from demo.paint import paint, write_slide
from demo.stain import PROJECTS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def painted():
    """Two fields of 1024 px, one of each project."""
    return [paint(1024, 1024, seed) for seed in (0, 1)]


def run(*arguments) -> subprocess.CompletedProcess:
    """Run the command from a folder that is not the clone."""
    command = [sys.executable, str(ROOT / "demo" / "main.py"), *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True)


def read(path: Path) -> list[dict]:
    """Read a CSV file's rows."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_same_seed_same_bytes(tmp_path):
    for name in ("a", "b"):
        rgb, nuclei = paint(300, 260, 7)
        assert rgb.shape == (260, 300, 3)
        assert rgb.dtype == np.uint8
        write_slide(tmp_path / f"{name}.tiff", rgb)
        nuclei.tofile(tmp_path / name)
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert not np.array_equal(paint(300, 260, 8)[0], rgb)


def test_openslide_reads_what_was_painted(tmp_path):
    rgb, _ = paint(700, 512, 3)
    write_slide(tmp_path / "s.tiff", rgb, mpp=0.25)
    assert [p.name for p in tmp_path.iterdir()] == ["s.tiff"]
    with openslide.OpenSlide(tmp_path / "s.tiff") as slide:
        assert slide.dimensions == (700, 512)
        assert slide.level_count > 1
        assert slide.level_downsamples[1] == pytest.approx(4, abs=0.01)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)
        back = np.asarray(slide.read_region((0, 0), 0, (700, 512)).convert("RGB"), np.int16)
    assert np.abs(back - rgb).mean() < 4  # grey levels: JPEG of a noisy picture
    assert abs((back - rgb).mean()) < 0.5


def test_small_slides_hold_all_kinds():
    for seed in range(4):
        _, nuclei = paint(256, 256, seed)
        assert set(nuclei["kind"].tolist()) == set(KINDS)


def test_kinds_and_density(painted):
    counts = Counter()
    for _, nuclei in painted:
        counts.update(nuclei["kind"].tolist())
        assert 300 < len(nuclei) / 1.024**2 < 560  # per 1000 x 1000 px
    assert set(counts) == set(KINDS)
    assert min(counts.values()) >= 0.1 * counts.total()


def test_nuclei_lie_apart_in_the_image(painted):
    for rgb, nuclei in painted:
        height, width = rgb.shape[:2]
        assert (nuclei["x"] >= 0).all()
        assert (nuclei["x"] <= width - 1).all()
        assert (nuclei["y"] >= 0).all()
        assert (nuclei["y"] <= height - 1).all()
        xy = np.stack([nuclei["x"], nuclei["y"]], 1)
        pairs = cKDTree(xy).query_pairs(60, output_type="ndarray")
        gap = np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)
        minor = nuclei["minor"][pairs]
        assert (gap > 0.8 * minor.sum(1)).all()
        assert gap.min() > 8


def test_nuclei_are_where_the_truth_says(painted):
    for rgb, nuclei in painted:
        grey = rgb.mean(2)
        column, row = np.round(nuclei["x"]).astype(int), np.round(nuclei["y"]).astype(int)
        at = np.array(
            [
                grey[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3].mean()
                for r, c in zip(row, column, strict=True)
            ]
        )
        assert np.median(at) < np.median(grey) - 35
        assert (at < np.median(grey)).mean() > 0.97
        for kind in KINDS:  # to the pixel: shifted by half a nucleus, the picture is lighter there
            own = nuclei["kind"] == kind
            shifted = np.roll(grey, 12, (0, 1))[row[own], column[own]]
            assert at[own].mean() < shifted.mean() - 10


def test_slides_of_normal_size_have_a_border():
    rgb, nuclei = paint(1600, 1500, 5)
    glass = (rgb.min(2) > 215).mean()
    assert 0.05 < glass < 0.4
    assert len(nuclei) > 500


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="128 or more"):
        paint(64, 512, 0)
    with pytest.raises(ValueError, match="known are PAINT-A"):
        paint(256, 256, 0, project="PAINT-Z")


def test_command_writes_slides_truth_and_benchmark(tmp_path):
    out = tmp_path / "out"
    options = ("--out", out, "--slides", 2, "--held-out", 1, "--size", 256)
    first = run(*options)
    assert first.returncode == 0, first.stderr
    slides, truth = read(out / "slides.csv"), read(out / "truth.csv")
    cells = read(out / "painted-nuclei" / "cells.csv")
    assert [s["slide_id"] for s in slides] == ["PAINTED-0001", "PAINTED-0002"]
    assert {s["project"] for s in slides} == set(PROJECTS)
    for slide in slides:
        with openslide.OpenSlide(out / slide["path"]) as opened:
            assert opened.dimensions == (256, 256)
    assert {t["slide_id"] for t in truth} == {"PAINTED-0001", "PAINTED-0002", "HELDOUT-0001"}
    assert {t["kind"] for t in truth} == set(KINDS)
    assert list(cells[0]) == ["image", "x", "y", "label", "group"]
    held_out = {(t["x"], t["y"], t["kind"]) for t in truth if t["slide_id"] == "HELDOUT-0001"}
    assert 0 < len(cells) < len(held_out)
    for cell in cells:
        assert (out / "painted-nuclei" / cell["image"]).is_file()
        assert cell["group"] == "HELDOUT-0001"
        assert (cell["x"], cell["y"], cell["label"]) in held_out
        assert 29 <= float(cell["x"]) <= 226
        assert 29 <= float(cell["y"]) <= 226

    # A rerun paints nothing anew, a lost file alone is painted again, and all is as it was.
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in out.rglob("*.tiff")}
    lost = out / "slides" / "PAINTED-0002.tiff"
    lost.unlink()
    assert run(*options).returncode == 0
    for path, (stamp, data) in before.items():
        assert path.read_bytes() == data
        assert (path.stat().st_mtime_ns == stamp) == (path != lost)
    assert read(out / "truth.csv") == truth

    other = run(*options[:-1], 320)
    assert other.returncode == 2
    assert "painted with {'size': 256, 'seed': 0}" in other.stderr
    assert run("--out", out, "--slides", 0).returncode == 2
