"""The extract stage on whole slides: every nucleus accounted for, and bad slides survived."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import openslide
import pyarrow.parquet as pq
import pytest
import shapely
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from demo.paint import paint, write_slide
from extract import tiles
from extract.cohort import extract_cohort
from extract.ledger import Settings
from extract.morphology import DENSITY_COLUMNS
from extract.segment import rays
from extract.slide import Slide, not_40x
from extract.slides import list_slides
from shards.crop import cut, decode, inside
from shards.schema import CELL_COLUMNS, CROP_PX, FATES

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings("rays", "png", seed=0, cells_per_slide=None, any_scale=False)


def table(cells: Path, slide: str) -> dict[str, np.ndarray]:
    """Return a slide's table as arrays."""
    return {
        k: np.array(v) for k, v in pq.read_table(cells / f"{slide}.parquet").to_pydict().items()
    }


def record(cells: Path, slide: str) -> dict:
    return json.loads((cells / f"{slide}.json").read_text())


def matched(a: np.ndarray, b: np.ndarray, radius: float) -> int:
    """Return how many points of a and b pair off within a radius, one to one."""
    distance = cdist(a, b)
    rows, columns = linear_sum_assignment(np.where(distance <= radius, distance, 1e6))
    return int((distance[rows, columns] <= radius).sum())


# ---- one slide -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact(painted, tmp_path_factory) -> Path:
    """The painted slides' cells with lossless crops."""
    out = tmp_path_factory.mktemp("exact")
    records = extract_cohort(list_slides(painted / "slides.csv"), out, SETTINGS, workers=2)
    assert [r["outcome"] for r in records] == ["done", "done"]
    return out


def test_every_nucleus_is_accounted_for(exact):
    for path in exact.glob("*.json"):
        facts, rows = json.loads(path.read_text()), pq.read_table(path.with_suffix(".parquet"))
        assert rows.schema.equals(CELL_COLUMNS)
        assert facts["detected"] == sum(facts["fates"].values()) == len(rows) > 50
        assert list(facts["fates"]) == list(FATES)
        rows = {k: np.array(v) for k, v in rows.to_pydict().items()}
        for fate in FATES:
            assert (rows["fate"] == fate).sum() == facts["fates"][fate]
        with tarfile.open(path.with_suffix(".tar")) as tar:
            assert len(tar.getnames()) == facts["fates"]["kept"]
        assert np.array_equal(rows["nucleus"], np.arange(len(rows["x"])))


def test_stain_and_colour_are_measured(exact):
    for path in exact.glob("*.parquet"):
        rows, facts = table(exact, path.stem), pq.read_schema(path).metadata[b"lemon"]
        stain = json.loads(facts)["stain"]
        assert np.shape(stain["matrix"]) == (2, 3) and len(stain["max_concentration"]) == 2
        lightness, red, blue = stain["lab_mean"]
        assert 40 < lightness < 90 and red > 5 and blue < 5  # pink to purple
        assert len(stain["lab_sd"]) == 3 and min(stain["lab_sd"]) > 0
        kept = rows["fate"] == "kept"
        density = np.stack([rows[name] for name in DENSITY_COLUMNS], 1).astype(float)
        assert np.isfinite(density[kept]).all()
        assert density[kept, 0].mean() > density[kept, 2].mean()  # nuclei are blue
        assert all(value is None for value in rows["eosin_sd"][rows["fate"] == "edge"])


def test_crops_are_the_slides_pixels(exact, painted):
    for path in exact.glob("*.tar"):
        rows, raw = table(exact, path.stem), path.read_bytes()
        slide = openslide.OpenSlide(painted / f"{path.stem}.tiff")
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
        kept = np.flatnonzero(rows["fate"] == "kept")
        for i in kept:
            data = raw[int(rows["offset"][i]) : int(rows["offset"][i] + rows["size"][i])]
            expected = cut(image, [[rows["x"][i], rows["y"][i]]], 0.25, CROP_PX)[0]
            assert np.array_equal(decode(data), expected)


def test_edge_means_the_window_leaves_the_slide(exact):
    for path in exact.glob("*.parquet"):
        rows = table(exact, path.stem)
        within = inside(np.stack([rows["x"], rows["y"]], 1), 640, 512, 0.25, CROP_PX)
        assert not within[rows["fate"] == "edge"].any()
        assert within[rows["fate"] == "kept"].all()
        centres = shapely.get_coordinates(shapely.centroid(shapely.from_wkb(rows["polygon"])))
        assert np.allclose(centres, np.stack([rows["x"], rows["y"]], 1), atol=0.01)


