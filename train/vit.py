"""How MoCo v3 starts a ViT: its weights, and what of them it never trains."""

import math

import torch
from torch import Tensor, nn

from train.network import ViT


def sincos_positions(grid: int, dim: int) -> Tensor:
    """Return MoCo v3's fixed 2-D sine-cosine position embedding, zero for the class token.

    Source: moco-v3, vits.py, build_2d_sincos_position_embedding. There the axis named w is the
    slow one of the flattened grid, the image's rows.

    Args:
        grid: patches along a side.
        dim: width of a token, a multiple of 4.

    Returns:
        (1, 1 + grid * grid, dim) float.
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))  # (dim/4,)
    rows, columns = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    w = rows.reshape(-1, 1) * omega  # (grid*grid, dim/4)
    h = columns.reshape(-1, 1) * omega
    patches = torch.cat([w.sin(), w.cos(), h.sin(), h.cos()], dim=1)  # (grid*grid, dim)
    return torch.cat([torch.zeros(1, dim), patches.float()])[None]


def initialise(model: ViT) -> None:
    """Draw the weights as moco-v3's vits.py does, and fix what it fixes."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            out, into = module.weight.shape
            fan_out = out // 3 if name.endswith("qkv") else out  # q, k, v as three matrices
            bound = math.sqrt(6 / (fan_out + into))
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    projection = model.patch_embed.proj  # (D, 3, 8, 8)
    bound = math.sqrt(6 / (projection.weight[0].numel() + projection.weight.shape[0]))
    nn.init.uniform_(projection.weight, -bound, bound)
    fixed = [model.pos_embed, projection.weight]
    if projection.bias is not None:
        nn.init.zeros_(projection.bias)
        fixed.append(projection.bias)
    nn.init.normal_(model.cls_token, std=1e-6)
    model.pos_embed.data.copy_(sincos_positions(model.patch_embed.grid_size[0], model.embed_dim))
    for parameter in fixed:
        parameter.requires_grad_(False)
