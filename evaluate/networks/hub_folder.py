"""An encoder folder in timm's hub layout: `config.json`, and weights in one file or in several."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluate.networks.weights import digest, digest_of, fit, read_state
from shards.schema import MPP

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # one of the two


def is_hub_folder(folder: Path) -> bool:
    """Tell timm's hub layout from that of a run's encoder/."""
    try:
        return "architecture" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def open_hub_folder(folder: Path) -> tuple[nn.Module, dict, dict]:
    """Load an encoder by timm's `architecture`, `model_args` and `pretrained_cfg`.

    What is ours stands under the key `lemon`: `mpp`, and whatever else the folder says of itself.

    Returns:
        The module from normalised images (N, 3, input_px, input_px) to (N, D), the config of its
        input, and facts on its weights.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: the config is not of this layout, or the weights do not fit it.
    """
    import timm

    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())
        name, own = found["architecture"], found.get("lemon", {})
        arguments: dict[str, Any] = {"num_classes": 0} | dict(found.get("model_args", {}))
        if "global_pool" in found:
            arguments["global_pool"] = found["global_pool"]
        data = found["pretrained_cfg"]
        config = {
            "input_px": int(data["input_size"][-1]),
            "mpp": float(own.get("mpp", MPP)),
            "mean": [float(v) for v in data["mean"]],
            "std": [float(v) for v in data["std"]],
            "timm": {"name": name, "args": arguments},
            **{key: value for key, value in own.items() if key != "mpp"},
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is not in timm's hub layout: {error!r}") from error
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{path}: timm {timm.__version__} has no model {name!r}")
    with torch.device("meta"):
        module = timm.create_model(name, **arguments)
    module = fit(module, read_weights(folder), f"{folder} as {name}")
    one = folder / WEIGHTS[0]
    sha256 = digest(one) if one.is_file() else digest_of(module)
    return module, config, {"kind": "run", "sha256": sha256}


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read `model.safetensors`, or the files that its index names.

    Raises:
        FileNotFoundError: none of the two, or a file that the index names is absent.
        ValueError: a file cannot be read, or the index names a file elsewhere.
    """
    one, index = (folder / name for name in WEIGHTS)
    if one.is_file():
        return read_state(one)
    if not index.is_file():
        raise FileNotFoundError(f"{folder} holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights: {error!r}") from error
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names a file elsewhere: {name!r}")
        state |= read_state(folder / name)
    return state
