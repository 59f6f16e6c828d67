"""Exact k nearest neighbours of embeddings, a block of rows against all, in bounded memory."""

import numpy as np

BLOCK_BYTES = 64 << 20  # of a block of distances


def nearest(embeddings: np.ndarray, k: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """Return each vector's k nearest others by Euclidean distance, the nearest first.

    Distances are float32 of centred embeddings, so that neighbours whose distances differ by less
    than about 1e-6 of the embeddings' spread may change places.

    Args:
        embeddings: (N, D) float.
        k: how many; the vector itself is none of them.
        exclude: (N,) integers; embeddings of the same number are no neighbours either.

    Returns:
        (N, k) int32.

    Raises:
        ValueError: a vector has fewer than k others.
    """
    import torch

    count = len(embeddings)
    largest = 1 if exclude is None else np.unique(exclude, return_counts=True)[1].max()
    if count - largest < k:
        raise ValueError(
            f"{k} neighbours are asked for, but one of {count} embeddings has "
            f"{count - largest} others"
        )
    x = np.asarray(embeddings, np.float32)
    x = x - x.mean(axis=0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    points = torch.from_numpy(x).to(device)
    half = points.square().sum(dim=1) / 2  # (N,)
    codes = torch.arange(count) if exclude is None else torch.from_numpy(np.asarray(exclude))
    codes = codes.to(device)
    out = np.empty((count, k), np.int32)
    rows = min(count, max(1, BLOCK_BYTES // (4 * count)))
    block = np.empty((rows, count), np.float32)
    for first in range(0, count, rows):
        part = slice(first, first + rows)
        # Half the squared distance, less a term that a row has in common.
        if device == "cpu":  # numpy's product takes three quarters of the time of torch's
            near = torch.from_numpy(np.matmul(x[part], x.T, out=block[: len(x[part])]))
            torch.sub(half, near, out=near)
        else:
            near = torch.addmm(half, points[part], points.T, alpha=-1)
        if exclude is None:
            near[torch.arange(len(near)), torch.arange(first, first + len(near))] = torch.inf
        else:
            near.masked_fill_(codes[part, None] == codes, torch.inf)
        out[part] = near.topk(k, dim=1, largest=False).indices.cpu().numpy()
    return out


def standardise(embeddings: np.ndarray, by: np.ndarray | None = None) -> np.ndarray:
    """Return embeddings less the mean over the s.d. of each feature, (N, D) float32.

    Args:
        embeddings: (N, D) float.
        by: (M, D) whose mean and s.d. are taken; None: the embeddings' own. A feature that does not
            vary there becomes 0.
    """
    by = embeddings if by is None else by
    mean, sd = by.mean(axis=0, dtype=np.float64), by.std(axis=0, dtype=np.float64)
    scale = np.where(sd > 0, 1 / np.where(sd > 0, sd, 1), 0)
    return ((embeddings - mean) * scale).astype(np.float32)
