"""Principal components of more embeddings than fit in memory."""

from collections.abc import Iterator

import numpy as np

ROWS = 16_384  # in memory at once


def principal_axes(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the first principal axes, from the exact covariance summed in blocks.

    An axis' sign is such that its largest element is positive.

    Args:
        vectors: (N, D) float32; may be mapped from a file.
        count: of the axes, at most D.

    Returns:
        (D,) and (count, D) float64, unit rows.
    """
    width = vectors.shape[1]
    mean, product = np.zeros(width), np.zeros((width, width))
    for block in blocks(vectors):
        mean += block.sum(axis=0)
    mean /= len(vectors)
    for block in blocks(vectors):  # about the mean: a difference of large sums loses digits
        block -= mean
        product += block.T @ block
    axes = np.linalg.eigh(product)[1][:, ::-1][:, :count].T
    largest = np.abs(axes).argmax(axis=1)
    return mean, axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]


def project(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return the first principal components, (N, count) float32; arguments of `principal_axes`."""
    mean, axes = principal_axes(vectors, count)
    parts = [((block - mean) @ axes.T).astype(np.float32) for block in blocks(vectors)]
    return np.concatenate(parts)


def blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (up to ROWS, D) float64 copies, in order."""
    for first in range(0, len(vectors), ROWS):
        yield vectors[first : first + ROWS].astype(np.float64)
