"""Principal components of a training fold of very wide features, such as raw pixels."""

import numpy as np

SPARE = 10  # axes iterated beyond those wanted
ROUGH, FINE = 5, 2  # iterations on a quarter of the rows, then on all


def principal(features: np.ndarray, train: np.ndarray, components: int, seed: int) -> np.ndarray:
    """Return all rows on the leading principal axes of some, (N, components) float32.

    Arguments as of `principal_axes`.
    """
    mean, axes = principal_axes(features, train, components, seed)
    return project(features, mean, axes)


def project(features: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return rows, (N, D), on axes of `principal_axes`, (N, components) float32."""
    return np.asarray(features, np.float32) @ axes - mean @ axes


def principal_axes(
    features: np.ndarray, train: np.ndarray, components: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the leading principal axes of some rows.

    Source: subspace iteration from a random start (Halko et al. 2011, algorithm 4.4), begun on a
    quarter of the rows, which halves the passes over all of them.

    Args:
        features: (N, D) float32.
        train: (M,) rows the axes come from.
        components: how many axes, at most M and D.
        seed: of the start.

    Returns:
        (D,) and (D, components) float32.
    """
    draws = np.random.default_rng(seed)
    x = np.asarray(features[train], np.float32)  # a copy, centred in place
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    x -= mean
    width = min(components + SPARE, *x.shape)
    few = max(len(x) // 4, min(len(x), 4 * width))
    chosen = x[draws.permutation(len(x))[:few]]
    axes = draws.standard_normal((x.shape[1], width), np.float32)
    for rows, times in ((chosen, ROUGH), (x, FINE)):
        for _ in range(times):
            axes = _orthonormal(rows.T @ (rows @ axes))  # (D, width)
    scores = x @ axes
    turn = np.linalg.eigh(scores.T @ scores)[1][:, ::-1][:, :components]
    return mean, axes @ turn


def _orthonormal(axes: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the same span, a quarter of QR's time where D is large."""
    wide = axes.astype(np.float64)
    values, turn = np.linalg.eigh(wide.T @ wide)
    return axes @ (turn / np.sqrt(values.clip(1e-14 * values[-1]))).astype(np.float32)
