"""Links that lead nowhere or in a circle, in the place of any file that is read: said as links."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluate.benchmarks.find import find_benchmarks
from evaluate.encoders import check_encoders
from extract.segment.nuclei_file import open_nuclei
from extract.slides import list_slides
from shards.errors import explain
from shards.exclusion import excluded
from shards.mix.mix import mix
from shards.read import Shards
from shards.text import read_bytes
from shards.verify import verify
from shards.weights import read_state
from train.checkpoint import load


def mixed(folder: Path) -> object:
    return mix(folder / "cells", folder / "out", 50, 0)


def labelled(folder: Path) -> object:
    (folder / "own").mkdir(exist_ok=True)
    (folder / "own" / "cells.csv").write_text("image,x,y,label,mpp\n../a.png,9,9,a,0.25\n")
    return find_benchmarks(folder / "own")


READ = {  # a file, and what reads it
    "slides.csv": lambda folder: list_slides(folder / "slides.csv"),
    "a.svs": lambda folder: list_slides(folder / "a.svs"),
    "a.png": labelled,
    "nuclei.geojson": lambda folder: open_nuclei(folder / "nuclei.geojson"),
    "weights.pth": lambda folder: read_state(folder / "weights.pth"),
    "step-0000001.pt": lambda folder: load(folder / "step-0000001.pt"),
    "exclude.txt": lambda folder: read_bytes(folder / "exclude.txt"),
    "cells/PAINTED-0001.json": mixed,
    "cells/PAINTED-0001.tar": mixed,
    "cells/PAINTED-0001.parquet": mixed,
    "shards/train-000001.tar": lambda folder: Shards(folder / "shards"),
}


@pytest.fixture
def folder(tmp_path, cells, shards_folder):
    shutil.copytree(cells, tmp_path / "cells")
    shutil.copytree(shards_folder, tmp_path / "shards")
    return tmp_path


@pytest.mark.parametrize("to", ["/nowhere/else", "itself"])
@pytest.mark.parametrize("name", READ)
def test_a_dead_link_is_said(folder, name, to):
    path = folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(path.name if to == "itself" else to)
    with pytest.raises((ValueError, OSError)) as error:
        READ[name](folder)
    said = explain(error.value)
    assert path.name in said
    assert f"a link to {os.readlink(path)} that is not there (is its disk mounted?)" in said


def test_a_dead_link_among_shards_is_a_fault(folder):
    path = folder / "shards" / "train-000001.tar"
    path.unlink()
    path.symlink_to("/nowhere/T.tar")
    (said,) = verify(folder / "shards")
    assert said.endswith(
        "missing, a link to /nowhere/T.tar that is not there (is its disk mounted?)"
    )


def test_what_is_linked_is_read(folder, tmp_path):
    """Files on other disks, folders within themselves: the same samples."""
    before = Shards(folder / "shards").read(np.arange(60))
    away = folder / "away"
    away.mkdir()
    for path in [*(folder / "shards").iterdir(), *(folder / "cells").iterdir()]:
        path.rename(away / path.name)
        path.symlink_to(away / path.name)
    for name in ("shards", "cells"):
        (folder / name / "again").symlink_to(".")
        (folder / f"{name}-link").symlink_to(name)
    shards = Shards(folder / "shards-link")
    assert np.array_equal(shards.read(np.arange(60)), before)
    assert not list(verify(folder / "shards-link"))
    (folder / "out").mkdir()
    (folder / "out-link").symlink_to("out")
    mix(folder / "cells-link", folder / "out-link", 50, 0)
    again = Shards(folder / "out")
    assert [s["sha256"] for s in again.info["shards"]] == [
        s["sha256"] for s in shards.info["shards"]
    ]


@pytest.mark.parametrize("name", ["cells", "shards", "run"])
def test_a_folder_that_is_a_circle_is_an_error(tmp_path, name):
    (tmp_path / name).symlink_to(name)
    reads: dict[str, Callable] = {
        "cells": lambda p: mix(p, tmp_path / "out", 50, 0),
        "shards": Shards,
        "run": lambda p: check_encoders([str(p)]),
    }
    with pytest.raises(FileNotFoundError, match=r"no folder|no encoder"):
        reads[name](tmp_path / name)
    with pytest.raises(FileNotFoundError):
        excluded(tmp_path / name / "list.txt", tmp_path, ["a"])