def test_painted_nuclei_are_found(exact, painted):
    truth = np.genfromtxt(
        painted / "truth.csv", delimiter=",", names=True, dtype=None, encoding="utf8"
    )
    for path in exact.glob("*.parquet"):
        rows = table(exact, path.stem)
        found = np.stack([rows["x"], rows["y"]], 1)[rows["fate"] != "duplicate"]
        there = truth[truth["slide_id"] == path.stem]
        hits = matched(found, np.stack([there["x"], there["y"]], 1), 12)
        assert 2 * hits / (len(found) + len(there)) > 0.85


def test_bytes_are_a_function_of_slide_and_settings(exact, painted, tmp_path):
    extract_cohort(list_slides(painted), tmp_path, SETTINGS, workers=1)
    for path in exact.iterdir():
        if path.suffix == ".tar":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()
        elif path.suffix == ".parquet":
            assert pq.read_table(tmp_path / path.name).equals(pq.read_table(path))


def test_no_nucleus_is_cut_or_counted_twice_at_a_seam(painted, monkeypatch):
    """Cells from tiles of 160 px agree with those from one tile that holds the whole slide."""
    slide = Slide(painted / "PAINTED-0001.tiff")
    whole, _ = tiles.segment_by_tiles(slide, rays.segment, 0)
    monkeypatch.setattr(tiles, "CORE_PX", 160)
    tiled, _ = tiles.segment_by_tiles(slide, rays.segment, 0)
    assert tiled.duplicate.any()  # the seams run through nuclei
    a = shapely.get_coordinates(shapely.centroid(whole.polygons))
    b = shapely.get_coordinates(shapely.centroid(tiled.polygons[~tiled.duplicate]))
    assert matched(a, b, 4) >= 0.97 * max(len(a), len(b))
    kept = tiled.polygons[~tiled.duplicate]
    tree = shapely.STRtree(kept)
    i, j = tree.query(kept, predicate="intersects")
    i, j = i[i < j], j[i < j]
    shared = shapely.area(shapely.intersection(kept[i], kept[j]))
    assert (shared <= 0.5 * np.minimum(shapely.area(kept[i]), shapely.area(kept[j]))).all()


def test_another_scale_gives_the_same_crops_resampled(tmp_path):
    """A slide of 0.2125 µm/px: the same tissue, the same nuclei, crops of the same width in µm."""
    import cv2

    rgb, _ = paint(512, 512, 5)
    size = round(512 * 0.25 / 0.2125)
    fine = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_CUBIC)
    write_slide(tmp_path / "coarse.tiff", rgb, 0.25)
    write_slide(tmp_path / "fine.tiff", fine, 512 * 0.25 / size)
    extract_cohort(list_slides(tmp_path), tmp_path / "cells", SETTINGS, workers=2)
    coarse, fine = (table(tmp_path / "cells", s) for s in ("coarse", "fine"))
    ratio = size / 512
    a = np.stack([coarse["x"], coarse["y"]], 1)
    b = (np.stack([fine["x"], fine["y"]], 1) + 0.5) / ratio - 0.5
    assert matched(a, b, 4) > 0.9 * max(len(a), len(b))
    nearest = cdist(a, b).argmin(1)
    close = cdist(a, b).min(1) < 1
    area = coarse["area_um2"][close] / fine["area_um2"][nearest[close]]
    assert abs(np.median(area) - 1) < 0.05


