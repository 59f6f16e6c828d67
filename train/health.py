"""Whether a run is well: a loss that is no number, embeddings that collapse; when to stop."""

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from shards.errors import explain
from shards.write import atomic
from train.batches import Batches
from train.config import Config
from train.distributed import World

ROWS = 256  # embeddings looked at, so that the spectrum costs little
AT_CHANCE = 0.01  # a loss within this share of chance has learnt nothing
PATIENCE = 3  # looks in a row at which a limit must be broken
# name -> (warn below, stop below). In 50 steps of 32 with ViT-Ti/8 the rank, of centred embeddings,
# was 8 to 13 in MoCo v3 that learnt, 1.6 to 2.8 in DINO that had collapsed. Spread was 0.5 to 0.8
# in both, and falls to 0.037 in long runs that are well, with what all embeddings share: only below
# bfloat16's resolution, 0.004, are the differences lost. In 7,050 steps of 128 a slim ResNet-18 had
# spread 0.65 to 0.56, rank 79 (untrained) to 62 and cosine 0.29 to 0.36: far from either limit.
LIMITS = {"spread": (0.004, 0.002), "rank": (4.0, 2.0)}

log = logging.getLogger(__name__)


class Diverged(Exception):
    """The loss is infinite or no number."""


class Collapsed(Exception):
    """All images are embedded alike, or along one line."""


class Health:
    """Stop a run whose loss is no number, or whose embeddings have collapsed."""

    def __init__(
        self,
        config: Config,
        world: World,
        batches: Batches,
        first_checked: float,
        chance: tuple[str, float],
    ):
        """Describe the run.

        Args:
            config: its settings.
            world: this process.
            batches: that it is given.
            first_checked: steps after which embeddings are checked for collapse.
            chance: a term of the log, and its value by chance.
        """
        self.guard, self.watch = Guard(config, world, batches), Watch()
        self.progress, self.rank = Progress(config.steps, *chance), world.rank
        self.first_checked = first_checked

    def note(self, step: int, loss: Tensor) -> None:
        """Look at every step's loss, on the device."""
        self.guard.note(step, loss)

    def check(self, done: int, line: dict[str, float]) -> None:
        """Judge a line of the log.

        Args:
            done: steps.
            line: what Record.line returned, means over all ranks.

        Raises:
            Diverged: the loss is infinite or no number.
            Collapsed: a limit was broken for too long.
        """
        self.guard.check(line["loss"])
        if done > self.first_checked:
            self.watch.look(done, line)
        if self.rank == 0:
            self.progress.look(done, line)


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
        batch = self.batches[step]  # a pure function of the step: the very same again
        path = Path(self.config.out) / f"diverged-{step:07d}-rank{self.world.rank}.pt"
        try:
            with atomic(path) as file:
                draws = [list(d) for d in batch.draws]
                torch.save({"step": step, "crops": batch.crops, "draws": draws}, file)
            kept = f"is in {path}"
        except OSError as error:
            kept = f"could not be kept ({explain(error)})"
        raise Diverged(
            f"the loss is {mean_loss}; step {step + 1} was the first without a finite one, its "
            f"batch {kept}. The last checkpoint is sound: the same command replays the steps "
            "since. Lower --lr or raise --warmup-epochs"
        )


def spectrum(embeddings: Tensor) -> dict[str, Tensor]:
    """Measure how an encoder's embeddings are spread.

    Args:
        embeddings: (N, D), of different images; on the CPU, that no GPU waits for it.

    Returns:
        Scalars: spread, the mean sd of a coordinate over the root mean square of all; rank, the
        effective rank exp(entropy of the normalised singular values) of the centred embeddings
        (Roy and Vetterli 2007); cosine, the root mean square cosine between different images'
        centred embeddings, 1 where all lie on a line.
    """
    x = embeddings[:ROWS].detach().float().nan_to_num()  # the guard stops for what is no number
    centred = x - x.mean(0)
    spread = centred.square().mean().sqrt() / x.square().mean().sqrt().clamp(min=1e-30)
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp(min=1e-30)
    rank = torch.exp(-(share * share.clamp(min=1e-30).log()).sum())
    unit = torch.nn.functional.normalize(centred, dim=1)
    n = len(x)
    cosine = (((unit @ unit.T).square().sum() - n).clamp(min=0) / (n * (n - 1))).sqrt()
    return {"spread": spread, "rank": rank, "cosine": cosine}


class Progress:
    """Say after each tenth of a run that it has learnt nothing yet, as long as that is so."""

    def __init__(self, steps: int, term: str, chance: float):
        """Describe the run.

        Args:
            steps: of the whole run.
            term: of the log.
            chance: its value where nothing has been learnt.
        """
        self.steps, self.term, self.chance = steps, term, chance
        self._least, self._tenth = math.inf, 0

    def look(self, done: int, line: dict[str, float]) -> None:
        """Look at a line of the log, after `done` steps."""
        self._least = min(self._least, line[self.term])
        tenth = 10 * done // self.steps
        if tenth > self._tenth and self._least > (1 - AT_CHANCE) * self.chance:
            log.warning(
                "step %d of %d: nothing is learnt yet: %s has not left chance, %.4g, by 1 %% (at "
                "best %.4g). Give a larger --batch, a longer --warmup-epochs with a lower --lr, or "
                "a milder --policy (light)",
                *(done, self.steps, self.term, self.chance, self._least),
            )
        self._tenth = tenth


class Watch:
    """Warn, then stop, when a limit stays broken."""

    def __init__(self) -> None:
        self._broken = dict.fromkeys(LIMITS, 0)

    def look(self, step: int, values: dict[str, float]) -> None:
        """Judge the health at a step.

        Args:
            step: steps done.
            values: of `spectrum`, averaged over the ranks.

        Raises:
            Collapsed: a limit was broken at PATIENCE looks in a row.
        """
        for name, (warn, stop) in LIMITS.items():
            if values[name] < warn:
                log.warning("step %d: %s of the embeddings is %.2g", step, name, values[name])
            self._broken[name] = self._broken[name] + 1 if values[name] < stop else 0
            if self._broken[name] >= PATIENCE:
                raise Collapsed(
                    f"the embeddings have collapsed: {name} is {values[name]:.2g} at step {step} "
                    f"and was below {stop} at {PATIENCE} looks in a row. Lower --lr, raise "
                    "--warmup-epochs or --batch, or resume from an earlier checkpoint"
                )
