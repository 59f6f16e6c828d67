"""Calibration: whether nuclei given a probability p are right in a share p of cases."""

import numpy as np

BINS = 15  # of equal width, as in Guo et al. 2017


def calibration(probabilities: np.ndarray, truth: np.ndarray, bins: int = BINS) -> dict:
    """Return the expected calibration error of the top class and the reliability diagram's bins.

    Source: Guo et al. 2017, On calibration of modern neural networks, equations 2-5: bins of equal
    width over (0, 1], the mean of |accuracy - confidence| weighted by a bin's share of samples.

    Args:
        probabilities: (N, K) float.
        truth: (N,) int, columns.
        bins: how many.

    Returns:
        `ECE`, `MCE` (the largest gap), and `bins`: dicts of low, high, count, confidence, accuracy
        of the bins that hold samples.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    held = np.flatnonzero(count)
    sure = np.bincount(place, confidence, bins)[held] / count[held]
    true = np.bincount(place, right, bins)[held] / count[held]
    gap = np.abs(sure - true)
    return {
        "ECE": float((gap * count[held]).sum() / len(truth)),
        "MCE": float(gap.max()),
        "bins": [
            {
                "low": round(b / bins, 4),
                "high": round((b + 1) / bins, 4),
                "count": int(count[b]),
                "confidence": round(float(s), 4),
                "accuracy": round(float(t), 4),
            }
            for b, s, t in zip(held.tolist(), sure, true, strict=True)
        ],
    }
