"""Fingerprint tar members, many at once, and sum fingerprints whatever their order.

A sum that is equal before and after a move says that no member was lost, doubled or changed. It
guards against mistakes and broken disks; against forgers there is the sha256 of each shard.
"""

import numpy as np

from shards.order import scramble
from shards.write import BLOCK

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads small numbers
HALF = np.uint64(32)
WEIGHTS = scramble(np.arange(1, BLOCK // 8 + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
CHUNK = 512  # blocks at once, so that they stay in the processor's cache


def fingerprint(
    blocks: np.ndarray, counts: np.ndarray, starts: np.ndarray | None = None
) -> np.ndarray:
    """Return a 64-bit hash of each member: its header (which holds the key), bytes and padding.

    Multilinear hashing of a block's 64 words, then splitmix64's finaliser over block and member.

    Args:
        blocks: (M, 512) uint8, C-contiguous, that hold the members.
        counts: (N,) blocks of each member, each at least 1.
        starts: (N,) the first block of each; None: one after another, M in all.

    Returns:
        (N,) uint64.
    """
    if not len(counts):
        return np.empty(0, np.uint64)
    hashes = np.empty(len(blocks), np.uint64)
    words = blocks.view("<u8")
    mixed = np.empty((min(CHUNK, len(blocks)), words.shape[1]), np.uint64)
    for start in range(0, len(blocks), CHUNK):
        chunk = words[start : start + CHUNK]
        # An odd weight alone would let the top bits of two words cancel each other.
        folded = np.right_shift(chunk, HALF, out=mixed[: len(chunk)])
        folded ^= chunk
        np.matmul(folded, WEIGHTS, out=hashes[start : start + CHUNK])
    begins = np.cumsum(counts) - counts
    if starts is None:
        assert counts.sum() == len(blocks), (counts.sum(), len(blocks))
    else:
        hashes = hashes[block_numbers(starts, counts)]
    ordinal = (np.arange(len(hashes)) - np.repeat(begins, counts)).astype(np.uint64)
    return scramble(np.add.reduceat(scramble(hashes + ordinal * GOLDEN), begins))


def checksum(fingerprints: np.ndarray) -> int:
    """Return the sum mod 2^64 of fingerprints, which no order changes.

    Args:
        fingerprints: (N,) uint64.
    """
    return int(np.add.reduce(np.asarray(fingerprints, np.uint64), dtype=np.uint64))


def member_blocks(sizes: np.ndarray) -> np.ndarray:
    """Return how many blocks members of the given sizes in bytes take, header included, (N,)."""
    return 1 + -(-np.asarray(sizes, np.int64) // BLOCK)


def block_numbers(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """List the blocks of members one after another.

    Args:
        starts: (N,) first block of each.
        counts: (N,) blocks of each.

    Returns:
        (M,) int64.
    """
    shift = starts - (np.cumsum(counts) - counts)
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(shift, counts)
