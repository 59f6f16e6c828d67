"""A publisher's NumPy array, opened and checked."""

from pathlib import Path

import numpy as np

from shards.errors import dead_link
from shards.filetype import check_file, describe


def open_array(path: Path, shape: tuple[int | None, ...], mapped: bool = False) -> np.ndarray:
    """Open a `.npy` file of a given shape; nothing is unpickled.

    Args:
        shape: expected; None for a side of any length.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no array, holds Python objects, is cut short, or has another shape.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there{dead_link(path)}")
    check_file(path)
    try:
        found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        if "allow_pickle" in str(error) and describe(path) == "a NumPy array":
            raise ValueError(
                f"{path} holds Python objects, which are not opened (they may run code); write "
                "it anew as text or numbers, e.g. np.save(path, array.astype(str))"
            ) from error
        raise ValueError(f"{path}, {describe(path)}, does not open as an array: {error}") from error
    if not isinstance(found, np.ndarray):
        raise ValueError(f"{path} is {describe(path)} of arrays, not one array")
    if len(found.shape) != len(shape) or any(
        n is not None and n != side for n, side in zip(shape, found.shape, strict=True)
    ):
        sides = ", ".join("N" if n is None else str(n) for n in shape)
        raise ValueError(f"{path} has the shape {found.shape}; expected ({sides})")
    return found
