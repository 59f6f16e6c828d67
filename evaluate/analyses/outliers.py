"""The cells of a cohort farthest from all others: exact, in blocks, in bounded memory.

A cell's distance is that to its k-th nearest other (Ramaswamy, Rastogi and Shim, 2000). A cell is
given up as soon as k others are nearer than the n-th farthest found so far (Bay and Schwabacher,
2003), so that few cells are compared with all.
"""

import heapq
from dataclasses import dataclass

import numpy as np

from evaluate.analyses.cohort import Part, block, scaling, starts

QUERIES = 1024  # cells sought at once


@dataclass(frozen=True, eq=False)
class Far:
    """The cells farthest from all others, the farthest first."""

    slides: list[str]
    nuclei: list[int]
    distances: list[float]  # to the k-th nearest, as of `similar`
    compared: int  # pairs of cells, of all there are


def outliers(parts: list[Part], count: int, k: int, other_slides: bool = False) -> Far:
    """Return the cells whose k-th nearest other is farthest.

    Args:
        k: at 1 a cell with one twin is no outlier; at 10 nine like it do not hide it.
        other_slides: compare with cells of other slides alone; what is common on one slide and
            found on no other is far, too.

    Raises:
        ValueError: a cell has fewer than k others, or there are fewer cells than `count`.
    """
    total = sum(len(part.embeddings) for part in parts)
    codes = _codes(parts)
    largest = np.bincount(np.concatenate(codes)).max()
    others = total - (largest if other_slides else 1)
    if others < k or total < count:
        raise ValueError(
            f"{count} cells by their {k}-th nearest: there are {total} cells here, of which some "
            f"have {others} others; take a smaller --count or -k"
        )
    mean, scale = scaling(parts)

    def read(number: int, first: int) -> np.ndarray:
        return (block(parts[number], first) - mean) * scale

    found: list[tuple[float, int, int]] = []  # a heap: squared distance, part, row; both negated
    compared = 0
    order = [(number, first) for number, part in enumerate(parts) for first in starts(part)]
    for place, (number, first) in enumerate(order):
        own = read(number, first)
        for start in range(0, len(own), QUERIES):
            x = own[start : start + QUERIES]
            rows = np.arange(first + start, first + start + len(x))
            squares = np.full((len(x), k), np.inf)
            # Its own block first: cells of a slide are most alike, so most are given up there.
            for other, begin in order[place:] + order[:place]:
                y = own if (other, begin) == (number, first) else read(other, begin)
                square = _squares(x, y)
                compared += square.size
                if other_slides:
                    slides = codes[other][begin : begin + len(y)]
                    square[codes[number][rows][:, None] == slides] = np.inf
                elif other == number:
                    here = np.flatnonzero((rows >= begin) & (rows < begin + len(y)))
                    square[here, rows[here] - begin] = np.inf
                squares = np.partition(np.hstack([squares, square]), k - 1, axis=1)[:, :k]
                least = found[0][0] if len(found) == count else -1.0
                kept = squares[:, k - 1] >= least
                rows, squares, x = rows[kept], squares[kept], x[kept]
                if not len(rows):
                    break
            for row, square in zip(rows.tolist(), squares[:, k - 1].tolist(), strict=True):
                (heapq.heappush if len(found) < count else heapq.heappushpop)(
                    found, (square, -number, -row)
                )
    found.sort(reverse=True)
    width = len(mean)
    return Far(
        [parts[-p].slides[-r].as_py() for _, p, r in found],
        [int(parts[-p].nuclei[-r]) for _, p, r in found],
        [float(np.sqrt(square / width)) for square, *_ in found],
        compared,
    )


def _codes(parts: list[Part]) -> list[np.ndarray]:
    """Return a number for each cell's slide, (N,) of each part."""
    known: dict[str, int] = {}
    found = []
    for part in parts:
        coded = part.slides.dictionary_encode()
        table = [known.setdefault(s, len(known)) for s in coded.dictionary.to_pylist()]
        found.append(np.array(table, np.int32)[coded.indices.to_numpy()])
    return found


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances, (A, B) float64, of (A, D) and (B, D)."""
    square = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return np.maximum(square, 0, out=square)
