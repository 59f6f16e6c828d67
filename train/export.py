"""An encoder folder to give away: in half the size, with a score that whoever has it can repeat."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.encoder import load_encoder, save_encoder
from train.knn import Knn
from train.start import find_encoder

LARGEST = 15_000_000  # bytes of a file that belongs into a repository
INPUT = ("format", "timm", "input_px", "mpp", "mean", "std", "sha256")  # keys written anew


def export(run: str, out: Path, half: bool = False, probe: Path | None = None) -> dict[str, Any]:
    """Write an encoder into a folder of its own.

    Args:
        run: as for `find_encoder`.
        out: the folder, e.g. encoders/lemon-NAME; an encoder in it is replaced.
        half: matrices and filters as float16; vectors and running statistics stay float32.
        probe: prepared benchmark whose k-NN score goes into config.json under `knn`.

    Returns:
        The facts under `lemon` in config.json.

    Raises:
        FileNotFoundError: no encoder, or no benchmark there.
        ValueError: the weights would be larger than LARGEST, or are no finite float16.
    """
    model, config = load_encoder(find_encoder(run))
    state = {name: _half(name, v) if half else v for name, v in model.state_dict().items()}
    size = sum(tensor.nbytes for tensor in state.values())
    if size > LARGEST:
        cure = "take a smaller encoder" if half else "give --float16"
        raise ValueError(
            f"the weights would be {size / 1e6:.1f} MB, and a file that comes with a clone has at "
            f"most {LARGEST / 1e6:.0f} MB: {cure}"
        )
    facts = {name: value for name, value in config.items() if name not in INPUT}
    facts.pop("embedding_dim", None)  # of format 1
    if half:
        facts["weights"] = "float16"
    if probe:
        model.load_state_dict(state)  # the score of what is written
        facts["knn"] = score(model, config, probe)
    mean, std = config["mean"], config["std"]
    save_encoder(model, out, mean, std, config["mpp"], state, **facts)
    return facts


def score(model: torch.nn.Module, config: dict[str, Any], probe: Path) -> dict[str, Any]:
    """Return the online probe's score of an encoder, and of what it is."""
    knn = Knn(probe, config["input_px"])
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    found = knn.score(model, mean, std)
    return {"benchmark": probe.resolve().name, "cells": len(knn.labels), "score": round(found, 4)}


def _half(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    tensor = tensor.half()
    if not tensor.isfinite().all():
        raise ValueError(f"{name} does not fit into float16; leave --float16 out")
    return tensor
