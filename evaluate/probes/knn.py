"""A k-NN probe: nothing is fitted, so what it shows is the embedding's own neighbourhoods."""

import numpy as np
import torch

TEMPERATURE = 0.07  # of the vote; DINO, eval_knn.py
ROWS = 1024  # taken at once


def vote(train: np.ndarray, labels: np.ndarray, held: np.ndarray, classes: int, k: int):
    """Let the nearest training nuclei vote, by cosine of features standardised on them.

    Source: Wu et al. 2018, as in DINO's eval_knn.py: a vote weighs exp(cosine / 0.07).

    Args:
        train: (N, D) float.
        labels: (N,) int in [0, classes).
        held: (M, D) float.
        classes: how many.
        k: neighbours, fewer if there are not so many.

    Returns:
        (M, classes) float32 numpy, shares of the vote.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mean = train.mean(0, dtype=np.float64)
    scale = train.std(0, dtype=np.float64)
    scale[scale == 0] = 1

    def unit(features: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(((features - mean) / scale).astype(np.float32)).to(device)
        return torch.nn.functional.normalize(x, dim=1)

    known, shares = unit(train), []
    truth = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), classes)
    truth = truth.float().to(device)
    for i in range(0, len(held), ROWS):
        cosine = unit(held[i : i + ROWS]) @ known.T  # (B, N)
        near, rows = cosine.topk(min(k, len(known)), dim=1)
        weights = (near / TEMPERATURE).softmax(1)  # (B, k)
        shares.append((weights[..., None] * truth[rows]).sum(1).cpu())
    return torch.cat(shares).numpy()
