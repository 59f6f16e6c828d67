"""Pictures and embeddings on a disk that fills up: a sentence, and nothing half written."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluate.benchmark import Benchmark
from evaluate.embeddings import embed
from evaluate.maps.map import draw
from evaluate.report.class_sheet import save_sheet
from shards.errors import NoRoom
from train.plot import plot
from train.view_sheet import write_sheet

N = 60


class Wide:
    """An encoder of many features."""

    name, components, cached, input_px = "wide", None, True, None

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return np.ones((len(crops), 5000), np.float32)

    def manifest(self) -> dict:
        return {"kind": "wide"}


def nuclei() -> Benchmark:
    crops = np.random.default_rng(0).integers(0, 256, (N, 40, 40, 3), np.uint8)
    return Benchmark("n", crops, np.array(["a", "b"] * (N // 2)), ("a", "b"), np.full(N, "i"))


def curves(disk: Path, shards: Path) -> None:
    run = shards.parent / "run"
    run.mkdir(exist_ok=True)
    logged = ("loss", "accuracy", "probe", "rank", "lr", "momentum", "images_per_s", "spread")
    lines = [json.dumps({"step": n} | dict.fromkeys(logged, 1 / n)) for n in range(1, 40)]
    (run / "log.jsonl").write_text("\n".join([*lines, '{"step": 4']))  # cut by a kill
    plot([run], disk / "curves.png")


def views(disk: Path, shards: Path) -> None:
    write_sheet(str(shards), ["light"], 8, 4, 0, disk / "views.png")


def cell_map(disk: Path, shards: Path) -> None:
    draw(np.random.default_rng(0).random((N, 2)), nuclei(), "title", disk / "map.png")


def contact_sheet(disk: Path, shards: Path) -> None:
    save_sheet(nuclei(), disk / "sheet.png")


def embeddings(disk: Path, shards: Path) -> None:
    embed(Wide(), nuclei(), disk)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (curves, "curves.png"),
        (views, "views.png"),
        (cell_map, "map.png"),
        (contact_sheet, "sheet.png"),
        (embeddings, "n.npy.part"),
    ],
)
def test_a_full_disk_is_a_sentence_for_every_picture(shards_folder, small_disk, write, name):
    said = rf"no room in \S* for {name}: .*run the same command again"
    with small_disk(50_000) as disk:
        (disk / "kept").write_bytes(bytes(20_000))
        with pytest.raises(NoRoom, match=said):
            write(disk, shards_folder)
        assert not list(disk.rglob("*.png"))
        assert (disk / "kept").stat().st_size == 20_000


def test_a_picture_is_written_as_its_name_says(shards_folder, tmp_path):
    write_sheet(str(shards_folder), ["light"], 2, 2, 0, tmp_path / "views.jpg")
    assert (tmp_path / "views.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"no image is written as '\.docx'; name a \.png"):
        write_sheet(str(shards_folder), ["light"], 2, 2, 0, tmp_path / "views.docx")
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    plot([run], tmp_path / "curves.svg")
    assert b"<svg" in (tmp_path / "curves.svg").read_bytes()
    with pytest.raises(ValueError, match="docx"):
        plot([run], tmp_path / "curves.docx")
    (run / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"st\n{"step": 2, "loss": 1}\n')
    with pytest.raises(ValueError, match=r"log.jsonl, line 2 is damaged"):
        plot([run], tmp_path / "curves.png")
