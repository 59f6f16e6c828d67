"""What the tests share: real data where it is present, and tiny painted slides, cells, shards."""

import csv
import os
import socket
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

from tests.fork_server import Forks

ROOT = Path(__file__).resolve().parents[1]

# The machine's cores are shared by ranks and workers; a test never needs more than one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hypothesis.settings.register_profile("lemon", deadline=None, max_examples=60, derandomize=True)
hypothesis.settings.load_profile("lemon")


# The files that take longest, which begin first: so no worker waits long for another at the end.
LONGEST = """
    test_runs test_kills test_hoverfast test_memory test_dino_runs test_plan test_trainer
    test_slides test_composition test_slide_command test_resnet test_lists test_network
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; each file's tests stay in their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


# What the stages import that takes long. That they import it themselves, and no more than they
# need, is seen of true processes: in test_house, test_extras, test_kills and under torchrun.
IMPORTS = """
    numpy cv2 PIL.Image pyarrow.parquet pyarrow.compute pyarrow.csv shapely orjson tqdm openslide
    tifffile imagecodecs simplejpeg pydicom scipy.ndimage scipy.spatial scipy.optimize
    skimage.segmentation sklearn.mixture
""".split()
TORCH = "torch timm torch.utils.data torch.utils.flop_counter safetensors.torch".split()
TORCH += "matplotlib.figure scipy.stats sklearn.metrics sklearn.model_selection".split()


@pytest.fixture(scope="session")
def forks() -> Iterator[dict[str, Forks]]:
    """By stage: the server that starts its commands quickly."""
    plain, torch = Forks(*IMPORTS), Forks(*IMPORTS, *TORCH)
    yield {"extract": plain, "shards": plain, "train": torch, "evaluate": torch}
    plain.close()
    torch.close()


@pytest.fixture(scope="session")
def run_stage(forks):
    """Run a stage's command as a user would: run_stage("shards/main.py", "mix", …)."""

    def run(script: str, *arguments: object, **options) -> subprocess.CompletedProcess:
        words = [str(ROOT / script), *map(str, arguments)]
        server = forks.get(script.split("/")[0])
        if server and not options:
            return server.start(words).wait()
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)

    return run


@pytest.fixture(scope="session")
def run_ranks(forks):
    """Train on so many ranks as under torchrun: run_ranks("--data", …, ranks=2).

    None is stopped when another fails, as torchrun would: they are to end by themselves.
    """

    def run(*arguments: object, ranks: int = 1) -> subprocess.CompletedProcess:
        words = [str(ROOT / "train/main.py"), *map(str, arguments)]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        place = sizes | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        begun = [
            forks["train"].start(words, **place, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(ranks)
        ]
        ended = [process.wait() for process in begun]
        code = next((done.returncode for done in ended if done.returncode), 0)
        said = ("".join(getattr(done, name) for done in ended) for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(words, code, *said)

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
