"""A prepared benchmark: crops and labels in files that open at once, for the online probe too."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.numpy_file import open_array
from shards.filetype import check_file
from shards.json_file import read_versioned
from shards.schema import MPP
from shards.write import atomic

LAYOUT = "crops.npy, cells.parquet (label, group), benchmark.json, by `evaluate/main.py prepare`"
FORMAT = 1
AGAIN = "prepare it again"


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "crops.npy").is_file() and (path / "benchmark.json").is_file()


def load(path: Path, view_px: int | None = None) -> list[Benchmark]:
    """Open what `save` wrote: one benchmark, or those of several tasks on the same nuclei.

    Args:
        view_px: side of a window, px at 0.25 µm/px, cut from the middle of the stored ones;
            None: as it was prepared.

    Raises:
        ValueError: another format, files of two benchmarks, or crops smaller than the window.
    """
    facts = _facts(path)
    crops = open_array(path / "crops.npy", (None, None, None, 3), mapped=True)
    check_file(path / "cells.parquet")
    try:
        columns = pq.read_table(path / "cells.parquet").to_pydict()
        table = {name: np.array(column, np.str_) for name, column in columns.items()}
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path / 'cells.parquet'} does not open: {error}; {AGAIN}") from error
    wanted = {"label", "group", *facts["origins"], *(task["column"] for task in facts["tasks"])}
    if absent := sorted(wanted - set(table)):
        raise ValueError(f"{path / 'cells.parquet'} has no column {absent[0]!r}; {AGAIN}")
    targets = None
    if facts["targets"]:
        targets = open_array(path / "targets.npy", (None, len(facts["targets"])))
    lengths = {len(crops), len(table["label"]), facts["nuclei"]}
    if len(lengths) > 1 or (targets is not None and len(targets) != len(crops)):
        raise ValueError(
            f"{path}: {len(crops)} crops, {len(table['label'])} labels, {facts['nuclei']} nuclei "
            f"by benchmark.json; {AGAIN}"
        )
    view_px = view_px or crops.shape[1]
    margin = (crops.shape[1] - view_px) // 2
    if margin < 0:
        raise ValueError(f"{path} holds crops of {crops.shape[1]} px; {view_px} are needed")
    view = slice(margin, margin + view_px)
    tasks = facts["tasks"]
    whole = Benchmark(
        name=facts["name"],
        crops=np.ascontiguousarray(crops[:, view, view]),
        labels=np.full(len(crops), "", np.str_) if tasks else table["label"],
        classes=() if tasks else tuple(facts["classes"]),
        groups=table["group"],
        group_kind=facts["group_kind"],
        positive=None if tasks else facts["positive"],
        notes=tuple(facts["notes"]),
        batch_variables={kind: table[kind] for kind in facts["origins"]},
        targets=targets,
        target_names=tuple(facts["targets"]),
        left_out=facts["left_out"],
        twins=table["twin"].astype(np.int64) if "twin" in table else None,
    )
    return [
        whole.task(task["name"], table[task["column"]], tuple(task["classes"]), task["positive"])
        for task in tasks
    ] or [whole]


def _facts(path: Path) -> dict:
    """Return benchmark.json, with what an earlier version left out as empty."""
    needed = ("name", "nuclei", "classes", "positive", "group_kind", "notes")
    what = "a prepared benchmark"
    facts = read_versioned(path / "benchmark.json", what, FORMAT, needed, AGAIN)
    return {"tasks": [], "origins": [], "targets": [], "left_out": {}} | facts


def save(tasks: list[Benchmark], folder: Path) -> None:
    """Write a benchmark's files, each atomically, `benchmark.json` last.

    `crops.npy` (N, P, P, 3) uint8; `cells.parquet` with `label`, `group`, a column per batch
    variable; of several tasks also a column `label_<task>` each, where `label` is the first task's;
    where a nucleus stands there several times, `twin`, equal for its rows; and `targets.npy` (N, T)
    float32 where there are targets.

    Args:
        tasks: one benchmark, or several that share `part_of`.
    """
    first = tasks[0]
    whole = first.part_of or first
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark.json").unlink(missing_ok=True)  # it says that the others are whole
    with atomic(folder / "crops.npy") as file:
        np.save(file, whole.crops)
    if whole.targets is not None:
        with atomic(folder / "targets.npy") as file:
            np.save(file, whole.targets)
    columns = {"label": _spread(first), "group": whole.groups, **whole.batch_variables}
    if whole.twins is not None:
        columns["twin"] = whole.twins.astype(np.str_)
    described = []
    for task in tasks if first.part_of else []:
        name = task.name.removeprefix(f"{whole.name}-")
        columns[f"label_{name}"] = _spread(task)
        described.append({"name": name, "column": f"label_{name}", **_classes(task)})
    with atomic(folder / "cells.parquet") as file:
        table = {name: pa.array(column.tolist(), pa.string()) for name, column in columns.items()}
        pq.write_table(pa.table(table), file)
    facts = {
        "format": FORMAT,
        "name": whole.name,
        "nuclei": len(whole),
        "crop_px": whole.crops.shape[1],
        "mpp": MPP,
        **_classes(first),
        "tasks": described,
        "group_kind": whole.group_kind,
        "origins": list(whole.batch_variables),
        "targets": whole.target_names,
        "notes": whole.notes,
        "left_out": dict(whole.left_out),
    }
    with atomic(folder / "benchmark.json", "w") as file:
        json.dump(facts, file, indent=1)


def _classes(task: Benchmark) -> dict:
    return {"classes": task.classes, "counts": task.counts(), "positive": task.positive}


def _spread(task: Benchmark) -> np.ndarray:
    """Return a task's labels for all nuclei, '' for those that are none of its own."""
    if task.part_of is None:
        return task.labels
    labels = np.full(len(task.part_of), "", task.labels.dtype)
    labels[task.rows] = task.labels
    return labels
