"""Sums, squares and products of features part by part, so that leaving a part out is subtraction.

The folds of a cross-validation share almost all their rows. Their means, scales and Gram matrices
are sums over parts; a training set's are the total less what it leaves out, exactly and at no cost.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ROWS = 4096  # taken at once


class Moments:
    """n, sum and product moments of each part, about a common shift that keeps cancellation away.

    Attributes:
        n: (A,) float64, rows of each part.
        sums: (A, M) float64, of values less the shift.
        products: (A, M, M) float64, likewise.
        shift: (M,) float64, the mean over all rows.
    """

    def __init__(
        self,
        columns: Sequence[np.ndarray],
        parts: np.ndarray,
        count: int,
        dtype: torch.dtype = torch.float64,
    ):
        """Pass once over the rows.

        Args:
            columns: arrays (N, …) of numbers, side by side M columns.
            parts: (N,) int in [0, count), the part of each row.
            count: A.
            dtype: of the products; sums and squares are always of float64.
        """
        self.shift = torch.cat(
            [torch.from_numpy(np.mean(c, axis=0, dtype=np.float64)) for c in columns]
        )
        size = len(self.shift)
        self.n = torch.from_numpy(np.bincount(parts, minlength=count).astype(np.float64))
        self.sums = torch.zeros(count, size, dtype=torch.float64)
        self.products = torch.zeros(count, size, size, dtype=torch.float64)
        for part in range(count):
            rows = np.flatnonzero(parts == part)
            for i in range(0, len(rows), ROWS):
                taken = [np.asarray(c[rows[i : i + ROWS]], np.float64) for c in columns]
                x = torch.from_numpy(np.concatenate(taken, axis=1)) - self.shift  # (B, M)
                self.sums[part] += x.sum(0)
                cast = x.to(dtype)
                products = (cast.T @ cast).double()
                products.diagonal().copy_((x * x).sum(0))  # the scale is exact in any case
                self.products[part] += products
        total = self.products.diagonal(dim1=1, dim2=2).sum(0) / self.n.sum()
        self._floor = 1e-12 * total + (1e-12 * self.shift) ** 2  # variances that are rounding

    def of(self, part: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a part's n, mean (M,) and centred products (M, M)."""
        return _central(self.n[part], self.sums[part], self.products[part], self.shift)

    def without(self, left_out: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return n, mean (M,) and centred products (M, M) of all parts but some."""
        out = list(left_out)
        return _central(
            self.n.sum() - self.n[out].sum(),
            self.sums.sum(0) - self.sums[out].sum(0),
            self.products.sum(0) - self.products[out].sum(0),
            self.shift,
        )

    def scale(self, n: Tensor, products: Tensor) -> Tensor:
        """Return the population s.d. (M,) of centred products, 1 for a column that is constant."""
        variance = products.diagonal() / n
        return torch.where(variance <= self._floor, 1.0, variance.clamp_min(0).sqrt())


def _central(n: Tensor, sums: Tensor, products: Tensor, shift: Tensor) -> tuple:
    mean = sums / n
    return n, shift + mean, products - n * mean[:, None] * mean
