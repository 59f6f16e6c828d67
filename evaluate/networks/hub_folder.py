"""An encoder folder: `config.json`, and weights in one file or in several."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from evaluate.networks.weights import digest, digest_of, fit
from shards.weights import read_state
from train.encoder import WEIGHTS, read_config, weight_files


def is_hub_folder(folder: Path) -> bool:
    """Tell timm's hub layout from that of format 1."""
    try:
        return "architecture" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def open_hub_folder(folder: Path) -> tuple[nn.Module, dict, dict]:
    """Load an encoder by timm's `architecture`, `model_args` and `pretrained_cfg`, or of format 1.

    Returns:
        The module from normalised images (N, 3, input_px, input_px) to (N, D), the config of its
        input, and facts on its weights.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: the config is of no such layout, or the weights do not fit it.
    """
    import timm

    config = read_config(folder)
    name, arguments = config["timm"]["name"], config["timm"]["args"]
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{folder}/config.json: timm {timm.__version__} has no model {name!r}")
    with torch.device("meta"):
        module = timm.create_model(name, **arguments)
    state: dict[str, Tensor] = {}
    for path in weight_files(folder):
        state |= read_state(path)
    module = fit(module, state, f"{folder} as {name}")
    one = folder / WEIGHTS[0]
    sha256 = digest(one) if one.is_file() else digest_of(module)
    return module, config, {"kind": "run", "sha256": sha256}
