"""The GPUs that slides at once share."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def device() -> torch.device:
    """Return this process' GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def take_turn(number: int) -> None:
    """Give this process one of the GPUs, so that slides one after the other get all in turn.

    Args:
        number: how many slides were begun before this one.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())


@contextmanager
def full_memory() -> Iterator[None]:
    """Turn the error of a GPU whose memory is full into one with the cure.

    Raises:
        ValueError: the block ran out of a GPU's memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ValueError(
            "the GPU's memory is full: every slide at work takes a share of it; run the same "
            f"command again with fewer --workers ({str(error).splitlines()[0]})"
        ) from error
