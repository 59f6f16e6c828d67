"""Batch normalisation over the global batch, on CPU and GPU alike."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.distributed import sum_over_ranks


class BatchNorm(nn.Module):
    """Normalise each feature over the global batch; the formula of torch's SyncBatchNorm.

    torch's own refuses CPU tensors, where ranks speak gloo. Statistics are always those of the
    batch at hand, and none are kept: MoCo v3's heads run in train mode only, the teacher's too
    (moco-v3, main_moco.py). All ranks must hold equally many rows.
    """

    def __init__(self, features: int, affine: bool = True, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features)) if affine else None
        self.bias = nn.Parameter(torch.zeros(features)) if affine else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, D), in float32 whatever the autocast; float64 stays float64."""
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = len(x) * dist.get_world_size()
        centred = x - sum_over_ranks(x.sum(0)) / count  # (N, D)
        variance = sum_over_ranks(centred.square().sum(0)) / count  # (D,), biased
        x = centred * torch.rsqrt(variance + self.eps)
        return x if self.weight is None or self.bias is None else x * self.weight + self.bias
