"""The order of samples: a pure function of (seed, position), whoever asks.

A run's samples are numbered by position, from 0 over all epochs. Position p lies in pass p // n
over the n samples of the data set, and each pass is another permutation, so every cell is seen
once before any is seen twice. A pass takes the shards in a random order, a window of them at a
time, and the samples of a window in a random order: `mix` has shuffled the cells over the shards
already, so a window is a random sample of all slides, while reads stay within a few files. All is
computed at the positions asked for, by keyed bijections: no process holds an n-long array.
"""

from collections.abc import Sequence

import numpy as np

ROUNDS = 6  # of the Feistel network; 4 are a pseudo-random permutation (Luby and Rackoff 1988)
WINDOW = 80_000  # samples from which a batch is drawn: 8 shards of 10,000, 280 MB


class Order:
    """The order of the samples of a data set under one seed."""

    def __init__(self, samples: Sequence[int], seed: int, window: int = WINDOW):
        """Lay out the order.

        Args:
            samples: in each shard, in the order of the index; at least one in all.
            seed: of the order.
            window: samples from which a batch is drawn, about; at least one shard.
        """
        self._sizes = np.asarray(samples, np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # row of the index
        self.n = int(self._sizes.sum())
        assert self.n > 0
        self.seed = seed
        self.shards_a_window = min(
            max(1, round(window * len(self._sizes) / self.n)), len(self._sizes)
        )
        self._passes: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # this one and the next

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows of the index at the given positions of a run.

        Args:
            positions: (N,) integers >= 0.

        Returns:
            (N,) int64 in [0, n).
        """
        positions = np.asarray(positions, np.int64)
        rows = np.empty(len(positions), np.int64)
        turns, places = positions // self.n, positions % self.n
        for turn in np.unique(turns):  # one or two within a batch
            shards, ends = self._layout(int(turn))
            window_ends = ends[self.shards_a_window :: self.shards_a_window]
            windows = np.searchsorted(window_ends, places, side="right")
            for w in np.unique(windows[turns == turn]):
                here = (turns == turn) & (windows == w)
                low = int(w) * self.shards_a_window
                within = ends[low : low + self.shards_a_window + 1] - ends[low]
                key = (self.seed, int(turn), int(w) + 1)
                sample = permute(places[here] - ends[low], int(within[-1]), key)
                shard = np.searchsorted(within, sample, side="right") - 1
                rows[here] = self._first[shards[low + shard]] + sample - within[shard]
        return rows

    def due(self, start: int, stop: int) -> list[int]:
        """Name the shards to be read ahead while the positions [start, stop) are used.

        Spread over the batches of a window, each shard of the next one falls due once.

        Args:
            start: first position of a batch.
            stop: the position after its last.

        Returns:
            Numbers of shards.
        """
        due: list[int] = []
        while start < stop:
            turn, place = divmod(start, self.n)
            shards, ends = self._layout(turn)
            low_shard = (np.searchsorted(ends, place, side="right") - 1) // self.shards_a_window
            low_shard *= self.shards_a_window
            high_shard = min(low_shard + self.shards_a_window, len(shards))
            low, high = int(ends[low_shard]), int(ends[high_shard])
            if high_shard == len(shards):
                shards, high_shard = self._layout(turn + 1)[0], 0
            upcoming = shards[high_shard : high_shard + self.shards_a_window]
            used = min(stop - start, high - place)
            done, will = (
                -(-(p - low) * len(upcoming) // (high - low)) for p in (place, place + used)
            )
            due += upcoming[done:will].tolist()
            start += used
        return due

    def _layout(self, turn: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a pass' shards in order, (S,), and where each begins, (S + 1,)."""
        if turn not in self._passes:
            shards = permute(np.arange(len(self._sizes)), len(self._sizes), (self.seed, turn, 0))
            ends = np.concatenate([[0], np.cumsum(self._sizes[shards])])
            near = {t: p for t, p in self._passes.items() if abs(t - turn) == 1}
            self._passes = near | {turn: (shards, ends)}
        return self._passes[turn]


def permute(values: np.ndarray, n: int, key: tuple[int, ...]) -> np.ndarray:
    """Map [0, n) onto itself by a keyed bijection, at the given values only.

    A balanced Feistel network over the next even power of two, applied again to what falls
    outside [0, n) until it falls inside (cycle walking: still a bijection, at most 4 tries on
    average).

    Args:
        values: (N,) int64 in [0, n).
        n: size of the set, at least 1.
        key: integers that name the permutation.

    Returns:
        (N,) int64 in [0, n).
    """
    half_bits = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half_bits) - 1)
    shift = np.uint64(half_bits)
    round_keys = np.random.SeedSequence(list(key)).generate_state(ROUNDS, np.uint64)
    result = np.asarray(values, np.int64).astype(np.uint64)
    walking = np.arange(len(result))
    while len(walking):
        v = result[walking]
        left, right = v >> shift, v & mask
        for k in round_keys:
            left, right = right, left ^ (scramble(right ^ k) & mask)
        result[walking] = (left << shift) | right
        walking = walking[result[walking] >= n]
    return result.astype(np.int64)


def scramble(v: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words one to one (the finaliser of splitmix64, Steele et al. 2014).

    Args:
        v: uint64 of any shape.
    """
    v = v ^ (v >> np.uint64(30))
    v *= np.uint64(0xBF58476D1CE4E5B9)
    v ^= v >> np.uint64(27)
    v *= np.uint64(0x94D049BB133111EB)
    v ^= v >> np.uint64(31)
    return v
