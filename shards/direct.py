"""Move large files past the system's page cache, where the file system can.

What mix writes is larger than memory and not read again soon; through the cache it costs a copy and
fresh pages for every byte, three times the whole rest of the work. A file system that cannot do it
(tmpfs) gets the ordinary calls.
"""

import errno
import fcntl
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shards.write import BLOCK

ALIGN = 4096  # bytes; direct transfers begin and end at multiples of it, on disk and in memory
DIRECT = getattr(os, "O_DIRECT", 0)  # Linux only


class Scratch(threading.local):
    """Page-aligned arrays that a thread uses again and again, for fresh pages are dear.

    What an array held before is lost at the next call.
    """

    def blocks(self, name: str, count: int) -> np.ndarray:
        """Return the array of a name, (count, 512) uint8, holding anything."""
        array = self.__dict__.get(name)
        if array is None or len(array) < count:
            self.__dict__[name] = array = None  # freed before the larger one is taken
            # Somewhat larger, for the next one may be: pages that are not touched cost nothing.
            pages = mmap.mmap(-1, (count + count // 8 + 1) * BLOCK)
            array = np.frombuffer(pages, np.uint8).reshape(-1, BLOCK)
            self.__dict__[name] = array
        return array[:count]


SCRATCH = Scratch()


def take_blocks(blocks: np.ndarray, numbers: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Copy some blocks.

    Args:
        blocks: (M, 512) uint8.
        numbers: (N,) which, each in [0, M).
        out: (N, 512) uint8, where to; returned.
    """
    # mode "clip" writes straight into `out`; "raise" would fill a fresh array first.
    return np.take(blocks, numbers, axis=0, out=out, mode="clip")


def write_direct(file: BinaryIO, blocks: np.ndarray) -> None:
    """Append blocks to a file, all but the last few past the cache.

    Args:
        file: open for writing; between calls, at a multiple of ALIGN.
        blocks: (N, 512) uint8, from Scratch.
    """
    file.flush()
    data = memoryview(blocks.reshape(-1))
    whole, done = len(data) // ALIGN * ALIGN, 0
    with _direct(file.fileno()):
        while done < whole and done % ALIGN == 0:
            try:
                done += os.write(file.fileno(), data[done:whole])
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break  # not here; through the cache then
    while done < len(data):
        done += os.write(file.fileno(), data[done:])


def read_direct(path: Path, begin: int, out: np.ndarray) -> int:
    """Read a part of a file past the cache.

    Args:
        path: the file.
        begin: where, bytes, a multiple of ALIGN.
        out: (N, 512) uint8, from Scratch at a multiple of ALIGN, N * 512 one too.

    Returns:
        How many bytes came; fewer than `out` holds at the end of the file.
    """
    data, done = memoryview(out.reshape(-1)), 0
    with open(path, "rb", buffering=0) as file:
        with _direct(file.fileno()):
            while done < len(data) and done % ALIGN == 0:
                try:
                    count = os.preadv(file.fileno(), [data[done:]], begin + done)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    break
                if not count:
                    return done
                done += count
        while done < len(data) and (count := os.preadv(file.fileno(), [data[done:]], begin + done)):
            done += count
    return done


@contextmanager
def _direct(descriptor: int) -> Iterator[None]:
    """Let an open file pass the cache by, if it can."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    try:
        yield
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
