"""A prepared benchmark: crops and labels in files that open at once, for the online probe too."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.benchmark import Benchmark
from shards.schema import MPP
from shards.write import atomic

LAYOUT = "crops.npy, cells.parquet (label, group), benchmark.json, by `evaluate/main.py prepare`"
FORMAT = 1


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "crops.npy").is_file() and (path / "benchmark.json").is_file()


def load(path: Path, view_px: int = 40) -> Benchmark:
    """Open what `save` wrote.

    Args:
        path: the folder.
        view_px: side of a window, px at 0.25 µm/px; cut from the middle of the stored ones.

    Raises:
        ValueError: another format, files of two benchmarks, or crops smaller than the window.
    """
    facts = json.loads((path / "benchmark.json").read_text())
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"{path} is a prepared benchmark of format {facts.get('format')}; this code reads "
            f"{FORMAT}: prepare it again"
        )
    crops = np.load(path / "crops.npy", mmap_mode="r")
    table = pq.read_table(path / "cells.parquet")
    if len(crops) != len(table) or len(crops) != facts["nuclei"]:
        raise ValueError(
            f"{path}: {len(crops)} crops, {len(table)} labels, {facts['nuclei']} nuclei by "
            "benchmark.json; prepare it again"
        )
    margin = (crops.shape[1] - view_px) // 2
    if margin < 0:
        raise ValueError(f"{path} holds crops of {crops.shape[1]} px; {view_px} are needed")
    view = slice(margin, margin + view_px)
    return Benchmark(
        facts["name"],
        np.ascontiguousarray(crops[:, view, view]),
        np.array(table["label"].to_pylist()),
        tuple(facts["classes"]),
        np.array(table["group"].to_pylist()),
        facts["group_kind"],
        facts["positive"],
        tuple(facts["notes"]),
    )


def save(benchmark: Benchmark, folder: Path) -> None:
    """Write a benchmark's three files, each atomically, `benchmark.json` last.

    Args:
        benchmark: with crops of any side at 0.25 µm/px.
        folder: made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "crops.npy") as file:
        np.save(file, benchmark.crops)
    columns = {"label": benchmark.labels.tolist(), "group": benchmark.groups.tolist()}
    with atomic(folder / "cells.parquet") as file:
        pq.write_table(pa.table(columns), file)
    facts = {
        "format": FORMAT,
        "name": benchmark.name,
        "nuclei": len(benchmark),
        "crop_px": benchmark.crops.shape[1],
        "mpp": MPP,
        "classes": benchmark.classes,
        "counts": benchmark.counts(),
        "group_kind": benchmark.group_kind,
        "positive": benchmark.positive,
        "notes": benchmark.notes,
    }
    with atomic(folder / "benchmark.json", "w") as file:
        json.dump(facts, file, indent=1)
