"""Moran's I of values a cell, such as transcripts, on the graph of nearest embeddings (Fig. 8).

I = (N / S) * sum_ij w_ij z_i z_j / sum_i z_i² with z the values less their mean, w_ij = 1/k where j
is one of the k nearest of i, else 0, and S = N the sum of the weights: esda's `Moran` on libpysal's
`KNN` weights with transform "r".

Paper leaves open: k, the metric, the weights, how expression is normalised, how many slides a graph
spans; here: k = 15, Euclidean on standardised embeddings, the weights above, log1p of counts, and
neighbours within a slide, z being standardised within each.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from evaluate.analyses.neighbours import nearest, standardise

NEIGHBOURS = 15
PERMUTATIONS = 999


@dataclass(frozen=True, eq=False)
class Moran:
    """Moran's I of T values, and what permuting the cells within their slides makes of it.

    Attributes:
        observed: (T,) Moran's I; NaN where a value does not vary.
        p: (T,) one-sided: (1 + permutations with as large an I) / (1 + permutations).
        p_adjusted: (T,) after Benjamini and Hochberg.
        z: (T,) (I - the permutations' mean) / their s.d.
        permutations: how many.
    """

    observed: np.ndarray
    p: np.ndarray
    p_adjusted: np.ndarray
    z: np.ndarray
    permutations: int


def graph(embeddings: np.ndarray, slides: np.ndarray, k: int = NEIGHBOURS) -> csr_array:
    """Return the weights of the k-NN graph, neighbours within a slide only.

    Args:
        embeddings: (N, D) float.
        slides: (N,) str.

    Returns:
        (N, N) sparse float32, rows of k elements 1/k.

    Raises:
        ValueError: a slide has k cells or fewer.
    """
    near = np.empty((len(embeddings), k), np.int64)
    for slide in np.unique(slides):
        rows = np.flatnonzero(slides == slide)
        if len(rows) <= k:
            raise ValueError(
                f"slide {slide!r} has {len(rows)} cells, too few for {k} neighbours; leave it out "
                "or take fewer neighbours"
            )
        near[rows] = rows[nearest(standardise(embeddings[rows]), k)]
    weights = np.full(near.size, 1 / k, np.float32)
    shape = (len(near), len(near))
    return csr_array((weights, near.reshape(-1), np.arange(0, near.size + 1, k)), shape)


def morans_i(
    weights: csr_array,
    values: np.ndarray,
    slides: np.ndarray,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Moran:
    """Compute Moran's I, and its p-value by permuting cells within slides.

    A permutation moves all T values of a cell together; one is in memory at a time.

    Args:
        weights: (N, N), rows that sum to 1.
        values: (N, T) float, no NaN.
        slides: (N,) str.
    """
    z = np.zeros(values.shape, np.float64)
    groups = [np.flatnonzero(slides == slide) for slide in np.unique(slides)]
    for rows in groups:
        z[rows] = _standardised(values[rows])
    total = (z**2).sum(axis=0)
    varies = total > 0
    total = np.where(varies, total, 1)

    def index(order: np.ndarray) -> np.ndarray:
        moved = z[order]
        return (moved * (weights @ moved)).sum(axis=0) / total

    observed = index(np.arange(len(z)))
    rng = np.random.default_rng(seed)
    as_large, sums, squares = (np.zeros(values.shape[1]) for _ in range(3))
    for _ in range(permutations):
        order = np.arange(len(z))
        for rows in groups:
            order[rows] = rng.permutation(rows)
        found = index(order)
        as_large += found >= observed
        sums += found
        squares += found**2
    p = np.where(varies, (1 + as_large) / (1 + permutations), np.nan)
    mean = sums / max(permutations, 1)
    sd = np.sqrt(np.maximum(squares / max(permutations, 1) - mean**2, 0))
    score = np.where(varies & (sd > 0), (observed - mean) / np.where(sd > 0, sd, 1), np.nan)
    observed = np.where(varies, observed, np.nan)
    return Moran(observed, p, _adjusted(p), score, permutations)


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return values less their mean over their s.d., 0 where they do not vary."""
    values = values.astype(np.float64)
    sd = values.std(axis=0)
    varies = np.ptp(values, axis=0) > 0
    return np.where(varies, (values - values.mean(axis=0)) / np.where(varies, sd, 1), 0)


def _adjusted(p: np.ndarray) -> np.ndarray:
    """Return p-values after Benjamini and Hochberg; NaN stays and does not count."""
    from scipy.stats import false_discovery_control

    out, known = np.full(p.shape, np.nan), np.isfinite(p)
    if known.any():
        out[known] = false_discovery_control(p[known])
    return out
