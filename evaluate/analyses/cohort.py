"""The embedded cells of a cohort, opened in parts, read in blocks; and their crops."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.embeddings import read_manifest

BLOCK = 8192  # rows in memory at once


@dataclass(frozen=True, eq=False)
class Part:
    """Embeddings of some of a cohort's cells."""

    path: Path  # of the array
    embeddings: np.ndarray  # (N, D), mapped
    slides: pa.Array  # (N,) str
    nuclei: np.ndarray  # (N,) int


def open_parts(folder: Path, cells: Path | None) -> list[Part]:
    """Open an encoder's embeddings: of shards, by their keys; of slides, by the cells' tables.

    Args:
        folder: `<results>/embeddings/<encoder>`.
        cells: the folder of cells that the slides' embeddings are of; None: take those of shards.

    Raises:
        FileNotFoundError: no such folder, or no embeddings of cells in it.
        ValueError: an array is not that of its cells, or two differ in width or encoder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--in {folder}: no such folder; `embed`, `slide`, `apply` make it")
    parts, seen = [], None
    for path in sorted(folder.glob("*.npy")):
        manifest = read_manifest(path)
        if manifest is None:
            continue
        keys = path.with_suffix(".keys.parquet")
        if cells is None and "shards" in manifest and keys.is_file():
            table = pq.read_table(keys, columns=["slide", "nucleus"])
        elif cells is not None and "slide" in manifest:
            own = cells / f"{manifest['slide']}.parquet"
            if not own.is_file():
                raise FileNotFoundError(f"{path} is of a slide that {cells} does not hold")
            table = pq.read_table(own, columns=["nucleus"], filters=[("fate", "=", "kept")])
            table = table.append_column("slide", pa.array([manifest["slide"]] * len(table)))
        else:
            continue
        embeddings = np.load(path, mmap_mode="r")
        if len(embeddings) != len(table):
            raise ValueError(f"{path}: {len(embeddings)} embeddings of {len(table)} cells")
        kind = (embeddings.shape[1], manifest["encoder"])
        if seen is not None and kind != seen:
            raise ValueError(f"{path} is of another encoder than the arrays beside it")
        seen = kind
        slides = table["slide"].combine_chunks().cast(pa.string())
        parts.append(Part(path, embeddings, slides, table["nucleus"].to_numpy()))
    if not parts:
        what = f"slides of {cells}" if cells else "shards"
        raise FileNotFoundError(f"--in {folder} holds no embeddings of {what}")
    return parts


def block(part: Part, first: int) -> np.ndarray:
    """Read a part's embeddings from a row on, (at most BLOCK, D) float64."""
    return np.asarray(part.embeddings[first : first + BLOCK], np.float64)


def starts(part: Part) -> range:
    """Return the first row of each block of a part."""
    return range(0, len(part.embeddings), BLOCK)


def blocks(part: Part) -> Iterator[tuple[int, np.ndarray]]:
    """Yield a part's blocks, each with the number of its first row."""
    for first in starts(part):
        yield first, block(part, first)


def scaling(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features' mean, and what standardises them, over all parts, in two passes."""
    count = sum(len(part.embeddings) for part in parts)
    mean = sum(block.sum(axis=0) for part in parts for _, block in blocks(part)) / count
    squares = sum(
        np.square(block - mean).sum(axis=0) for part in parts for _, block in blocks(part)
    )
    sd = np.sqrt(squares / count)
    return np.asarray(mean), np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0)


def crops_of(keys: list[tuple[str, int]], cells: Path | None, shards: Path | None) -> np.ndarray:
    """Return the crops of some cells, (N, 40, 40, 3) uint8.

    Args:
        keys: (slide, nucleus) of each.
        cells: the folder to read them from; None: the shards.
        shards: likewise.

    Raises:
        ValueError: a cell is not there.
    """
    from evaluate.slides.extraction import find, open_nuclei
    from shards.read import Shards
    from shards.schema import VIEW_PX

    crops = []
    if cells:
        opened = {slide: open_nuclei(cells, find(cells, slide))
                  for slide in dict.fromkeys(slide for slide, _ in keys)}  # fmt: skip
        for slide, nucleus in keys:
            rows = np.flatnonzero(opened[slide].table["nucleus"].to_numpy() == nucleus)
            crops.append(opened[slide].crops(rows, VIEW_PX)[0])
        return np.stack(crops)
    assert shards  # argparse: one of the two
    mixed = Shards(shards)
    numbers = mixed.index["nucleus"].to_numpy()
    for slide, nucleus in keys:
        rows = np.flatnonzero(numbers == nucleus)
        rows = [r for r in rows.tolist() if mixed.index["slide"][r].as_py() == slide]
        if not rows:
            raise ValueError(f"{shards} holds no cell {slide}:{nucleus}")
        crops.append(mixed.read(np.array(rows[:1]))[0].transpose(1, 2, 0))
    stack = np.stack(crops)
    margin = (stack.shape[1] - VIEW_PX) // 2
    return stack[:, margin : margin + VIEW_PX, margin : margin + VIEW_PX]
