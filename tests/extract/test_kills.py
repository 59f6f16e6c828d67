"""Faults: kills at any moment, two runs at once, full disks, slides that vanish or are damaged."""

import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from demo.paint import paint, write_slide
from extract.cohort import extract_cohort
from extract.job import extract_slide
from extract.ledger import Settings, read_outcome
from extract.slide import Slide
from extract.slides import Entry, list_slides
from extract.status import survey
from shards.crop import decode

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings("rays", "jpeg", seed=0, cells_per_slide=None, any_scale=False)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Three tiny painted slides."""
    folder = tmp_path_factory.mktemp("cohort")
    for number in range(3):
        rgb, _ = paint(224, 192, number)
        write_slide(folder / f"S{number}.tiff", rgb, 0.25)
    return folder


def start(slides: Path, out: Path, *flags: object, **options) -> subprocess.Popen:
    """Begin an extraction as a user would, in a process group of its own."""
    command = [sys.executable, ROOT / "extract/main.py", slides, "--out", out, *flags]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


def content(cells: Path) -> dict[str, str]:
    """Return the digest of every tar and table."""
    files = [*cells.glob("*.tar"), *cells.glob("*.parquet")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


@pytest.fixture(scope="module")
def undisturbed(cohort, tmp_path_factory) -> tuple[dict[str, str], float]:
    """The digests of a run that nothing disturbs, and its seconds."""
    out, began = tmp_path_factory.mktemp("undisturbed"), time.perf_counter()
    process = start(cohort, out, "--workers", 2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return content(out), time.perf_counter() - began


def kill_and_rerun(cohort: Path, undisturbed: tuple, folder: Path, kills: int) -> None:
    """Kill runs at random moments until there were so many, each rerun going on from the last."""
    expected, seconds = undisturbed
    rng, killed, rounds = random.Random(kills), 0, 0
    while killed < kills:
        out, ended = folder / str(rounds), False
        while not ended:
            process = start(cohort, out, "--workers", 2)
            try:
                # As if there were no limit once there were kills enough.
                process.wait(rng.uniform(0, seconds) if killed < kills else None)
                ended = True
                assert process.returncode == 0, process.stdout.read()
            except subprocess.TimeoutExpired:
                # The whole group as SLURM does, or the main process alone.
                target = os.killpg if rng.random() < 0.5 else os.kill
                target(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                if out.is_dir():
                    listed = list_slides(cohort)
                    states = {row["outcome"] for row in survey(out, listed, digests=True)}
                    assert states <= {"done", "missing"}  # nothing looks finished and is not
            process.stdout.close()
        assert content(out) == expected
        rounds += 1


def test_five_kills_leave_what_an_undisturbed_run_leaves(cohort, undisturbed, tmp_path):
    kill_and_rerun(cohort, undisturbed, tmp_path, kills=5)


@pytest.mark.soak
def test_fifty_kills_leave_what_an_undisturbed_run_leaves(cohort, undisturbed, tmp_path):
    kill_and_rerun(cohort, undisturbed, tmp_path, kills=50)


def test_two_runs_of_the_same_part_do_no_harm(cohort, undisturbed, tmp_path):
    runs = [start(cohort, tmp_path, "--workers", 1) for _ in range(2)]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    assert content(tmp_path) == undisturbed[0]
    assert not list(tmp_path.glob(".*"))


def test_what_killed_runs_left_behind_is_swept_when_it_is_old(cohort, tmp_path):
    names = (".S1.tar.0a1b.tmp", ".S2.parquet.0a1b.tmp", ".other.tmp")
    for name in names:
        (tmp_path / name).write_text("torn")
    os.utime(tmp_path / names[0], (0, 0))
    os.utime(tmp_path / names[2], (0, 0))
    extract_cohort(list_slides(cohort)[:1], tmp_path, SETTINGS, workers=1)
    assert sorted(path.name for path in tmp_path.glob(".*")) == sorted(names[1:])


def test_numerical_libraries_get_one_thread_a_slide(cohort, tmp_path):
    """Where nobody asked for another number; what a slide starts itself is not held to it."""
    free = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    process = start(cohort, tmp_path, env=free)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    settings = b""
    while b"OMP_NUM_THREADS" not in settings and process.poll() is None:
        try:
            for child in children.read_text().split():
                settings += Path(f"/proc/{child}/environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    for name in (b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"MKL_NUM_THREADS"):
        assert name + b"=1\0" in settings


# ---- disks and folders ---------------------------------------------------------------------------


def test_not_even_an_outcome_fits_on_the_disk(cohort, tmp_path):
    def tiny_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    process = start(cohort, tmp_path, preexec_fn=tiny_files)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is the disk full?" in output and "0 slides done, 0 skipped, 3 failed" in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_named(run_stage, cohort, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below", Path("/proc/lemon")):
        done = run_stage("extract/main.py", cohort, "--out", out)
        assert done.returncode == 2, done.stderr
        assert f"error: --out {out} cannot be made" in done.stderr


# ---- slides that break ---------------------------------------------------------------------------


def test_a_slide_that_vanishes_or_shrinks_is_a_failure_with_its_reason(cohort, tmp_path):
    for name in ("gone", "partial"):
        shutil.copy(cohort / "S0.tiff", tmp_path / f"{name}.tiff")
    entries = list_slides(tmp_path)
    (tmp_path / "gone.tiff").unlink()
    (tmp_path / "partial.tiff").rename(tmp_path / "partial.tiff.partial")
    gone, partial = extract_cohort(entries, tmp_path / "cells", SETTINGS, workers=1)
    assert gone["outcome"] == partial["outcome"] == "failed"
    assert "gone.tiff (any more)" in gone["reason"]
    assert "its download did not end; run gdc-client again" in partial["reason"]

    rgb, _ = paint(1024, 768, 1)
    write_slide(tmp_path / "shrinks.tiff", rgb, 0.25)
    slide = Slide(tmp_path / "shrinks.tiff")
    os.truncate(tmp_path / "shrinks.tiff", 50_000)
    with pytest.raises(ValueError, match="tiles cannot be read, more than a tenth of the slide"):
        slide.read(0, 0, 1024, 768)


def test_a_truncated_real_scan_is_a_failure_with_its_reason(data, tmp_path):
    whole = next((data / "tcga-mini/slides").glob("*.svs")).read_bytes()
    for share in (0.1, 0.5, 0.9):
        path = tmp_path / f"cut{share * 10:.0f}.svs"
        path.write_bytes(whole[: int(share * len(whole))])
        record = extract_slide(Entry(path.stem, path), tmp_path, SETTINGS)
        assert record["outcome"] == "failed"
        assert path.name in record["reason"]


@pytest.mark.parametrize("fast", [True, False])
def test_nuclei_on_a_damaged_tile_are_unreadable_never_white(fast, tmp_path, monkeypatch):
    rgb, _ = paint(1024, 1024, 5)
    path = tmp_path / "S.tiff"
    write_slide(path, rgb, 0.25)
    with tifffile.TiffFile(path) as tiff:  # the tile in the second row and column
        offset, size = (tiff.pages[0].tags[t].value[5] for t in ("TileOffsets", "TileByteCounts"))
    with open(path, "r+b") as file:
        file.seek(offset + size // 2)
        file.write(bytes(size - size // 2))
    if not fast:
        monkeypatch.setattr(Slide, "_checked_tiles", lambda self: None)
    assert Slide(path).fast == fast
    record = extract_slide(Entry("S", path), tmp_path, SETTINGS)
    assert record["outcome"] == "done", record["reason"]
    assert [list(box) for box in record["damaged"]] == [[256, 256, 512, 512]]
    assert record["fates"]["unreadable"] > 0
    rows = pq.read_table(tmp_path / "S.parquet").to_pylist()
    data = (tmp_path / "S.tar").read_bytes()
    for row in rows:
        apart = max(abs(row["x"] - 383.5), abs(row["y"] - 383.5)) - 128
        if row["fate"] == "unreadable":
            assert apart < 32 and row["offset"] is None and row["eosin_mean"] is None
        if row["fate"] == "kept":
            assert apart > 28
            crop = decode(data[row["offset"] : row["offset"] + row["size"]])
            x, y = (int(np.ceil(row[axis] - 30)) for axis in "xy")
            assert np.abs(crop.astype(int) - rgb[y : y + 60, x : x + 60]).mean() < 12
    [row] = survey(tmp_path, None)
    assert row["outcome"] == "done" and row["damaged_tiles"] == 1
    assert read_outcome(tmp_path, "S") == record | {"damaged": [[256, 256, 512, 512]]}
