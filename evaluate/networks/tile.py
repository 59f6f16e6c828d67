"""Vision transformers trained on whole tiles: DINOv2, UNI, Virchow2, H-optimus-0, DinoBloom.

Crops of a nucleus are enlarged to the 224 px that these were trained on (paper, A.6).
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evaluate.networks.readout import Readout, Resized
from evaluate.networks.weights import digest, fetch, fit
from shards.schema import MPP
from shards.weights import read_state

INPUT_PX = 224
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std


class Tile(NamedTuple):
    """How one of them is built, loaded and fed."""

    timm: str  # the architecture's name there
    arguments: dict
    hub: tuple[str, str] | None  # repository and file; None: a local file only
    norm: tuple = IMAGENET


def open_tile(kind: str, path: Path | None) -> tuple[nn.Module, dict, dict]:
    """Load one of TILES.

    Args:
        kind: its name.
        path: the publisher's file; None: of the hub.

    Returns:
        The module from normalised images (N, 3, P, P) to the class token (N, D), the config of its
        input, and facts on its weights.

    Raises:
        FileNotFoundError: no such file, or the hub does not give it.
        ValueError: the file is not this network's.
    """
    tile = TILES[kind]
    if path is None:
        if tile.hub is None:
            raise FileNotFoundError(f"{kind} comes as a file only: give {kind}:/path/to/its.pth")
        path = fetch(*tile.hub, kind)
    transformer = build(kind)
    fit(transformer, convert(read_state(path), transformer), f"{path} as {kind}")
    module = Resized(Readout(transformer, "class"), INPUT_PX)
    config = {
        "input_px": None,  # the whole crop, of any side
        "resize_px": INPUT_PX,
        "interpolation": "bicubic",
        "mpp": MPP,
        "mean": list(tile.norm[0]),
        "std": list(tile.norm[1]),
        "readout": "class",
        "timm": {"name": tile.timm, "args": tile.arguments},
    }
    return module, config, {"kind": kind, "sha256": digest(path)}


def build(kind: str, device: str = "meta") -> nn.Module:
    """Build the transformer of a kind, by default without memory for its weights."""
    import timm
    from timm.layers.mlp import SwiGLUPacked

    tile = TILES[kind]
    named = {"SwiGLUPacked": SwiGLUPacked, "SiLU": nn.SiLU}
    arguments = {k: named.get(v, v) if isinstance(v, str) else v for k, v in tile.arguments.items()}
    with torch.device(device):
        return timm.create_model(tile.timm, num_classes=0, img_size=INPUT_PX, **arguments)


def convert(state: dict, transformer: Any) -> dict[str, Tensor]:
    """Return a publisher's weights by timm's names and at the transformer's grid.

    Knows timm's own files (UNI, Virchow2, H-optimus-0, DINOv2), Meta's `dinov2_vit*14_pretrain.pth`
    (its names of the giant's SwiGLU, its mask token, positions of 37x37 patches), and training
    checkpoints with the backbone under `teacher` (DinoBloom).
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = dict(state.get("teacher", state))
    if any(name.startswith("backbone.") for name in state):
        state = {
            name.removeprefix("backbone."): tensor
            for name, tensor in state.items()
            if not re.match(r"(dino_head|ibot_head)\.", name)
        }
    return checkpoint_filter_fn(state, transformer)


def _dinov2(size: str) -> Tile:
    name = f"vit_{size}_patch14_dinov2"
    return Tile(name, {}, (f"timm/{name}.lvd142m", "model.safetensors"))


SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}
TILES = {
    **{f"dinov2-{letter}": _dinov2(size) for letter, size in SIZES.items()},
    "uni": Tile(
        "vit_large_patch16_224",
        {"init_values": 1e-5, "dynamic_img_size": True},
        ("MahmoodLab/UNI", "pytorch_model.bin"),
    ),
    "virchow2": Tile(
        "vit_huge_patch14_224",
        {
            "init_values": 1e-5,
            "reg_tokens": 4,
            "mlp_ratio": 5.3375,
            "global_pool": "",
            "dynamic_img_size": True,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "SiLU",
        },
        ("paige-ai/Virchow2", "pytorch_model.bin"),
    ),
    "h-optimus-0": Tile(
        "vit_giant_patch14_reg4_dinov2",
        {"init_values": 1e-5, "global_pool": "token"},
        ("bioptimus/H-optimus-0", "pytorch_model.bin"),
        ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517)),
    ),
    **{f"dinobloom-{letter}": _dinov2(size)._replace(hub=None) for letter, size in SIZES.items()},
}
