"""The order of samples: a pure function of (seed, position), whoever asks.

A run's samples are numbered by position, from 0 over all epochs. Position p is the (p mod n)-th
sample of pass p // n over the n samples of the data set, and each pass is another permutation, so
every cell is seen once before any is seen twice. The permutation is a keyed bijection computed at
the positions asked for: no process holds an n-long array.
"""

import numpy as np

ROUNDS = 6  # of the Feistel network; 4 are a pseudo-random permutation (Luby and Rackoff 1988)


def sample_order(positions: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return the samples at the given positions of a run.

    Args:
        positions: (N,) integers >= 0.
        n: samples in the data set.
        seed: of the order.

    Returns:
        (N,) int64 in [0, n).
    """
    positions = np.asarray(positions, np.int64)
    samples = np.empty(len(positions), np.int64)
    passes = positions // n
    for p in np.unique(passes):  # one or two within a batch
        here = passes == p
        samples[here] = permute(positions[here] % n, n, (seed, int(p)))
    return samples


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
            left, right = right, left ^ (_mix(right ^ k) & mask)
        result[walking] = (left << shift) | right
        walking = walking[result[walking] >= n]
    return result.astype(np.int64)


def _mix(v: np.ndarray) -> np.ndarray:
    """Scramble 64-bit words (the finaliser of splitmix64, Steele et al. 2014)."""
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))
