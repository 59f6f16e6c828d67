"""Buffers that are used again, and their transfer to and from disk past the page cache.

What a mix writes is larger than memory. Through the page cache every byte costs a copy and a fresh
page of memory, and fresh pages are slow in a virtual machine, which may have to ask its host for
each: by plain reads, writes and arrays a mix took two to three times as long (bench/README.md).
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Callable

import numpy as np

from shards.write import BLOCK

ALIGN = 4096  # bytes: on disk and in memory, direct transfers begin and end at multiples of it
PAGE = ALIGN // BLOCK  # blocks
DIRECT = getattr(os, "O_DIRECT", 0)  # Linux only


class Buffers(threading.local):
    """Arrays of tar blocks, aligned to pages, that each thread keeps and uses again."""

    def __init__(self):
        self._kept: dict[str, np.ndarray] = {}

    def take(self, name: str, count: int) -> np.ndarray:
        """Return the array of a name, (count, 512) uint8, holding anything; its last use ends."""
        kept = self._kept.pop(name, None)
        if kept is None or len(kept) < count:
            kept = None  # freed before the larger one is taken
            # Somewhat larger, for the next one may be: pages that are not touched cost nothing.
            pages = mmap.mmap(-1, (count + count // 8 + 1) * BLOCK)
            kept = np.frombuffer(pages, np.uint8).reshape(-1, BLOCK)
        self._kept[name] = kept
        return kept[:count]


BUFFERS = Buffers()


def write_blocks(descriptor: int, begin: int, blocks: np.ndarray) -> None:
    """Write to an open file.

    Args:
        descriptor: of the file.
        begin: the block from which on, a multiple of PAGE.
        blocks: (N, 512) uint8, from Buffers.
    """
    _transfer(os.pwritev, descriptor, begin, blocks)


def read_blocks(descriptor: int, begin: int, blocks: np.ndarray) -> int:
    """Read from an open file, as `write_blocks` writes.

    Returns:
        How many bytes came; fewer than `blocks` holds at the end of the file.
    """
    return _transfer(os.preadv, descriptor, begin, blocks)


def _transfer(call: Callable, descriptor: int, begin: int, blocks: np.ndarray) -> int:
    """Move whole pages past the cache, then the rest through it; all, where no other way is."""
    data, done = blocks.reshape(-1).data, 0
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    for direct in (DIRECT, 0):
        stop = len(data) // ALIGN * ALIGN if direct else len(data)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | direct)
            while done < stop and not (direct and done % ALIGN):
                count = call(descriptor, [data[done:stop]], begin * BLOCK + done)
                if not count:  # the end of the file
                    break
                done += count
        except OSError as error:  # a file system that knows no direct transfers says EINVAL
            if not direct or error.errno != errno.EINVAL:
                raise
    return done
