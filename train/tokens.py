"""A ViT's tokens, with what DINOv2 needs and timm's forward pass lacks.

Masked patches, a smaller image through interpolated positions, and stochastic depth whose draws
come from outside (timm's own would depend on the ranks).
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from train.network import Block, ViT, blocks


def tokens(
    encoder: ViT,
    images: Tensor,
    masked: Tensor | None = None,
    mask_token: Tensor | None = None,
    kept: Sequence[Tensor] | None = None,
    share: float = 1.0,
    offset: float = 0.0,
) -> Tensor:
    """Return the class token and the patches' after the last norm.

    Args:
        encoder: of build_encoder.
        images: (N, 3, H, H), H a multiple of the patch.
        masked: (N, P) bool, patches to hide; None hides none.
        mask_token: (D,), what is shown instead.
        kept: the rows that compute each residual branch, two for each block, int64 on the images'
            device; None computes all.
        share: of the branches that are kept on average, which the kept ones are divided by.
        offset: as for `positions`.

    Returns:
        (N, 1 + P, D).
    """
    x = encoder.patch_embed.proj(images).flatten(2).transpose(1, 2)  # (N, P, D)
    if masked is not None and mask_token is not None:
        x = torch.where(masked[..., None], mask_token.to(x.dtype), x)
    x = torch.cat([encoder.cls_token.expand(len(x), -1, -1), x], dim=1)
    x = x + positions(encoder.pos_embed, round((x.shape[1] - 1) ** 0.5), offset)
    spare = encoder.grad_checkpointing and torch.is_grad_enabled()
    for i, block in enumerate(blocks(encoder)):
        first, second = (None, None) if kept is None else kept[2 * i : 2 * i + 2]
        if spare:
            x = cast(
                Tensor, checkpoint(_block, block, x, first, second, share, use_reentrant=False)
            )
        else:
            x = _block(block, x, first, second, share)
    return encoder.norm(x)


def positions(embedding: Tensor, grid: int, offset: float = 0.0) -> Tensor:
    """Return the position embedding of another grid: bicubic, not antialiased (dinov2).

    Args:
        embedding: (1, 1 + G * G, D), the class token's first.
        grid: patches along a side.
        offset: patches added to `grid` in the scale (dinov2, interpolate_offset, 0.1).

    Returns:
        (1, 1 + grid * grid, D).
    """
    first, rest = embedding[:, :1], embedding[:, 1:]
    side = round(rest.shape[1] ** 0.5)
    if side == grid:
        return embedding
    square = rest.transpose(1, 2).unflatten(2, (side, side))  # (1, D, G, G)
    if offset:
        scale = (grid + offset) / side
        square = F.interpolate(square, scale_factor=(scale, scale), mode="bicubic")
    else:
        square = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([first, square.flatten(2).transpose(1, 2)], dim=1)


def _block(
    block: Block, x: Tensor, first: Tensor | None, second: Tensor | None, share: float
) -> Tensor:
    """Return what a block of timm's makes of x, each branch on the rows that keep it."""
    x = _add(x, lambda y: block.ls1(block.attn(block.norm1(y))), first, share)
    return _add(x, lambda y: block.ls2(block.mlp(block.norm2(y))), second, share)


def _add(
    x: Tensor, branch: Callable[[Tensor], Tensor], rows: Tensor | None, share: float
) -> Tensor:
    """Add a residual branch to all rows, or, scaled up, to some; the others cost nothing."""
    if rows is None:
        return x + branch(x)
    return x.index_add(0, rows, branch(x[rows]).to(x.dtype), alpha=1 / share)
