"""What a run would take, before it is started: the dry run."""

import time
from itertools import groupby

import numpy as np
import torch

from shards.read import Shards
from shards.schema import CROP_PX, VIEW_PX
from train.config import Config, DinoConfig
from train.flops import forward_flops, matmul_peak
from train.memory import Memory, NotPredicted, card_bytes
from train.method import Method
from train.methods import build_model
from train.policy import POLICIES
from train.start import start_from
from train.step import tune

TIMED_IMAGES = {"cpu": 16, "cuda": 1024}  # of the step that is timed: fewer leave a GPU idle


def describe(config: Config, ranks: int, device: torch.device) -> str:
    """Describe a run: size, cost, data, negatives, memory, time.

    Args:
        config: of the run.
        ranks: processes it is meant for.
        device: of this process, on which a small step is timed.

    Raises:
        FileNotFoundError: no shards.
        ValueError: they are damaged.
    """
    shards = Shards(config.data)
    model = build_model(config)
    if config.init:
        start_from(config.init, model)
    model = model.to(device)
    tune(model, config, device)
    encoder = model.encoder
    parameters = sum(p.numel() for p in encoder.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    flops = forward_flops(model.teacher_encoder, 1, 3, VIEW_PX, VIEW_PX)
    cost = model.flops()
    rate = _images_per_second(model, config, device, config.batch // ranks) * ranks
    peak = matmul_peak(device, config.precision)
    images = config.steps * config.batch
    sides = view_sides(model, config)
    what, against = model.compared_with(ranks)
    state = 4 * (everything + 3 * trained)  # weights; gradients and AdamW's two moments
    hours = images / rate / 3600
    lines = [
        f"encoder        {config.encoder}: {parameters / 1e6:.1f} M parameters, "
        f"{flops / 2e9:.3f} GMAC an image of {VIEW_PX} px (the paper: 0.5 G for ViT-S/8)",
        *([f"start          the weights of {config.init}"] if config.init else []),
        f"training       {trained / 1e6:.1f} M parameters trained, "
        f"{cost / 1e9:.2f} GFLOP an image ({len(sides)} views, student and teacher)",
        f"steps          {config.steps} of {config.batch} images: {images:,} in "
        f"{config.epochs:g} epochs of {config.epoch_samples:,}",
        f"data           {len(shards):,} cells of {shards.info['slides']} slides in "
        f"{len(shards.info['shards'])} shards: {images / len(shards):.2f} passes; "
        f"{len(shards.info['shards']) / ranks:.1f} shards a rank",
        f"{what:15}{against}",
        f"memory         {_memory(config, config.batch // ranks, device, state)}",
        f"speed          about {rate:,.0f} images/s on {ranks} ranks like this one "
        f"({device.type}, {config.precision}; {rate / ranks * cost / peak:.0%} of its "
        f"matmul peak): {hours:,.1f} hours",
        f"checkpoints    every {config.checkpoint_every} steps, "
        f"{config.checkpoint_every * config.batch / rate / 60:,.1f} minutes",
    ]
    if config.time_limit_hours:
        every = config.checkpoint_every * config.batch / rate / 3600
        fits = "fits" if every <= config.time_limit_hours / 2 else "does NOT fit: lower it"
        jobs = -(-hours // config.time_limit_hours)
        lines.append(
            f"time limit     {config.time_limit_hours:g} hours: {jobs:.0f} jobs in a row; the "
            f"checkpoint interval {fits}"
        )
    return "\n".join(lines)


def view_sides(model: Method, config: Config) -> list[int]:
    """Return the side of each view of an image, px."""
    return [policy.view_px for policy in model.policies(POLICIES[config.policy])]


def _memory(config: Config, images: int, device: torch.device, state: int) -> str:
    """Return what a rank's step takes of a GPU, and what would fit, on two lines.

    Args:
        config: of the run.
        images: of this rank.
        device: whose memory is meant, unless the settings name a card's.
        state: bytes of weights, gradients and moments.
    """
    memory, card = Memory(config), config.card_gib * 2**30 or card_bytes(device)
    try:
        most = memory.peak(images)
        fits = memory.advice(card) if card else "give --card-gib for the largest batch that fits"
    except NotPredicted as error:
        return str(error)
    return (
        f"{most / 2**30:.1f} GiB of a GPU a rank at the peak, with {images} images: "
        f"{state / 2**30:.1f} weights and optimiser, {(most - state) / 2**30:.1f} activations, "
        f"logits and libraries\n               {fits}"
    )


def _images_per_second(model: Method, config: Config, device: torch.device, here: int) -> float:
    """Return this rank's speed, by a step of as many images as fit."""
    images = max(2, min(TIMED_IMAGES[device.type], here))
    while True:
        try:
            return images / _time_step(model, config, device, images)
        except torch.OutOfMemoryError:
            if images <= TIMED_IMAGES["cpu"]:
                raise
        images //= 2
        model.zero_grad(set_to_none=True)


def _time_step(model: Method, config: Config, device: torch.device, images: int) -> float:
    """Return the seconds of a forward and backward pass of a few images, best of three."""
    views = [
        torch.rand(len(list(alike)) * images, 3, side, side, device=device)
        for side, alike in groupby(view_sides(model, config))
    ]
    values = {"momentum": 1.0}
    if isinstance(config, DinoConfig):
        values["temperature"] = config.teacher_temperature
    crops = np.zeros((images, 3, CROP_PX, CROP_PX), np.uint8)
    drawn = model.draws(0, range(images), crops) if model.draws else None
    inputs = model.step_inputs(drawn, views, values)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = model(*inputs)["loss"]
        loss.backward()
        loss.item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return best
