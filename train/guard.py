"""The guard against a loss that is no number: stop, name the batch, keep it for replay."""

import math
from pathlib import Path

import torch
from torch import Tensor

from shards.write import atomic
from train.batches import Batches
from train.config import Config
from train.distributed import World


class Diverged(Exception):
    """The loss is infinite or no number."""


class Guard:
    """Remember the first step whose loss was not finite, without waiting for the device."""

    def __init__(self, config: Config, world: World, batches: Batches):
        self.config, self.world, self.batches = config, world, batches
        self._first = torch.full((), -1, device=world.device)  # step; -1: none yet

    def note(self, step: int, loss: Tensor) -> None:
        """Look at a step's loss, on the device.

        Args:
            step: that was done.
            loss: scalar of this rank.
        """
        bad = ~loss.detach().isfinite() & (self._first < 0)
        self._first = torch.where(bad, step, self._first)

    def check(self, mean_loss: float) -> None:
        """Stop if any rank's loss was not finite.

        Args:
            mean_loss: of the last step, over all ranks, so that all stop together.

        Raises:
            Diverged: names the step, and the file with its batch.
        """
        if math.isfinite(mean_loss):
            return
        step = int(self._first)
        if step < 0:  # another rank's
            raise Diverged(f"the loss of another rank is {mean_loss}")
        crops, draws, _ = self.batches[step]  # a pure function of the step: the very same again
        path = Path(self.config.out) / f"diverged-{step:07d}-rank{self.world.rank}.pt"
        with atomic(path) as file:
            torch.save({"step": step, "crops": crops, "draws": [list(d) for d in draws]}, file)
        raise Diverged(
            f"the loss is {mean_loss}; step {step + 1} was the first without a finite one, its "
            f"batch is in {path}. The last checkpoint is sound: the same command replays the steps "
            "since. Lower --lr or raise --warmup-epochs"
        )
