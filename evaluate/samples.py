"""Crops sampled from `cells/` or `shards/`: what an encoder learns from, without a benchmark."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evaluate.benchmark import Benchmark
from shards.crop import decode
from shards.read import Shards


def from_shards(path: str | Path, count: int, seed: int = 0, view_px: int = 40) -> Benchmark:
    """Sample crops of shards; groups are the projects, labels what the segmenter gave.

    Args:
        path: a folder that shards/main.py wrote.
        count: how many at most.
        seed: of the choice.
        view_px: side of the middle that is returned, px.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: the shards are not whole, or their crops are smaller than `view_px`.
    """
    shards = Shards(path)
    rows = _choose(len(shards), count, seed)
    index = shards.index.take(rows)
    crops = shards.read(rows).transpose(0, 2, 3, 1)  # (N, 60, 60, 3)
    labels, projects = (
        [value or "" for value in index[name].to_pylist()] for name in ("label", "project")
    )
    note = f"{len(rows):,} of {len(shards):,} crops, chosen at random"
    return _samples(path, crops, view_px, labels, projects, note)


def from_cells(path: str | Path, count: int, seed: int = 0, view_px: int = 40) -> Benchmark:
    """Sample kept nuclei of a folder of cells; arguments and result as of `from_shards`.

    Raises:
        FileNotFoundError: no such folder, or no finished slide in it.
        ValueError: a crop is broken or smaller than `view_px`.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}; make it with `python extract/main.py`")
    tars, number, offset, size, label, project = [], [], [], [], [], []
    for mark in sorted(path.glob("*.json")):  # a slide without its .json is not finished
        if not mark.with_suffix(".parquet").is_file():
            continue  # skipped or failed, or another file
        table = pq.read_table(
            mark.with_suffix(".parquet"), columns=["offset", "size", "label", "fate"]
        )
        kept = np.array(table["fate"].to_pylist()) == "kept"
        table = table.filter(kept)
        metadata = json.loads(table.schema.metadata.get(b"lemon", b"{}"))
        number += [len(tars)] * len(table)
        tars.append(mark.with_suffix(".tar"))
        offset += table["offset"].to_pylist()
        size += table["size"].to_pylist()
        label += [value or "" for value in table["label"].to_pylist()]
        project += [metadata.get("project") or ""] * len(table)
    if not offset:
        raise FileNotFoundError(f"{path} holds no finished slide with crops")
    rows = _choose(len(offset), count, seed)
    crops = []
    for slide in sorted({number[row] for row in rows}):
        with open(tars[slide], "rb") as file:
            for row in (row for row in rows if number[row] == slide):
                file.seek(offset[row])
                crops.append(decode(file.read(size[row])))
    note = f"{len(rows):,} of {len(offset):,} kept nuclei of {len(tars)} slides, chosen at random"
    labels, projects = [label[row] for row in rows], [project[row] for row in rows]
    return _samples(path, np.stack(crops), view_px, labels, projects, note)


def _choose(total: int, count: int, seed: int) -> np.ndarray:
    """Return the chosen rows in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(total, min(total, count), replace=False))


def _samples(path, crops, view_px: int, labels: list, projects: list, note: str) -> Benchmark:
    start = (crops.shape[1] - view_px) // 2
    if start < 0:
        raise ValueError(f"{path}: crops of {crops.shape[1]} px, smaller than {view_px}")
    whole = Path(path).resolve()
    return Benchmark(
        name=re.sub(r"[^\w+=@-]", "_", whole.name) or "samples",
        crops=np.ascontiguousarray(crops[:, start : start + view_px, start : start + view_px]),
        labels=np.array(labels, np.str_),
        classes=tuple(sorted(set(labels) - {""})),
        groups=np.array(projects, np.str_),
        group_kind="project",
        notes=(note,),
    )
