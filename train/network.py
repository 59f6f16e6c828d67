"""Names for the types of timm's networks, none ever made; and what is read of their insides."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

STAGES = 3  # the last, of a convolutional network


class Encoder(nn.Module):
    """What is used of any network of timm's: a name for its type, never made."""

    embed_dim: int
    set_grad_checkpointing: Callable[[bool], None]
    input_px: int
    timm_name: str  # with timm_arguments what save_encoder writes
    timm_arguments: dict[str, Any]


class PatchEmbed(nn.Module):
    """What is used of timm's PatchEmbed: a name for its type, never made."""

    proj: nn.Conv2d
    grid_size: tuple[int, int]


class Attention(nn.Module):
    """What is used of timm's Attention: a name for its type, never made."""

    fused_attn: bool


class Block(nn.Module):
    """What is used of timm's Block: a name for its type, never made."""

    norm1: nn.Module
    attn: Attention
    ls1: nn.Module
    norm2: nn.Module
    mlp: nn.Module
    ls2: nn.Module


class ViT(Encoder):
    """What is used of timm's VisionTransformer: a name for its type, never made."""

    patch_embed: PatchEmbed
    cls_token: nn.Parameter
    pos_embed: nn.Parameter
    blocks: nn.Sequential
    norm: nn.Module
    grad_checkpointing: bool


def blocks(encoder: ViT) -> list[Block]:
    """Return an encoder's blocks."""
    return cast(list[Block], list(encoder.blocks))


def stage_widths(network: Any) -> tuple[int, ...]:
    """Return the widths of a convolutional network's last stages."""
    return tuple(stage["num_chs"] for stage in network.feature_info[-STAGES:])


def stage_means(network: Any, images: Tensor) -> Tensor:
    """Return the means over the image of a convolutional network's last stages, side by side.

    The last alone is the network's own embedding; the ones before it see smaller parts of a
    nucleus, at a finer resolution.

    Args:
        network: one of timm's.
        images: (N, 3, H, W).

    Returns:
        (N, sum of `stage_widths`).
    """
    maps = network.forward_intermediates(images, indices=STAGES, intermediates_only=True)
    return torch.cat([stage.mean(dim=(2, 3)) for stage in maps], dim=1)
