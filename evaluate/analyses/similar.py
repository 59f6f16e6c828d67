"""The nearest cells of a cohort to given ones: exact, in blocks, in bounded memory."""

from dataclasses import dataclass

import numpy as np

from evaluate.analyses.cohort import Part, blocks, scaling
from shards.schema import SLIDE_ID


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


def similar(
    parts: list[Part], wanted: list[tuple[str, int]], k: int, other_slides: bool = False
) -> list[Near]:
    """Return the k nearest cells to each of some, itself left out.

    Distances are of features standardised over the cohort, summed in float32 of differences, so
    that no digits cancel.

    Args:
        wanted: (slide, nucleus) of each cell.
        other_slides: leave the cell's own slide out, too: slides differ in stain.

    Raises:
        ValueError: a cell is not in the cohort, or has fewer than k others.
    """
    mean, scale = scaling(parts)
    queries = np.stack([_find(parts, *cell) for cell in wanted])
    queries = ((queries - mean) * scale).astype(np.float32)
    best = np.full((len(wanted), k), np.inf, np.float32)
    where = np.full((len(wanted), k, 2), -1, np.int64)  # part, row
    for number, part in enumerate(parts):
        for first, block in blocks(part):
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


def _find(parts: list[Part], slide: str, nucleus: int) -> np.ndarray:
    for part in parts:
        for row in np.flatnonzero(part.nuclei == nucleus).tolist():
            if part.slides[row].as_py() == slide:
                return np.asarray(part.embeddings[row], np.float64)
    raise ValueError(f"--cell {slide}:{nucleus}: no such cell among those embedded")
