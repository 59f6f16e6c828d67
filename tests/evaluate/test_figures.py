"""The recipe of every table and figure: its commands are commands, and all of them run."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evaluate import main
from evaluate.report.figures import read_entries
from shards.command_line import read_command

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("probes", "stains", "batch", "molecules", "maps", "compute", "composition", "report")


def recipe(*parts: str, **settings: object) -> subprocess.CompletedProcess:
    words = {name: str(value) for name, value in settings.items()}
    return subprocess.run(
        ["bash", ROOT / "evaluate" / "figures.sh", *parts],
        env=os.environ | words,
        capture_output=True,
        text=True,
    )


def test_every_command_of_the_recipe_is_one(tmp_path):
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "python"  # writes down what it is told
    shim.write_text('#!/usr/bin/env bash\nprintf "%q " "$@" >>"$SAID"\necho >>"$SAID"\n')
    shim.chmod(0o755)
    said = tmp_path / "said"
    settings = {
        "RUN": "runs/first", "CELLS": "cells", "SHARDS": "shards", "BENCHMARKS": "a b",
        "OUT": tmp_path / "out", "SAID": said, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
    }  # fmt: skip
    (tmp_path / "out" / "composition").mkdir(parents=True)
    done = recipe(**settings)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line) for line in said.read_text().splitlines()]
    read = [read_command("", "", main.COMMANDS, words[1:]) for words in commands]
    assert {Path(words[0]).resolve() for words in commands} == {ROOT / "evaluate" / "main.py"}
    assert [name for name, _ in read] == [
        "probe", "table", "robustness", "robustness", *["batch"] * 3, *["molecules"] * 3,
        *["map"] * 3, "compute", "composition", "report",
    ]  # fmt: skip
    given = [(options.benchmark, options.cells) for name, options in read if name == "batch"]
    assert given == [("a", None), ("b", None), (None, "cells")]
    assert read[-1][1].beside == [tmp_path / "out" / "composition"]
    said.unlink()
    for part in PARTS:
        assert recipe(part, **settings).returncode == 0
    assert [shlex.split(line) for line in said.read_text().splitlines()] == commands
    assert recipe("nonsense", **settings).returncode == 2
    assert "a folder for results" in recipe(**settings | {"OUT": ""}).stderr


@pytest.mark.soak
def test_the_recipe_makes_every_exhibit(data, run_stage, tmp_path):
    """On nine of the TCGA fields and AMi-Br, with a few steps of training."""
    with open(data / "tcga-mini" / "slides.csv") as file:
        header, *rows = csv.reader(file)
    at = header.index("path")
    with open(tmp_path / "slides.csv", "w") as file:
        lines = [[str(data / "tcga-mini" / x) if i == at else x for i, x in enumerate(row)]
                 for row in rows[:9]]  # fmt: skip
        csv.writer(file).writerows([header, *lines])
    cells, shards, run = tmp_path / "cells", tmp_path / "shards", tmp_path / "runs" / "first"
    few = ["--encoder", "vit_ti8", "--policy", "light", "--batch", "16", "--epochs", "1"]
    few += ["--epoch-samples", "64", "--warmup-epochs", "0.1", "--hidden", "64", "--workers", "0"]
    for script, *words in (
        ("extract/main.py", tmp_path / "slides.csv", "--out", cells),
        ("shards/main.py", "mix", cells, "--out", shards),
        ("train/main.py", "--data", shards, "--out", run, *few),
    ):
        done = run_stage(script, *words)
        assert done.returncode == 0, done.stderr
    out = tmp_path / "results"
    settings = {
        "RUN": run, "CELLS": cells, "SHARDS": shards, "BENCHMARKS": data / "ami-br", "OUT": out,
        "POINTS": "1000", "TRAIN": " ".join(few), "GRID": "--sizes 100 200",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = recipe(**settings)
    assert done.returncode == 0, done.stderr
    found = {one.path.stem for one in read_entries(out)}
    assert {
        "robustness--ami-br", "robustness--cells", "robustness-probe--ami-br", "restained--cells",
        "batch--ami-br", "batch--cells", "moran--ami-br", "moran--cells", "compute",
        "expression--first--cells", "intervals--ami-br",
    } <= found  # fmt: skip
    assert {path.name for path in (out / "maps").iterdir()} == {
        f"first--{name}.{kind}" for name in ("ami-br", "cells") for kind in ("png", "html")
    }
    page = (out / "report.html").read_text()
    for section in ("Robustness to staining", "Batch effects", "Molecules", "Composition", "Maps"):
        assert f"<h2>{section}</h2>" in page, section
