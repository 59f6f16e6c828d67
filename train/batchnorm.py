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


class BatchNorm2d(nn.BatchNorm2d):
    """torch's, in train mode over the images of all ranks, which must hold equally many.

    For an encoder, which is used in eval mode: running statistics are kept, as torch keeps them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if not self.training or dist.get_world_size() == 1:
            return super().forward(x)
        return self._over_ranks(x)

    def _over_ranks(self, x: Tensor) -> Tensor:
        """Do what torch does, in float32 whatever the autocast; float64 stays float64."""
        y = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        count = y.numel() // y.shape[1] * dist.get_world_size()
        mean = sum_over_ranks(y.sum((0, 2, 3))) / count  # (C,)
        centred = y - mean[:, None, None]
        variance = sum_over_ranks(centred.square().sum((0, 2, 3))) / count  # biased
        with torch.no_grad():
            assert self.num_batches_tracked is not None and self.momentum is not None
            assert self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
