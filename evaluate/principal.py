"""Principal axes of embeddings, from some rows or all, a block in memory at a time.

Exact where embeddings are narrow; of very wide ones, such as raw pixels, by subspace iteration.
"""

from collections.abc import Iterator

import numpy as np

EXACT = 2048  # features up to which the covariance is summed and decomposed
BLOCK = 16_384  # rows in memory at once
SPARE = 10  # axes iterated beyond those wanted
ROUGH, FINE = 5, 2  # iterations on a quarter of the rows, then on all


def principal_axes(
    embeddings: np.ndarray, count: int, rows: np.ndarray | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the leading principal axes of some rows.

    An axis' sign is such that its largest element is positive.

    Args:
        embeddings: (N, D) float.
        count: how many axes, at most M and D.
        rows: (M,) the axes come from; None: all.
        seed: of the random start where D is above EXACT.

    Returns:
        (D,) and (D, count) float64; float32 where D is above EXACT.
    """
    found = _exact if embeddings.shape[1] <= EXACT else _iterated
    mean, axes = found(embeddings, count, rows, seed)
    largest = np.abs(axes).argmax(axis=0)
    return mean, axes * np.sign(axes[largest, np.arange(axes.shape[1])])


def project(embeddings: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return rows, (N, D), on axes of `principal_axes`, (N, count) float32."""
    parts = [block @ axes - mean @ axes for block in _blocks(embeddings, None, axes.dtype)]
    return np.concatenate(parts).astype(np.float32, copy=False)


def components(
    embeddings: np.ndarray, count: int, rows: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Return all rows on the leading principal axes of some; arguments as of `principal_axes`."""
    return project(embeddings, *principal_axes(embeddings, count, rows, seed))


def _exact(
    embeddings: np.ndarray, count: int, rows: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    width = embeddings.shape[1]
    mean, product = np.zeros(width), np.zeros((width, width))
    for block in _blocks(embeddings, rows, np.float64):
        mean += block.sum(axis=0)
    mean /= len(embeddings if rows is None else rows)
    for block in _blocks(embeddings, rows, np.float64):
        block = block - mean  # a difference of large sums would lose digits
        product += block.T @ block
    return mean, np.linalg.eigh(product)[1][:, ::-1][:, :count]


def _iterated(
    embeddings: np.ndarray, count: int, rows: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Iterate a subspace from a random start.

    Source: Halko et al. 2011, algorithm 4.4; begun on a quarter of the rows, which halves the
    passes over all of them.
    """
    draws = np.random.default_rng(seed)
    chosen = embeddings if rows is None else embeddings[rows]
    x = np.array(chosen, np.float32)  # a copy, centred in place
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= mean
    width = min(count + SPARE, *x.shape)
    few = max(len(x) // 4, min(len(x), 4 * width))
    some = x[draws.permutation(len(x))[:few]]
    axes = draws.standard_normal((x.shape[1], width), np.float32)
    for part, times in ((some, ROUGH), (x, FINE)):
        for _ in range(times):
            axes = _orthonormal(part.T @ (part @ axes))  # (D, width)
    scores = x @ axes
    turn = np.linalg.eigh(scores.T @ scores)[1][:, ::-1][:, :count]
    return mean, axes @ turn


def _orthonormal(axes: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the same span, a quarter of QR's time where D is large."""
    wide = axes.astype(np.float64)
    values, turn = np.linalg.eigh(wide.T @ wide)
    return axes @ (turn / np.sqrt(values.clip(1e-14 * values[-1]))).astype(np.float32)


def _blocks(embeddings: np.ndarray, rows: np.ndarray | None, dtype) -> Iterator[np.ndarray]:
    """Yield up to BLOCK rows at a time, in order."""
    count = len(embeddings if rows is None else rows)
    for first in range(0, count, BLOCK):
        part = slice(first, first + BLOCK)
        yield np.asarray(embeddings[part if rows is None else rows[part]], dtype)
