"""DINOv2's head: from features to logits over prototypes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module):
    """From features to logits over prototypes: an MLP, the sphere, and unit prototypes.

    Source: dinov2, layers/dino_head.py. Cosines are in float32 whatever the autocast (float64
    stays): bfloat16 would resolve them to 0.004, a tenth of the temperature.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in (m for m in self.mlp if isinstance(m, nn.Linear)):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        # Length and direction apart (weight norm); nn.Linear's own initialisation of the latter.
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)
        self.last_layer_length = nn.Parameter(torch.ones(prototypes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of features (N, D)."""
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.to(self.last_layer.weight.dtype), dim=1)
            unit = F.normalize(self.last_layer.weight, dim=1)
            return F.linear(x, unit * self.last_layer_length)
