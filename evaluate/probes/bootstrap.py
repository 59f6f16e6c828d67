"""Bootstrap intervals of the five metrics, whole groups drawn with replacement.

Nuclei of one image are not independent, so an interval that draws nuclei is too narrow. Drawing
groups is a matter of weights: a metric is computed for all resamples together from how often each
group was drawn, once the nuclei are sorted by score.
"""

import numpy as np

from evaluate.probes.metrics import METRICS
from shards.progress import Bar

ELEMENTS = 2**21  # weights (resamples x nuclei) held at once


def intervals(
    truth: np.ndarray,
    probabilities: np.ndarray,
    groups: np.ndarray,
    column: int | None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Return the central 95 % of each metric over resamples of the groups.

    Args:
        truth: (N,) int, columns.
        probabilities: (N, K) float, of models that did not see the nucleus.
        groups: (N,) of any kind; equal values are drawn together.
        column: the positive class of two, or None.

    Returns:
        Metric -> [2.5th, 97.5th percentile]. Resamples that lack a class do not count for AUC and
        AUPR.
    """
    kinds, places = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(kinds), np.full(len(kinds), 1 / len(kinds)), size=resamples)
    columns = range(probabilities.shape[1]) if column is None else [column]
    orders = [Ranking(probabilities[:, k], truth == k) for k in columns]
    predicted = probabilities.argmax(axis=1)
    step = max(1, ELEMENTS // len(truth))
    values = [
        _metrics(drawn[i : i + step][:, places], truth, predicted, orders, probabilities.shape[1])
        for i in Bar(range(0, resamples, step), "bootstrap", "batches")
    ]
    table = np.concatenate(values)  # (resamples, 5)
    bounds = np.nanpercentile(table, [2.5, 97.5], axis=0).T
    return {
        name: [round(float(v), 6) for v in pair] for name, pair in zip(METRICS, bounds, strict=True)
    }


class Ranking:
    """Nuclei sorted by one score, for AUC and average precision under any weights."""

    def __init__(self, scores: np.ndarray, truth: np.ndarray):
        """Sort downwards.

        Args:
            scores: (N,) float.
            truth: (N,) bool.
        """
        self.order = np.argsort(-scores, kind="stable")
        self.truth = truth[self.order]
        # equal scores are one threshold: only its last nucleus counts
        self.last = np.flatnonzero(np.append(np.diff(scores[self.order]) != 0, True))

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return AUC and average precision as scikit-learn defines them.

        Args:
            weights: (B, N), how often each nucleus counts.

        Returns:
            (B,) and (B,), NaN where only one of the two kinds has weight.
        """
        weights = weights[:, self.order].astype(np.float64)
        hits = np.cumsum(weights * self.truth, axis=1)[:, self.last]  # (B, thresholds)
        seen = np.cumsum(weights, axis=1)[:, self.last]
        misses = seen - hits
        positives, negatives = hits[:, -1], misses[:, -1]
        gained = np.diff(hits, axis=1, prepend=0)
        passed = np.diff(misses, axis=1, prepend=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            # a pair in order counts 1, a tie 1/2
            auc = (passed * (hits - gained / 2)).sum(1) / (positives * negatives)
            precision = np.where(seen > 0, hits / np.maximum(seen, 1e-300), 0)
            average = (gained * precision).sum(1) / positives
        valid = (positives > 0) & (negatives > 0)
        return np.where(valid, auc, np.nan), np.where(valid, average, np.nan)


def _metrics(weights, truth, predicted, orders: list[Ranking], classes: int) -> np.ndarray:
    """Return METRICS under each row of weights, (B, 5)."""
    cell = truth * classes + predicted
    confusion = np.stack([np.bincount(cell, row, classes * classes) for row in weights]).reshape(
        -1, classes, classes
    )  # (B, truth, predicted)
    right = np.einsum("bkk->bk", confusion)
    members, claims = confusion.sum(2), confusion.sum(1)
    with np.errstate(invalid="ignore"):
        recall = np.where(members > 0, right / np.maximum(members, 1), np.nan)
    f1 = 2 * right / np.maximum(members + claims, 1)
    areas = np.stack([order.areas(weights) for order in orders])  # (columns, 2, B)
    return np.stack(
        [
            np.nanmean(recall, axis=1),
            areas[:, 0].mean(axis=0),
            areas[:, 1].mean(axis=0),
            f1.mean(axis=1),
            (f1 * members).sum(axis=1) / members.sum(axis=1),
        ],
        axis=1,
    )