# ---- bad slides ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ward(painted, tmp_path_factory) -> Path:
    """A folder with one good slide among bad ones."""
    folder = tmp_path_factory.mktemp("ward")
    shutil.copy(painted / "PAINTED-0001.tiff", folder / "good.tiff")
    (folder / "text.svs").write_text("no slide")
    whole = (painted / "PAINTED-0001.tiff").read_bytes()
    (folder / "truncated.tiff").write_bytes(whole[: len(whole) // 2])
    write_slide(folder / "blank.tiff", np.full((600, 600, 3), 244, np.uint8), 0.25)
    rgb, _ = paint(512, 512, 4)
    write_slide(folder / "twenty.tiff", rgb, 0.5)
    import tifffile

    tifffile.imwrite(
        folder / "scaleless.tiff", rgb, tile=(256, 256), photometric="rgb", metadata=None
    )
    return folder


def test_one_bad_slide_is_recorded_and_the_rest_goes_on(run_stage, ward, tmp_path):
    out = tmp_path / "cells"
    done = run_stage("extract/main.py", ward, "--out", out)
    assert done.returncode == 1
    outcomes = {p.stem: record(out, p.stem) for p in out.glob("*.json")}
    assert {k: v["outcome"] for k, v in outcomes.items()} == {
        "good": "done",
        "blank": "done",
        "text": "failed",
        "truncated": "failed",
        "twenty": "skipped",
        "scaleless": "failed",
    }
    assert outcomes["blank"]["detected"] == 0
    assert "OpenSlide" in outcomes["text"]["reason"]
    assert "not 40X: 0.5 µm/px" in outcomes["twenty"]["reason"]
    assert "add an `mpp` column" in outcomes["scaleless"]["reason"]
    for slide in ("text", "truncated", "twenty", "scaleless"):
        assert outcomes[slide]["reason"] in done.stdout
        assert not (out / f"{slide}.tar").exists()
        assert not (out / f"{slide}.parquet").exists()
    assert "2 slides done, 1 skipped, 3 failed" in done.stdout
    assert not list(out.glob(".*"))

    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    again = run_stage("extract/main.py", ward, "--out", out, "--mpp", 0.25)
    assert again.returncode == 2  # the good slides were extracted at their own scale
    assert "extracted with other settings (mpp None is now 0.25)" in again.stderr
    shutil.copy(ward / "good.tiff", ward / "text.svs")  # repaired
    again = run_stage("extract/main.py", ward, "--out", out)
    assert record(out, "text")["outcome"] == "done"
    after = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert all(
        after[n] == t for n, t in before.items() if n.split(".")[0] in ("good", "blank", "twenty")
    )


def test_20x_slides_are_taken_on_request(ward, tmp_path):
    settings = Settings("rays", "jpeg", 0, None, any_scale=True)
    entries = [e for e in list_slides(ward) if e.slide == "twenty"]
    facts = extract_cohort(entries, tmp_path, settings, workers=1)[0]
    assert facts["outcome"] == "done"
    assert facts["fates"]["kept"] > 20


def test_the_real_20x_scan(data):
    slide = Slide(data / "slides/CMU-1-Small-Region.svs")
    assert slide.mpp == 0.499
    assert "outside 0.2–0.3" in not_40x(slide)


def test_a_child_that_is_killed_is_a_failure_and_a_rerun_mends_it(painted, tmp_path):
    command = [sys.executable, ROOT / "extract/main.py", painted / "slides.csv", "--out", tmp_path]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)

    def children(pid: int) -> list[int]:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def alike(one: int, other: int) -> bool:  # forked, not one of the programs that imports start
        try:
            lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (one, other)]
        except FileNotFoundError:
            return False
        return lines[0] == lines[1]

    slides: list[int] = []
    while not slides and process.poll() is None:  # the server's children each work on a slide
        pairs = [(c, server) for server in children(process.pid) for c in children(server)]
        forked = [pair for pair in pairs if alike(*pair)]
        time.sleep(0.05)  # a program about to be started looks like the server for an instant
        slides = [pair[0] for pair in forked if alike(*pair)]
    os.kill(slides[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "killed by signal 9" in output
    assert sorted(record(tmp_path, f"PAINTED-000{n}")["outcome"] for n in (1, 2)) == [
        "done",
        "failed",
    ]
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert again.returncode == 0


def test_a_full_disk_is_a_failure_with_its_reason(run_stage, painted, tmp_path):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    done = run_stage("extract/main.py", painted, "--out", tmp_path, preexec_fn=small_files)
    assert done.returncode == 1
    assert "file too large; the limit" in record(tmp_path, "PAINTED-0001")["reason"]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".json"]


def test_parts_share_out_the_list(run_stage, painted, tmp_path):
    for part in (0, 1):
        done = run_stage(
            "extract/main.py", painted, "--out", tmp_path, "--part", part, "--parts", 2
        )
        assert done.returncode == 0
        assert len(list(tmp_path.glob("*.tar"))) == part + 1


def test_tcga_mini_is_extracted(run_stage, data, tmp_path):
    """Three real fields of the quick start: done, with hundreds of cells each."""
    lines = (data / "tcga-mini/slides.csv").read_text().splitlines()
    rows = [f"{p[0]},{data}/tcga-mini/{p[1]},{p[2]}" for p in (r.split(",") for r in lines[1:4])]
    (tmp_path / "three.csv").write_text("\n".join([lines[0], *rows]))
    done = run_stage("extract/main.py", tmp_path / "three.csv", "--out", tmp_path / "cells")
    assert done.returncode == 0
    for path in (tmp_path / "cells").glob("*.json"):
        assert json.loads(path.read_text())["fates"]["kept"] > 150


def test_a_clone_runs_its_own_code_where_another_is_installed(painted, tmp_path):
    clone = tmp_path / "clone"
    for stage in ("extract", "shards"):
        shutil.copytree(ROOT / stage, clone / stage, ignore=shutil.ignore_patterns("__pycache__"))
    rays = clone / "extract" / "segment" / "rays.py"
    rays.write_text(re.sub(r'VERSION = ".*"', 'VERSION = "of the clone"', rays.read_text()))
    words = ["--out", tmp_path / "cells", "--workers", "1", "--segmenter", "rays"]
    command = [sys.executable, clone / "extract/main.py", painted / "PAINTED-0001.tiff", *words]
    subprocess.run(list(map(str, command)), check=True, cwd=tmp_path, capture_output=True)
    record = json.loads((tmp_path / "cells" / "PAINTED-0001.json").read_text())
    assert record["segmentation"]["version"] == "of the clone"
