"""The network's weights: those that come with the clone, a HoverFast checkpoint, or one's own."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from extract.network.architecture import HoverFast
from shards.filetype import check_file
from shards.weights import read_state, unwrapped
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
    check_file(path)
    with open(path, "rb") as file:
        safetensors = len(start := file.read(9)) == 9 and start[8:] == b"{"
    if safetensors:
        try:
            with safe_open(path, "pt") as file:
                about = json.loads((file.metadata() or {}).get("hoverfast", "{}"))
                weights = {name: file.get_tensor(name).float() for name in list(file.keys())}
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read as weights ({error}): damaged") from error
    else:
        about = read_state(path)
        weights = about.get("model_dict")
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
    if not all(isinstance(about[size], int) and 0 < about[size] < 16 for size in ("depth", "wf")):
        raise ValueError(f"{path}: depth {about['depth']!r} and wf {about['wf']!r} are no sizes")
    network = HoverFast(about["depth"], about["wf"])
    try:
        network.load_state_dict(unwrapped(weights))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} does not fit HoverFast's network: {error}") from error
    if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        raise ValueError(f"{path} holds weights that are no numbers (NaN): its training failed")
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
