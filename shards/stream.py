"""The stream of global batches: equal work for every rank, resumable anywhere by two integers."""

import os

import numpy as np

from shards.order import Order
from shards.read import Shards


class Stream:
    """Global batches in the order of a seed, of which this is one rank's part.

    Item `step` is a pure function of (seed, position of its first sample), so it does not matter
    which worker or rank reads it, or after which others. The state of a run is `state(step)`, two
    integers: give them to another Stream, with as many ranks and as large a batch as you like, and
    it goes on with the very next sample. Endless: passes follow one another, and an epoch is
    whatever number of samples the caller takes.
    """

    def __init__(
        self, shards: Shards, batch: int, rank: int = 0, ranks: int = 1, seed: int = 0,
        position: int = 0,
    ):  # fmt: skip
        """Describe the stream.

        Args:
            batch: samples of a global batch.
            rank: of this process.
            ranks: that share a global batch evenly.
            position: of the first sample of step 0, from 0 over all passes.

        Raises:
            ValueError: the batch cannot be shared evenly, or the state is no state.
        """
        if batch < 1 or batch % ranks:
            raise ValueError(f"a batch of {batch} cannot be shared evenly by {ranks} ranks")
        if not 0 <= rank < ranks or position < 0 or seed < 0:
            raise ValueError(f"no stream: rank {rank} of {ranks}, seed {seed}, position {position}")
        self.shards, self.batch, self.seed, self.position = shards, batch, seed, position
        self._rank, self._ranks = rank, ranks
        self._order = Order(shards.samples, seed)

    def rows(self, step: int) -> np.ndarray:
        """Return the rows of the index in this rank's part of a step, (batch / ranks,) int64."""
        part = self.batch // self._ranks
        start = self.position + step * self.batch + self._rank * part
        return self._order.rows(np.arange(start, start + part))

    def read(self, step: int, skipped: list[tuple[int, str]] | None = None) -> np.ndarray:
        """Return the crops of this rank's part of a step.

        Args:
            skipped: as for `Shards.read`.

        Returns:
            (batch / ranks, 3, patch_px, patch_px) uint8, channels last in memory.
        """
        self._read_ahead(step)
        return self.shards.read(self.rows(step), skipped)

    def state(self, step: int) -> dict[str, int]:
        """Return what to continue from before a step: `Stream(…, **state)`."""
        return {"seed": self.seed, "position": self.position + step * self.batch}

    def _read_ahead(self, step: int) -> None:
        """Have the shards of the next window read, each by one rank of the machine."""
        start = self.position + step * self.batch
        # torchrun says which rank of its machine this is; machines do not share a page cache.
        here = int(os.environ.get("LOCAL_RANK", self._rank))
        of = int(os.environ.get("LOCAL_WORLD_SIZE", self._ranks))
        due = self._order.due(start, start + self.batch)
        self.shards.advise([shard for shard in dict.fromkeys(due) if shard % of == here % of])
