"""What the tests share: real data where it is present, and tiny painted slides, cells, shards."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

# The machine's cores are shared by ranks and workers; a test never needs more than one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile("lemon", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("lemon")


@pytest.fixture(scope="session")
def run_stage():
    """Run a stage's command as a user would: run_stage("shards/main.py", "mix", …)."""

    def run(script: str, *arguments: object, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **options)

    return run


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real H&E data beside the clone."""
    path = Path(os.environ.get("LEMON_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set LEMON_TEST_DATA)")
    return path


@pytest.fixture(scope="module")
def alone():
    """A process group of one, for what speaks to all ranks."""
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def painted(tmp_path_factory) -> Path:
    """A folder of two small painted slides: slides.csv, truth.csv, PAINTED-000{1,2}.tiff."""
    from demo.paint import paint, write_slide

    folder = tmp_path_factory.mktemp("painted")
    with open(folder / "slides.csv", "w") as slides, open(folder / "truth.csv", "w") as truth:
        rows, nuclei_rows = csv.writer(slides), csv.writer(truth)
        rows.writerow(["slide_id", "path", "project"])
        nuclei_rows.writerow(["slide_id", "x", "y", "kind"])
        for number in (1, 2):
            name = f"PAINTED-{number:04d}"
            rgb, nuclei = paint(640, 512, number)
            write_slide(folder / f"{name}.tiff", rgb, 0.25)
            rows.writerow([name, f"{name}.tiff", f"PAINT-{number}"])
            for n in nuclei:
                nuclei_rows.writerow([name, n["x"], n["y"], n["kind"]])
    return folder


@pytest.fixture(scope="session")
def cells(run_stage, painted, tmp_path_factory) -> Path:
    """What extract makes of the painted slides."""
    out = tmp_path_factory.mktemp("cells")
    words = ["--out", out, "--segmenter", "rays"]  # without torch, whose import takes seconds
    done = run_stage("extract/main.py", painted / "slides.csv", *words)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def shards_folder(run_stage, cells, tmp_path_factory) -> Path:
    """The painted slides' cells, mixed into shards of 50."""
    out = tmp_path_factory.mktemp("shards")
    done = run_stage("shards/main.py", "mix", cells, "--out", out, "--samples-per-shard", 50)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of so many bytes: `with small_disk(n) as folder`; skipped in words."""

    @contextmanager
    def mount(size: int) -> Iterator[Path]:
        folder = tmp_path / "full"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)

    return mount


HOSTILE = "<script>alert('x')</script>"  # a label that must never run


def field(seed: int, side: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint 36 nuclei of two kinds on pink: pixels, (36, 2) centres, (36,) kinds."""
    rng = np.random.default_rng(seed)
    image = rng.normal((225, 170, 205), 8, (side, side, 3)).clip(0, 255).astype(np.uint8)
    y, x = np.divmod(np.arange(36), 6)
    xy = np.stack([x, y], 1) * 60 + 50
    kinds = np.where(rng.random(36) < 0.5, "round", HOSTILE)
    for (x, y), kind in zip(xy.tolist(), kinds, strict=True):
        axes = (9, 9) if kind == "round" else (16, 6)
        colour = (90 + int(rng.integers(30)), 60, 140)
        cv2.ellipse(image, (x, y), axes, float(rng.integers(180)), 0, 360, colour, -1)
    return cv2.GaussianBlur(image, (0, 0), 1), xy, kinds


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Path:
    """A user's folder: six PNG of 36 nuclei, one nucleus at a border, one row without a label."""
    path = tmp_path_factory.mktemp("data") / "own"
    path.mkdir()
    lines = ["image,x,y,label,group,mpp"]
    for i in range(6):
        image, xy, kinds = field(i)
        Image.fromarray(image).save(path / f"{i}.png")
        lines += [
            f"{i}.png,{x},{y},{kind},g{i},0.25" for (x, y), kind in zip(xy, kinds, strict=True)
        ]
    lines += ["0.png,5,100,round,g0,0.25", "0.png,100,100,,g0,0.25"]
    (path / "cells.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def benchmark(own):
    """The user's folder as a benchmark."""
    from evaluate.benchmarks.find import find_benchmark

    return find_benchmark(own)
