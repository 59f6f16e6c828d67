"""Batches: item `step` of the data set is this rank's part of the global batch of that step."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from shards.errors import explain
from shards.read import Shards
from shards.stream import Stream
from train.augment import Draws, draw, join
from train.distributed import World
from train.policy import Policy


class Batch(NamedTuple):
    """A rank's part of a step's global batch, on the CPU; pinned where there is a GPU."""

    crops: Tensor  # (N, 3, 60, 60) uint8
    draws: list[Draws]  # for each run of equal policies, its views joined
    skipped: int = 0  # crops that were broken
    drawn: Any = None  # what else the method wants


class Unreadable(Exception):
    """A batch of this rank cannot be read; the other ranks know nothing of it."""


class Batches(Dataset):
    """Map a step to a Batch.

    A pure function of (seed, step) and the rows wanted, so workers may take steps in any order,
    a resumed run sees what it would have seen, and ranks share out one global batch.
    """

    def __init__(
        self,
        shards: Shards,
        policies: Sequence[Policy],
        seed: int,
        batch: int,
        rows: range,
        skip_corrupt: bool = False,
        draws: Callable[[int, range, np.ndarray], Any] | None = None,
    ):
        """Describe the batches.

        Args:
            shards: the data.
            policies: of augmentation, one for each view of an image.
            seed: of order and draws.
            batch: size of the global batch.
            rows: this rank's places in it.
            skip_corrupt: take the next whole crop for a broken one, instead of an error.
            draws: of Method.draws.
        """
        self.draws = draws
        self.policies, self.skip_corrupt = policies, skip_corrupt
        self.seed, self.batch, self.rows = seed, batch, rows
        rank, ranks = rows.start // len(rows), batch // len(rows)
        self.stream = Stream(shards, batch, rank, ranks, seed)

    def __getitem__(self, step: int) -> Batch:
        skipped: list[tuple[int, str]] | None = [] if self.skip_corrupt else None
        crops = self.stream.read(step, skipped)
        views = enumerate(self.policies)
        draws = [
            join([draw(policy, view, self.seed, step, self.batch, self.rows) for view, _ in alike])
            for policy, alike in groupby(views, key=lambda numbered: numbered[1])
        ]
        drawn = self.draws(step, self.rows, crops) if self.draws else None
        return Batch(torch.from_numpy(crops), draws, len(skipped or ()), drawn)


def loader(batches: Batches, steps: range, world: World, workers: int) -> Iterator[Batch]:
    """Load the batches of some steps, in order.

    Args:
        batches: of this rank.
        steps: which.
        world: this process.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        Unreadable: a crop is broken, a shard gone, a disk full, a worker killed.
    """
    loaded = DataLoader(
        batches,
        batch_size=None,  # an item is a whole batch
        sampler=steps,
        num_workers=workers,
        pin_memory=world.device.type == "cuda",
        persistent_workers=False,
    )
    try:
        yield from loaded
    except (OSError, ValueError) as error:
        # torch puts a worker's whole traceback before it.
        said = re.split(rf"\n(?:\w+\.)*{type(error).__name__}: ", explain(error))[-1]
        raise Unreadable(said.strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise Unreadable(
            f"{error}: a process that reads the shards has died; of too little memory, say (give "
            "fewer --workers), or /dev/shm is too small"
        ) from error
