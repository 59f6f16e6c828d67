"""The nearest cells of a cohort to given ones: exact, in blocks, in bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.embeddings import read_manifest
from shards.schema import SLIDE_ID

BLOCK = 8192  # rows in memory at once


@dataclass(frozen=True, eq=False)
class Part:
    """Embeddings of some of a cohort's cells."""

    path: Path  # of the array
    embeddings: np.ndarray  # (N, D), mapped
    slides: pa.Array  # (N,) str
    nuclei: np.ndarray  # (N,) int


@dataclass(frozen=True, eq=False)
class Near:
    """The cells nearest to one, the nearest first."""

    slides: list[str]
    nuclei: list[int]
    distances: list[float]  # Euclidean, of standardised embeddings, over the root of their width


def read_cell(word: str) -> tuple[str, int]:
    """Read SLIDE:NUCLEUS.

    Raises:
        ValueError: it is none.
    """
    slide, _, number = word.rpartition(":")
    if not SLIDE_ID.fullmatch(slide) or not number.isdigit():
        raise ValueError(f"--cell {word}: SLIDE:NUCLEUS, as in TCGA-AA-0001:42")
    return slide, int(number)


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


def similar(
    parts: list[Part], wanted: list[tuple[str, int]], k: int, other_slides: bool = False
) -> list[Near]:
    """Return the k nearest cells to each of some, itself left out.

    Distances are of features standardised over the cohort, summed in float32 of differences, so
    that no digits cancel.

    Args:
        parts: the cohort.
        wanted: (slide, nucleus) of each cell.
        k: how many.
        other_slides: leave the cell's own slide out, too: slides differ in stain.

    Raises:
        ValueError: a cell is not in the cohort, or has fewer than k others.
    """
    mean, scale = _scaling(parts)
    queries = np.stack([_find(parts, *cell) for cell in wanted])
    queries = ((queries - mean) * scale).astype(np.float32)
    best = np.full((len(wanted), k), np.inf, np.float32)
    where = np.full((len(wanted), k, 2), -1, np.int64)  # part, row
    for number, part in enumerate(parts):
        for first, block in _blocks(part):
            x = ((block - mean) * scale).astype(np.float32)
            last = first + len(block)
            nuclei = part.nuclei[first:last]
            slides = np.array(part.slides[first:last].to_pylist())
            for q, (slide, nucleus) in enumerate(wanted):
                distance = np.square(x - queries[q]).sum(axis=1)
                own = slides == slide
                distance[own if other_slides else own & (nuclei == nucleus)] = np.inf
                merged = np.concatenate([best[q], distance])
                chosen = np.argsort(merged, kind="stable")[:k]
                rows = np.stack([np.full(len(x), number), np.arange(first, last)], axis=1)
                best[q], where[q] = merged[chosen], np.concatenate([where[q], rows])[chosen]
    short = np.flatnonzero(~np.isfinite(best[:, -1]))
    if len(short):
        slide, nucleus = wanted[short[0]]
        raise ValueError(
            f"{slide}:{nucleus} has {int(np.isfinite(best[short[0]]).sum())} others here, not {k}"
        )
    width = len(mean)
    return [
        Near(
            [parts[p].slides[r].as_py() for p, r in rows.tolist()],
            [int(parts[p].nuclei[r]) for p, r in rows.tolist()],
            np.sqrt(squares / width).tolist(),
        )
        for rows, squares in zip(where, best, strict=True)
    ]


def _blocks(part: Part) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, len(part.embeddings), BLOCK):
        yield first, np.asarray(part.embeddings[first : first + BLOCK], np.float64)


def _scaling(parts: list[Part]) -> tuple[np.ndarray, np.ndarray]:
    """Return the features' mean, and what standardises them, over all parts, in two passes."""
    count = sum(len(part.embeddings) for part in parts)
    mean = sum(block.sum(axis=0) for part in parts for _, block in _blocks(part)) / count
    squares = sum(
        np.square(block - mean).sum(axis=0) for part in parts for _, block in _blocks(part)
    )
    sd = np.sqrt(squares / count)
    return np.asarray(mean), np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0)


def _find(parts: list[Part], slide: str, nucleus: int) -> np.ndarray:
    for part in parts:
        for row in np.flatnonzero(part.nuclei == nucleus).tolist():
            if part.slides[row].as_py() == slide:
                return np.asarray(part.embeddings[row], np.float64)
    raise ValueError(f"--cell {slide}:{nucleus}: no such cell among those embedded")
