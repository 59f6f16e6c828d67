"""How well found nuclei agree with outlined ones: detection F1, F1 at IoU 0.5, Dice, AJI, PQ."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

RADIUS_PX = 12.0  # 3 µm


def scores(found: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Compare two label images of one field.

    Args:
        found, true: (H, W) integer ids, 0 background.

    Returns:
        Counts that add up over fields: `found`, `true`, `near` (centres one to one within 3 µm),
        `matched` (outlines at IoU > 0.5), `iou` (their sum), `shared` and `union` of AJI,
        `dice_shared` and `dice_total` of foreground.
    """
    found, n = _dense(found)
    true, m = _dense(true)
    overlap = np.bincount(
        (found.ravel().astype(np.int64) * (m + 1) + true.ravel()), minlength=(n + 1) * (m + 1)
    ).reshape(n + 1, m + 1)
    size_found, size_true = overlap.sum(1), overlap.sum(0)
    shared = overlap[1:, 1:]
    union = size_found[1:, None] + size_true[None, 1:] - shared
    iou = shared / union
    matched = iou > 0.5
    # AJI: a true nucleus takes the found one of largest IoU; found ones never taken count whole.
    aji_shared, aji_union = 0, 0
    taken = np.zeros(n, bool)
    if n and m:
        best = iou.argmax(0)
        hit = iou.max(0) > 0
        aji_shared = shared[best[hit], np.flatnonzero(hit)].sum()
        aji_union = union[best[hit], np.flatnonzero(hit)].sum() + size_true[1:][~hit].sum()
        taken[best[hit]] = True
    else:
        aji_union = size_true[1:].sum()
    aji_union += size_found[1:][~taken].sum()
    return {
        "found": n,
        "true": m,
        "near": len(match(_centres(found, n), _centres(true, m))),
        "matched": int(matched.sum()),
        "iou": float(iou[matched].sum()),
        "shared": int(aji_shared),
        "union": int(aji_union),
        "dice_shared": int(((found > 0) & (true > 0)).sum()),
        "dice_total": int((found > 0).sum() + (true > 0).sum()),
    }


def rates(counts: list[dict[str, float]]) -> dict[str, float]:
    """Pool the counts of fields into F1 (3 µm), F1 (IoU 0.5), Dice, AJI and PQ."""
    total = {key: sum(c[key] for c in counts) for key in counts[0]}
    both = max(total["found"] + total["true"], 1)
    return {
        "f1": 2 * total["near"] / both,
        "f1_iou": 2 * total["matched"] / both,
        "dice": 2 * total["dice_shared"] / max(total["dice_total"], 1),
        "aji": total["shared"] / max(total["union"], 1),
        "pq": 2 * total["iou"] / both,
    }


def match(found: np.ndarray, true: np.ndarray, radius: float = RADIUS_PX) -> np.ndarray:
    """Pair points one to one within a radius: as many pairs as possible, then the nearest.

    Args:
        found: (N, 2) px.
        true: (M, 2) px.
        radius: px.

    Returns:
        (K, 2) int, indices into both.
    """
    distance = cdist(found, true)
    # Each pair within reach outweighs any sum of distances, so none is given up for a nearer one.
    gain = np.where(distance <= radius, radius * (min(distance.shape, default=0) + 1), 0)
    pairs = np.stack(linear_sum_assignment(np.where(gain > 0, distance - gain, 0)), axis=1)
    return pairs[distance[pairs[:, 0], pairs[:, 1]] <= radius]


def _dense(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Number labels from 1 without gaps."""
    values, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + (values[0] != 0)
    return dense, int(dense.max(initial=0))


def _centres(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the centroids of labels 1 to count, (count, 2) x, y."""
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count + 1)[1:]
    y, x = np.indices(labels.shape)
    sums = [np.bincount(flat, place.ravel(), count + 1)[1:] for place in (x, y)]
    return np.stack(sums, axis=1) / size[:, None]
