"""Crops sampled from `cells/` or `shards/`: what an encoder learns from, without a benchmark."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluate.benchmark import Benchmark
from shards.cells import kept_cells
from shards.crop import decode
from shards.read import Shards


@dataclass(frozen=True, eq=False)
class Sample(Benchmark):
    """Cells out of slides (`batch_variables["slide"]`), their numbers and places in them."""

    nuclei: np.ndarray = field(default_factory=lambda: np.empty(0, int))  # (N,) int
    xy: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))  # (N, 2) level-0 px

    def take(self, rows: np.ndarray) -> "Sample":
        """Return the nuclei of the given rows, (M,) integers."""
        taken = super().take(rows)
        assert isinstance(taken, Sample)
        return replace(taken, nuclei=self.nuclei[rows], xy=self.xy[rows])


def from_shards(
    path: str | Path, count: int, seed: int = 0, view_px: int = 40, slide: str | None = None
) -> Sample:
    """Sample crops of shards; groups are the projects, labels what the segmenter gave.

    Args:
        count: how many at most.
        view_px: side of the middle that is returned, px.

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: the shards are not whole, their crops are smaller than `view_px`, or they hold
            no cell of the slide.
    """
    shards = Shards(path)
    if slide is None:
        rows = _choose(len(shards), count, seed)
    else:
        slides = pq.read_table(shards.folder / "index.parquet", columns=["slide"])["slide"]
        rows = _of_slide(slides, slide, path)
        rows = rows[_choose(len(rows), count, seed)]
    index = shards.rows(rows, ["label", "project", "slide", "nucleus", "x", "y"])
    crops = shards.read(rows).transpose(0, 2, 3, 1)  # (N, 60, 60, 3)
    labels, projects, slides = (
        [value or "" for value in index[name].to_pylist()] for name in ("label", "project", "slide")
    )
    note = f"{len(rows):,} of {len(shards):,} crops, chosen at random"
    nuclei = index["nucleus"].to_numpy()
    xy = np.stack([index[axis].to_numpy() for axis in "xy"], axis=1)
    return _samples(path, crops, view_px, labels, projects, slides, nuclei, xy, note)


def from_cells(
    path: str | Path, count: int, seed: int = 0, view_px: int = 40, slide: str | None = None
) -> Sample:
    """Sample kept nuclei of a folder of cells; arguments and result as of `from_shards`.

    Raises:
        FileNotFoundError: no such folder, or no finished slide in it.
        ValueError: a crop is broken or smaller than `view_px`, or there is no cell of the slide.
    """
    slides, table = kept_cells(Path(path))
    names = pa.array([one["slide"] for one in slides])
    rows = _of_slide(names.take(table["slide_number"].combine_chunks()), slide, path)
    rows = rows[_choose(len(rows), count, seed)]
    chosen = table.take(rows).to_pydict()
    crops = []
    for number, known in enumerate(slides):  # rows ascend, so slides come one after another
        with open(Path(path) / f"{known['slide']}.tar", "rb") as file:
            for row in np.flatnonzero(np.array(chosen["slide_number"]) == number):
                file.seek(chosen["source_offset"][row])
                crops.append(decode(file.read(chosen["size"][row])))
    labels = [label or "" for label in chosen["label"]]
    projects = [slides[number]["project"] or "" for number in chosen["slide_number"]]
    of = [slides[number]["slide"] for number in chosen["slide_number"]]
    note = f"{len(rows):,} of {len(table):,} kept nuclei of {len(slides)} slides, chosen at random"
    nuclei = np.array(chosen["nucleus"])
    xy = np.stack([chosen[axis] for axis in "xy"], axis=1)
    return _samples(path, np.stack(crops), view_px, labels, projects, of, nuclei, xy, note)


def _of_slide(slides, slide: str | None, path: str | Path) -> np.ndarray:
    """Return the rows of a slide, or all."""
    if slide is None:
        return np.arange(len(slides))
    rows = np.flatnonzero(pc.call_function("equal", [slides, slide]).to_numpy(zero_copy_only=False))
    if not len(rows):
        known = slides.unique().to_pylist()
        raise ValueError(
            f"{path} holds no cell of slide {slide!r}, but of {', '.join(known[:5])} …"
        )
    return rows


def _choose(total: int, count: int, seed: int) -> np.ndarray:
    """Return the chosen rows in ascending order."""
    return np.sort(np.random.default_rng(seed).choice(total, min(total, count), replace=False))


def _samples(path, crops, view_px, labels, projects, slides, nuclei, xy, note) -> Sample:
    start = (crops.shape[1] - view_px) // 2
    if start < 0:
        raise ValueError(f"{path}: crops of {crops.shape[1]} px, smaller than {view_px}")
    whole = Path(path).resolve()
    return Sample(
        name=re.sub(r"[^\w+=@-]", "_", whole.name) or "samples",
        crops=np.ascontiguousarray(crops[:, start : start + view_px, start : start + view_px]),
        labels=np.array(labels, np.str_),
        classes=tuple(sorted(set(labels) - {""})),
        groups=np.array(projects, np.str_),
        group_kind="project",
        notes=(note,),
        batch_variables={
            "slide": np.array(slides, np.str_),
            "project": np.array(projects, np.str_),
        },
        nuclei=nuclei,
        xy=xy,
    )
