"""OCELOT (Ryu et al. 2023): fields of six organs, points on cells, tumour or not.

Tested on small folders in the publisher's layout only.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import listed
from evaluate.benchmarks.fields import Field, build
from shards.filetype import check_file
from shards.folder import visible
from shards.scale import check_mpp, check_square
from shards.text import read_text

LAYOUT = "metadata.json, images/*/cell/*.jpg, annotations/*/cell/*.csv"
CLASSES = ("tumor", "other")
NUMBERS: dict[float, str] = {1: "other", 2: "tumor"}  # 1 is the publisher's background cell


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return bool(_tables(path))


def load(path: Path, view_px: int = 40, mpp: float | None = None) -> list[Benchmark]:
    """Cut every cell whose window lies in its field; groups are the slides.

    The publisher's centre is a point, of a cell, not of its nucleus' outline. Its split is not
    used, as the protocol is cross-validation.

    Args:
        mpp: of all fields, µm/px; None: each one's `resized_mpp_x`.

    Raises:
        FileNotFoundError: metadata.json, or a field's image, is not there.
        ValueError: a file does not open, a class is unknown, a field is not in metadata.json, or
            cells lie outside their field.
    """
    notes: list[str] = []
    fields = _read(path, mpp, notes)
    kinds = ("slide", "field", "organ", "subset")
    whole, labels = build("ocelot", "cell/*.csv", fields, view_px, kinds, notes, Counter())
    return [replace(whole, labels=labels, classes=CLASSES, positive="tumor")]


def _read(path: Path, mpp: float | None, notes: list[str]) -> Iterator[Field]:
    facts, empty = _facts(path), []
    for table in _tables(path):
        if table.stem not in facts:
            raise ValueError(f"{table}: {path}/metadata.json knows no sample {table.stem!r}")
        try:
            about = facts[table.stem]
            cell = about["cell"]
            across, down = float(cell["resized_mpp_x"]), float(cell["resized_mpp_y"])
            batch_variables = {"slide": about["slide_name"], "organ": about["organ"]}
            if not batch_variables["slide"]:  # null: the folds need to know
                raise KeyError("slide_name")
            batch_variables = {kind: str(word or "") for kind, word in batch_variables.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}/metadata.json: sample {table.stem} lacks {error}") from error
        if mpp is None:
            check_mpp(across, f"sample {table.stem}", "give --mpp")
            check_square(across, down, f"sample {table.stem}", "give --mpp")
        xy, labels = _points(table)
        if not len(xy):
            empty.append(table.stem)
        subset = table.parent.parent.name
        image = path / "images" / subset / "cell" / f"{table.stem}.jpg"
        yield Field(
            table.stem, image, xy, labels, mpp or across, {**batch_variables, "subset": subset}
        )
    if empty:
        notes.append(f"{len(empty)} fields without a cell: {listed(empty)}")


def _points(table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of a table without a header, x,y,class: (N, 2) px, (N,) str."""
    text = read_text(table) if table.stat().st_size else ""  # a field without a cell
    xy, labels = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            x, y, kind = map(float, line.split(","))
            if not (math.isfinite(x) and math.isfinite(y)):
                raise ValueError(f"no place: {x}, {y}")
            labels.append(NUMBERS[kind])
            xy.append((x, y))
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{table}, line {number}: {line[:40]!r} is no x,y,class with the class 1 or 2"
            ) from error
    return np.array(xy, float).reshape(-1, 2), np.array(labels, np.str_)


def _facts(path: Path) -> dict:
    file = path / "metadata.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; it says each field's slide and scale")
    check_file(file)
    try:
        return dict(json.loads(file.read_text(encoding="utf-8-sig"))["sample_pairs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no JSON with sample_pairs: {error!r}") from error


def _tables(path: Path) -> list[Path]:
    return visible(path.glob("annotations/*/cell/*.csv"))
