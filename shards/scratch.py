"""Memory that a thread uses again and again: fresh pages cost a mix more than moving the bytes."""

import threading

import numpy as np

from shards.write import BLOCK


class Scratch(threading.local):
    """Arrays of blocks, one set a thread. What an array held before is lost at the next call."""

    def blocks(self, name: str, count: int) -> np.ndarray:
        """Return the array of a name, (count, 512) uint8, holding anything."""
        array = self.__dict__.get(name)
        if array is None or len(array) < count:
            self.__dict__[name] = array = None  # freed before the larger one is taken
            self.__dict__[name] = array = np.empty((count, BLOCK), np.uint8)
        return array[:count]


SCRATCH = Scratch()


def take_blocks(blocks: np.ndarray, numbers: np.ndarray, name: str) -> np.ndarray:
    """Copy some blocks into the scratch array of a name.

    Args:
        blocks: (M, 512) uint8.
        numbers: (N,) which, each in [0, M).

    Returns:
        (N, 512) uint8, to be used before the name is asked for again.
    """
    out = SCRATCH.blocks(name, len(numbers))
    # mode "clip" writes straight into `out`; "raise" would fill a fresh array first.
    return np.take(blocks, numbers, axis=0, out=out, mode="clip")
