"""The network's weights: those that come with the clone, a HoverFast checkpoint, or one's own."""

import json
import pickle
import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from extract.network.architecture import HoverFast
from shards.write import atomic

FIXED = {  # of HoverFast's options, the only ones its published networks use
    "n_classes": 2,
    "in_channels": 3,
    "padding": True,
    "up_mode": "upconv",
    "batch_norm": True,
    "conv_block": "msunet",
}


def load_network(path: Path) -> HoverFast:
    """Load weights strictly.

    Args:
        path: `.safetensors` as `save_network` writes it, or a checkpoint as HoverFast's `train`
            writes it.

    Raises:
        ValueError: it is neither, or of another architecture.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        safetensors = len(start := file.read(9)) == 9 and start[8:] == b"{"
    try:
        if safetensors:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("hoverfast", "{}"))
                weights = {name: file.get_tensor(name).float() for name in list(file.keys())}
        else:
            about = torch.load(path, map_location="cpu", weights_only=True)
            weights = about.get("model_dict") if isinstance(about, dict) else None
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError, struct.error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is no checkpoint of HoverFast's (tensors and plain values alone are read): "
            f"{first[:200]}"
        ) from error
    if not isinstance(weights, dict) or not {"depth", "wf"} <= set(about):
        raise ValueError(
            f"{path} is no checkpoint of HoverFast's: it holds no model_dict, depth and wf"
        )
    for option, value in FIXED.items():
        if about.get(option, value) != value:
            raise ValueError(
                f"{path}: {option} is {about[option]!r}; in process only {value!r} is built: "
                "run it with --hoverfast-command"
            )
    network = HoverFast(int(about["depth"]), int(about["wf"]))
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit HoverFast's network: {error}") from error
    return network.eval()


def save_network(network: HoverFast, path: Path, **about) -> None:
    """Write weights as float16 safetensors.

    Args:
        network: to write.
        path: the file.
        about: what else to keep in its metadata, e.g. how it was trained.
    """
    weights = {name: _half(value) for name, value in network.state_dict().items()}
    described = {"depth": network.depth, "wf": network.width, **about}
    with atomic(path) as file:
        file.write(save(weights, {"format": "pt", "hoverfast": json.dumps(described)}))


def save_checkpoint(network: HoverFast, path: Path, **about) -> None:
    """Write weights as HoverFast itself reads them (`HoverFast infer_wsi -m`)."""
    state = {
        "epoch": 0,
        "best_loss_on_test": 0.0,
        **FIXED,
        "depth": network.depth,
        "wf": network.width,
        "model_dict": {k: v.contiguous() for k, v in network.state_dict().items()},
        **about,
    }
    with atomic(path) as file:
        torch.save(state, file)


def _half(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor in half precision where it is a number with a point."""
    return (value.half() if value.is_floating_point() else value).contiguous()
