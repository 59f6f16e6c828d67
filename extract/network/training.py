"""Train HoverFast's network on fields with outlined nuclei; a rerun goes on where it stopped."""

import json
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from extract import gpu
from extract.network.architecture import HoverFast
from extract.network.fields import Field
from extract.network.patches import draw_patch
from shards.weights import read_state
from shards.write import atomic

CHECKPOINT = "checkpoint.pt"
SOBEL = 5  # px, the kernel whose response to the maps is compared as well

log = logging.getLogger(__name__)


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Training:
    """Settings of a training run; their help is the command's."""

    steps: int = _setting(4000, "batches in all")
    decay: int = _setting(2000, "of the steps, at the end, in which the learning rate falls to 0")
    batch: int = _setting(4, "patches of 256x256 px")
    lr: float = _setting(2e-3, "of AdamW")
    warmup: int = _setting(100, "steps in which the learning rate rises")
    weight_decay: float = _setting(1e-4, "of AdamW")
    average: float = _setting(
        0.998, "decay of the weights' exponential moving average, which is what is kept"
    )
    seed: int = _setting(0, "of weights and patches")


def train(
    fields: list[Field],
    weights: np.ndarray,
    out: Path,
    settings: Training,
    init: Path | None = None,
    save_every: int = 100,
    compile: bool = False,
) -> HoverFast:
    """Train, or go on training, and return the network with averaged weights.

    Args:
        fields: to draw patches from.
        weights: (len(fields),) probabilities.
        out: folder of the checkpoint and the log.
        settings: of the run.
        init: a checkpoint of another run to start from, its optimiser's state included.
        save_every: steps between checkpoints.
        compile: the step by torch.compile.

    Raises:
        ValueError: the loss is no number.
    """
    torch.manual_seed(settings.seed)
    device = gpu.device()
    network = HoverFast().to(device).to(memory_format=torch.channels_last)
    averaged = HoverFast().to(device)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    out.mkdir(parents=True, exist_ok=True)
    first = 0
    start = out / CHECKPOINT if (out / CHECKPOINT).exists() else init
    if start:
        state = read_state(start)
        if not {"network", "averaged", "optimiser", "step"} <= state.keys():
            raise ValueError(f"{start} is no checkpoint of train-segmenter")
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"] if start != init else 0
    forward = torch.compile(network) if compile else network
    began, losses = time.perf_counter(), []
    for step in range(first, settings.steps):
        network.train()
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * _rate(step, settings, warm=init is None)
        image, nuclei, maps, known = _batch(fields, weights, settings, step, device)
        with torch.autocast(device.type, torch.bfloat16):
            logits, predicted = forward(image)
        loss = segmentation_loss(logits.float(), predicted.float(), nuclei, maps, known)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        early = 1.0 if init else (step + 1) / (step + 20)
        _average(averaged, network, min(settings.average, early))
        losses.append(loss.item())  # waits for the step: the only time
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss of step {step} is {losses[-1]}; a lower --lr may help")
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            _save(out, network, averaged, optimiser, step + 1)
            record = {
                "step": step + 1,
                "loss": float(np.mean(losses)),
                "lr": optimiser.param_groups[0]["lr"],
                "seconds": round(time.perf_counter() - began, 1),
            }
            with open(out / "log.jsonl", "a") as file:
                file.write(json.dumps(record) + "\n")
            log.info("step %(step)d: loss %(loss).4f, %(seconds).0f s", record)
            losses.clear()
    return averaged


def segmentation_loss(
    logits: Tensor, predicted: Tensor, nuclei: Tensor, maps: Tensor, known: Tensor
) -> Tensor:
    """Add up cross-entropy, Dice, and squared errors of the maps and of their slopes.

    The terms are HoVer-Net's (section 3.1.1); the maps count inside nuclei, and a tenth as much
    outside, where they should be 0.

    Args:
        logits: (N, 2, H, W).
        predicted: (N, 2, H, W) maps.
        nuclei: (N, H, W) int64, 1, 0 or -100 (not counted).
        maps: (N, 2, H, W).
        known: (N, H, W), 1 where the maps count.
    """
    entropy = nn.functional.cross_entropy(logits, nuclei, ignore_index=-100)
    counted = (nuclei >= 0).float()
    inside = (nuclei == 1).float()
    probability = logits.softmax(1)[:, 1] * counted
    overlap = (probability * inside).sum((1, 2))
    size = probability.sum((1, 2)) + inside.sum((1, 2))
    dice = (1 - (2 * overlap + 1) / (size + 1)).mean()
    weight = (known * (inside + 0.1 * (1 - inside) * counted))[:, None]
    total = weight.sum() * 2 + 1
    value = ((predicted - maps).square() * weight).sum() / total
    slope = ((slopes(predicted) - slopes(maps)).square() * (weight * inside[:, None])).sum() / total
    return entropy + dice + 2 * value + 20 * slope


def slopes(maps: Tensor) -> Tensor:
    """Return each map's slope along its own axis, per px, by a smoothed difference.

    Args:
        maps: (N, 2, H, W), along x and along y.

    Returns:
        (N, 2, H, W).
    """
    place = torch.arange(SOBEL, dtype=maps.dtype, device=maps.device) - SOBEL // 2
    smooth = torch.exp(-(place**2) / 2)
    difference = place * smooth
    kernel = torch.outer(smooth / smooth.sum(), difference / (difference * place).sum())
    kernels = torch.stack([kernel, kernel.T])[:, None]
    return nn.functional.conv2d(maps, kernels, padding=SOBEL // 2, groups=2)


def _rate(step: int, settings: Training, warm: bool) -> float:
    """Return the learning rate's share of `lr`: up in a line, level, down in a line."""
    up = (step + 1) / settings.warmup if warm else 1.0
    down = (settings.steps - step) / max(settings.decay, 1) if settings.decay else 1.0
    return min(up, down, 1.0)


def _batch(
    fields: list[Field], weights: np.ndarray, settings: Training, step: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a step's patches."""
    drawn = [
        draw_patch(fields, weights, (settings.seed, step, place)) for place in range(settings.batch)
    ]
    stacked = (torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True))
    image, nuclei, maps, known = (part.to(device) for part in stacked)
    image = image.permute(0, 3, 1, 2).float().div_(255)
    return image.contiguous(memory_format=torch.channels_last), nuclei, maps, known


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and batch statistics towards the network's."""
    pairs = zip(averaged.state_dict().values(), network.state_dict().values(), strict=True)
    for kept, new in pairs:
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _save(
    out: Path, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write the whole state."""
    state = {
        "step": step,
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with atomic(out / CHECKPOINT) as file:
        torch.save(state, file)
