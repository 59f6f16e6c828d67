"""Ridge regressions that leave slides out, from Gram matrices alone.

A training set's Gram matrix is the sum of all slides' less those left out, and so is what a
Pearson correlation on the slide left out needs: after one pass over the cells nothing depends on
their number any more. Features are standardised on the training slides.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evaluate.probes.moments import Moments


class Ridge:
    """Ridge regressions of T targets on D standardised features, intercepts unpenalised."""

    def __init__(self, features: np.ndarray, targets: np.ndarray, parts: np.ndarray):
        """Pass once over the cells, in float64.

        Args:
            features: (N, D) float.
            targets: (N, T) float.
            parts: (N,) int in [0, A), the slide of each cell.
        """
        self.dim = features.shape[1]
        self.moments = Moments([features, targets], parts, int(parts.max()) + 1)

    def fit(self, left_out: Sequence[int], alphas: Sequence[float]) -> Tensor:
        """Return the weights of unscaled features without some slides, (alphas, D, T) float64.

        Args:
            left_out: slides.
            alphas: strengths of the L2 penalty on standardised features, as scikit-learn counts.
        """
        n, _, products = self.moments.without(left_out)
        scale = self.moments.scale(n, products)[: self.dim]  # (D,)
        gram = products[: self.dim, : self.dim] / (scale[:, None] * scale)
        cross = products[: self.dim, self.dim :] / scale[:, None]
        if len(alphas) == 1:
            gram.diagonal().add_(alphas[0])
            solved = torch.linalg.solve(gram, cross)[None]
        else:  # one decomposition for all
            values, vectors = torch.linalg.eigh(gram)
            strengths = torch.tensor(list(alphas), dtype=torch.float64)
            shrunk = 1 / (values.clamp_min(0) + strengths[:, None])  # (alphas, D)
            solved = vectors @ (shrunk[..., None] * (vectors.T @ cross))
        return solved / scale[:, None]

    def pearson(self, part: int, weights: Tensor) -> Tensor:
        """Return the correlation of predicted and true targets on a slide, (…, T).

        Args:
            part: the slide.
            weights: (…, D, T) of `fit`.

        Returns:
            NaN where the target or its prediction is constant on the slide.
        """
        _, _, products = self.moments.of(part)
        xx, xy = products[: self.dim, : self.dim], products[: self.dim, self.dim :]
        yy = products.diagonal()[self.dim :]
        explained = ((xx @ weights) * weights).sum(-2)
        constant = (yy <= 1e-12 * yy.max()) | (explained <= 1e-12 * yy)
        r = (weights * xy).sum(-2) / (explained * yy).sqrt()
        return torch.where(constant, torch.nan, r)
