"""Encoders: ViTs and ResNets at 40 px, and the folder that holds one.

Load one without this repository:

    config = json.load(open("encoder/config.json"))
    model = timm.create_model(config["timm"]["name"], **config["timm"]["args"])
    model.load_state_dict(safetensors.torch.load_file("encoder/model.safetensors"))
    # input: (N, 3, 40, 40), ((rgb / 255) - config["mean"]) / config["std"]; output: (N, D)
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shards.write import atomic
from train.architecture import DINO_HEADS, ENCODERS, PATCH_PX, VITS
from train.batchnorm import BatchNorm2d

FORMAT = 1  # of the encoder folder


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


def build_encoder(
    name: str,
    input_px: int = 40,
    seed: int = 0,
    kind: str = "moco",
    layer_scale: float = 0.0,
    heads: int = 0,
) -> Encoder:
    """Build a network as MoCo v3 or DINOv2 starts it.

    MoCo v3's ViTs: its own initialisation, fixed positions and frozen patch embedding (moco-v3,
    vits.py; `stop_grad_conv1`: the random patch projection is never trained). DINOv2's: timm's,
    which is dinov2's, everything trained; its ViT-S has 6 heads. ResNets, of MoCo v3 alone:
    timm's, everything trained, their BatchNorm over the images of all ranks (main_moco.py).

    Args:
        name: one of ENCODERS.
        input_px: side of the input, px; of a ViT a multiple of 8.
        seed: of the weights, which are a function of it alone.
        kind: `moco` or `dinov2`.
        layer_scale: what a ViT's residual branches' scales start at; 0: there are none.
        heads: of a ViT's attention, a divisor of the width; 0: the method's own.

    Returns:
        A module from (N, 3, input_px, input_px) to (N, D): a ViT's class token, the mean of a
        ResNet's last map.

    Raises:
        ValueError: unknown name, or a size that is no multiple of the patch.
    """
    import timm  # 2 s

    if name not in ENCODERS:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}")
    timm_name, arguments = ENCODERS[name]
    arguments = {"num_classes": 0, "global_pool": "avg"} | arguments
    norm: dict[str, Any] = {"norm_layer": BatchNorm2d}  # no argument that a reader needs
    if name in VITS:
        if input_px % PATCH_PX or input_px < PATCH_PX:
            raise ValueError(f"an input of {input_px} px is no multiple of the {PATCH_PX}-px patch")
        arguments |= {"img_size": input_px, "global_pool": "token"}
        norm = {}
        if kind == "dinov2" and name in DINO_HEADS:
            arguments["num_heads"] = DINO_HEADS[name]
        if heads:
            arguments["num_heads"] = heads
        if layer_scale:
            arguments["init_values"] = layer_scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(timm_name, **arguments, **norm)
        if name in VITS and kind == "moco":
            _initialise(cast(ViT, model))
    return _described(model, timm_name, arguments, input_px)


def _described(model: nn.Module, name: str, arguments: dict[str, Any], input_px: int) -> Encoder:
    """Write on a network of timm's what it is."""
    model = cast(Encoder, model)
    model.embed_dim = cast(int, model.num_features)
    model.timm_name, model.timm_arguments, model.input_px = name, arguments, input_px
    return model


def _initialise(model: ViT) -> None:
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


def save_encoder(
    model: Encoder,
    folder: Path,
    mean: list[float],
    std: list[float],
    mpp: float,
    state: dict[str, Tensor] | None = None,
    **facts: object,
) -> None:
    """Write `model.safetensors` and `config.json` into a folder, each atomically, or neither.

    Args:
        model: made by build_encoder.
        folder: made if absent.
        mean: of the three channels, of images in [0, 1].
        std: likewise.
        mpp: scale of the images, µm/px.
        state: weights to write instead of the model's present ones.
        facts: what else the reader should know: network (student or teacher), step, run.

    Raises:
        NoRoom: the disk or the quota is full; the encoder before stays.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "timm": {"name": model.timm_name, "args": model.timm_arguments},
        "input_px": model.input_px,
        "mpp": mpp,
        "mean": list(mean),
        "std": list(std),
        "embedding_dim": model.embed_dim,
        **facts,
    }
    state = model.state_dict() if state is None else state
    weights = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    # Both are on disk before the weights, and then the config, take their names.
    with (
        atomic(folder / "config.json", "w") as text,
        atomic(folder / "model.safetensors", needed=len(weights)) as file,
    ):
        text.write(json.dumps(config, indent=1) + "\n")
        text.flush()
        file.write(weights)


def load_encoder(folder: Path) -> tuple[Encoder, dict[str, Any]]:
    """Load an encoder folder.

    Args:
        folder: holds `model.safetensors` and `config.json`.

    Returns:
        The module in eval mode, from (N, 3, input_px, input_px) to (N, D), and the config.

    Raises:
        FileNotFoundError: the folder or one of its two files is absent.
        ValueError: the files are of another format, or do not fit each other.
    """
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} is no encoder folder: no {name} in it; give a run's encoder/ folder"
            )
    try:
        config = json.loads((folder / "config.json").read_text())
        form = config["format"]
        name, arguments = config["timm"]["name"], config["timm"]["args"]
        for field in ("input_px", "mpp", "mean", "std", "embedding_dim"):
            config[field]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}/config.json is no encoder's config: {error!r}") from error
    if form != FORMAT:
        raise ValueError(f"{folder} is of encoder format {form}; this code reads {FORMAT}")
    model = timm.create_model(name, **arguments)
    try:
        state = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder}/model.safetensors cannot be read: {error}") from error
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        k = wrong[0]
        raise ValueError(
            f"{folder}/model.safetensors is not the {name} that its config.json describes: "
            f"{len(wrong)} tensors differ, first {k}: expected {expected.get(k, 'absent')}, "
            f"found {found.get(k, 'absent')}"
        )
    model.load_state_dict(state)
    return _described(model, name, arguments, config["input_px"]).eval(), config
