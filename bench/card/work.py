"""What the parts of the benchmark share: painted crops, settings, clocks."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.augment import draw, join
from train.batches import Batch
from train.config import Config, configure
from train.method import Method
from train.policy import POLICIES, Policy

MEAN, STD = (0.58, 0.39, 0.55), (0.23, 0.22, 0.18)


@dataclass
class Card:
    """The device that is asked, and how long it may take."""

    device: torch.device
    tiny: bool  # sizes for a CPU, to see that all runs
    quick: bool

    @property
    def repeats(self) -> int:
        """Timed turns of a measurement."""
        return 1 if self.tiny else 3 if self.quick else 8


def settings(card: Card, **given: Any) -> Config:
    """Return the settings of a run; tiny ones on a CPU."""
    tiny: dict[str, Any] = {"encoder": "vit_ti8", "batch": 8, "hidden": 32}
    if given.get("method", "moco") != "moco":
        tiny |= {"prototypes": 64, "bottleneck": 16}
    return configure(**{"data": "", "out": ""} | given | (tiny if card.tiny else {}))


def crops_of(count: int, seed: int = 0) -> Tensor:
    """Paint crops (N, 3, 60, 60) uint8: a purple ellipse on pink, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :60] - 29.5
    a, b = rng.uniform(8, 16, (2, count, 1, 1))
    inside = ((x / a) ** 2 + (y / b) ** 2 < 1)[:, None]
    image = np.where(inside, np.array([110, 70, 150])[:, None, None], 200.0)
    image = image + rng.normal(0, 12, (count, 3, 60, 60))
    return torch.from_numpy(image.clip(0, 255).astype(np.uint8))


def batch_of(config: Config, model: Method, step: int = 0) -> tuple[Batch, list[Policy]]:
    """Return a batch as the loader gives it, of painted crops, and the views' policies."""
    policies, rows = model.policies(POLICIES[config.policy]), range(config.batch)
    kinds: dict[Policy, list[int]] = {}
    for view, policy in enumerate(policies):
        kinds.setdefault(policy, []).append(view)
    draws = [
        join([draw(policy, view, config.seed, step, config.batch, rows) for view in views])
        for policy, views in kinds.items()
    ]
    drawn = model.draws(step, rows) if model.draws else None
    return Batch(crops_of(config.batch, step), draws, 0, drawn), policies


def wait(device: torch.device) -> None:
    """Wait until a device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(card: Card, work: Callable[[], object], warm_up: int = 2) -> float:
    """Return the median seconds of a call, the device's work with it."""
    took = []
    for _ in range((1 if card.tiny else warm_up) + card.repeats):
        wait(card.device)
        began = time.perf_counter()
        work()
        wait(card.device)
        took.append(time.perf_counter() - began)
    return float(np.median(took[-card.repeats :]))


def normal(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and sd of pixels, (1, 3, 1, 1)."""
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return mean, std
