"""The released LEMON: MoCo v3's checkpoint `lemon.pth.tar` and `mean_std.json`."""

import json
import math
from pathlib import Path

import torch
from torch import nn

from evaluate.networks.weights import digest, fit
from shards.schema import MPP
from shards.weights import read_state

PREFIX = "module.base_encoder."
HEADS = 12  # of MoCo v3's ViTs of any width, where timm's ViT-S has 6
WIDTHS = {384: "vit_small_patch16_224", 768: "vit_base_patch16_224"}  # timm's, patches replaced


def open_lemon(path: Path) -> tuple[nn.Module, dict, dict]:
    """Load the student's encoder; the width and the patch are those of the file.

    Source: the model card's `get_vit_feature_extractor` and `prepare_transform`: ToTensor,
    Normalize, CenterCrop(40), and no resizing. There weights are loaded with strict=False, which
    hides what does not fit; here every tensor must.

    Args:
        path: a folder with lemon.pth.tar and mean_std.json, or the former beside the latter.

    Returns:
        The module from normalised images (N, 3, 40, 40) to the class token (N, D), the config of
        its input, and facts on its weights.

    Raises:
        FileNotFoundError: one of the two files is absent.
        ValueError: the files are of another kind.
    """
    import timm

    file = path / "lemon.pth.tar" if path.is_dir() else path
    norm = file.with_name("mean_std.json")
    if not norm.is_file():
        raise FileNotFoundError(f"no mean_std.json beside {file}: it is published with the weights")
    state = read_state(file)
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in state.get("state_dict", {}).items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}head")
    }
    if "pos_embed" not in state or "patch_embed.proj.weight" not in state:
        raise ValueError(f"{file} is no LEMON checkpoint: no {PREFIX}pos_embed under state_dict")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    if width not in WIDTHS:
        raise ValueError(f"{file} is of width {width}; known are {', '.join(map(str, WIDTHS))}")
    side = patch * math.isqrt(state["pos_embed"].shape[1] - 1)
    arguments = {"patch_size": patch, "img_size": side, "num_heads": HEADS, "global_pool": "token"}
    with torch.device("meta"):
        module = timm.create_model(WIDTHS[width], num_classes=0, **arguments)
    fit(module, state, f"{file} as LEMON")
    try:
        facts = json.loads(norm.read_text())
        mean, std = (list(map(float, facts[key])) for key in ("mean", "std"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{norm} holds no mean and std of three channels: {error!r}") from error
    config = {"input_px": side, "mpp": MPP, "mean": mean, "std": std, "readout": "class"}
    config["timm"] = {"name": WIDTHS[width], "args": arguments}
    return module, config, {"kind": "lemon", "sha256": digest(file)}
