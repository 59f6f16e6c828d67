"""Crops sampled from `cells/` or `shards/`: what an encoder learns from, without a benchmark."""

import re
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from shards.crop import decode
from shards.mix import kept_cells
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
    slides, table = kept_cells(Path(path))
    rows = _choose(len(table), count, seed)
    chosen = table.take(rows).to_pydict()
    crops = []
    for number, slide in enumerate(slides):  # rows ascend, so slides come one after another
        with open(Path(path) / f"{slide['slide']}.tar", "rb") as file:
            for row in np.flatnonzero(np.array(chosen["slide_number"]) == number):
                file.seek(chosen["source_offset"][row])
                crops.append(decode(file.read(chosen["size"][row])))
    labels = [label or "" for label in chosen["label"]]
    projects = [slides[number]["project"] or "" for number in chosen["slide_number"]]
    note = f"{len(rows):,} of {len(table):,} kept nuclei of {len(slides)} slides, chosen at random"
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
