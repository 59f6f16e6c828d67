"""Every writer of a command's result on a disk that fills up: a sentence, and nothing half."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.prepared import save as prepare
from evaluate.classes.classifier import Classifier
from evaluate.classes.classifier import save as save_classifier
from evaluate.report.report import write_report
from evaluate.results import store
from evaluate.shard_embeddings import embed_shards
from evaluate.slides.extraction import find, open_nuclei
from evaluate.slides.outputs import write_file
from extract.contact_sheet import write_sheet
from extract.status import survey, write_status
from shards.errors import NoRoom
from shards.mix.mix import mix
from shards.selection import select

WIDE = 3000


class Wide:
    """An encoder of many features."""

    name = "wide"
    components, cached, input_px = None, True, 40

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.random.default_rng(0).random((len(crops), WIDE), np.float32)

    def blocks(self, width: int) -> tuple[int, ...]:
        return (width,)

    def manifest(self) -> dict:
        return {"name": self.name, "kind": "wide"}


def slide(ending: str) -> Callable:
    def write(disk: Path, cells: Path, shards: Path) -> None:
        if ending == ".zarr":
            pytest.importorskip("spatialdata", reason="the extra `spatialdata` is not installed")
        nuclei = open_nuclei(cells, find(cells, "PAINTED-0001"))
        embeddings = Wide().embed(np.empty((len(nuclei), 1)))
        write_file(disk / f"my{ending}", Wide(), nuclei, embeddings)

    return write


def prepared(disk: Path, cells: Path, shards: Path) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (60, 40, 40, 3), np.uint8)
    prepare([Benchmark("n", crops, np.array(["a", "b"] * 30), ("a", "b"), np.full(60, "i"))], disk)


def classifier(disk: Path, cells: Path, shards: Path) -> None:
    one = np.ones((2, 20_000))
    save_classifier(Classifier("c", ("a", "b"), one, one, one, one, 1.0, {}), disk / "mine")


def report(disk: Path, cells: Path, shards: Path) -> None:
    sheets = cells.parent / "results" / "sheets"
    sheets.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    Image.fromarray(noise).save(sheets / "s.png")
    write_report(sheets.parent, disk / "report.html")


def results(disk: Path, cells: Path, shards: Path) -> None:
    row = {"split": "stratified", "fold": 0, "metric": "balanced accuracy", "value": 0.5}
    store(disk, "b", {"nuclei": 1}, "e", {}, [row] * 2000)


def status(disk: Path, cells: Path, shards: Path) -> None:
    rows = survey(cells, None)
    write_status([row | {"reason": f"{i} " * 99} for row in rows for i in range(400)], disk)


def contact_sheet(disk: Path, cells: Path, shards: Path) -> None:
    write_sheet(cells, disk, 2)


def shuffled(disk: Path, cells: Path, shards: Path) -> None:
    mix(cells, disk / "shards", samples_per_shard=50, seed=0)


def selected(disk: Path, cells: Path, shards: Path) -> None:
    with open(disk / "others", "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    select(cells, disk / "selection.parquet", 200)


def embedded(disk: Path, cells: Path, shards: Path) -> None:
    embed_shards(Wide(), shards, disk)


WRITERS = {
    "slide.h5ad": slide(".h5ad"),
    "slide.parquet": slide(".parquet"),
    "slide.geojson": slide(".geojson"),
    "slide.zarr": slide(".zarr"),
    "prepare": prepared,
    "fit": classifier,
    "report": report,
    "probe": results,
    "status": status,
    "sheet": contact_sheet,
    "mix": shuffled,
    "select": selected,
    "embed": embedded,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half(cells, shards_folder, small_disk, name):
    said = r"^no room in \S+ for .+: .*run the same command again"
    with small_disk(120_000) as disk:
        (disk / "others").write_bytes(bytes(70_000))
        with pytest.raises(NoRoom, match=said):
            WRITERS[name](disk, cells, shards_folder)
        left = [p for p in disk.rglob("*") if p.is_file() and p.name != "others"]
        assert not [p for p in left if p.name.endswith((".tmp", ".h5ad", ".geojson", ".html"))]
        assert all(p.stat().st_size for p in left if p.suffix != ".lock"), left
