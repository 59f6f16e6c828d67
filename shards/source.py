"""The slides' tars read in place: mapped to be looked through, where memory can hold them all.

Pass 2 of a mix takes members from everywhere in them. That pays only from the page cache, so what
is larger goes through runs on disk (shards/scatter.py).
"""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from shards.write import BLOCK

SHARE = 0.5  # of the memory that is free or reclaimable that the tars may fill


def fits_cache(size: int) -> bool:
    """Tell whether the page cache holds files of so many bytes in all with room to spare."""
    return size <= SHARE * _available()


def _available() -> int:
    """Return how many bytes of page cache this process can count on; 0 where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except FileNotFoundError:
        return 0  # no Linux
    free = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    for line in groups:  # a job's limit counts its page cache too
        _, kind, path = line.split(":", 2)
        name = "memory.max" if not kind else "memory/memory.limit_in_bytes"
        top, _, file = ("/sys/fs/cgroup/" + name).rpartition("/")
        limit = Path(top + path) / file
        if kind in ("", "memory") and limit.is_file() and limit.read_text().strip().isdigit():
            free.append(int(limit.read_text()))
    return min(free, default=0)


def map_blocks(path: Path) -> np.ndarray:
    """Map a tar; it is unmapped when the array is dropped.

    Returns:
        (M, 512) uint8, read-only, its whole blocks.
    """
    with open(path, "rb") as file:
        count = os.fstat(file.fileno()).st_size // BLOCK
        pages = mmap.mmap(file.fileno(), count * BLOCK, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, np.uint8).reshape(count, BLOCK)


def read_ahead(paths: Iterable[Path]) -> None:
    """Have files brought into the page cache, front to back."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
