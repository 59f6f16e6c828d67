"""Checkpoints: the whole state of a run in one file, written atomically, the newest few kept."""

import os
import re
from pathlib import Path
from pickle import UnpicklingError

import torch

from shards.write import atomic

NAME = re.compile(r"step-(\d{7})\.pt")


def save(folder: Path, step: int, state: dict, keep: int) -> Path:
    """Write `step-XXXXXXX.pt`, point `latest.pt` at it, and delete all but the newest.

    Args:
        folder: of the run.
        step: steps done.
        state: tensors and plain Python in dicts and lists.
        keep: checkpoints that stay.
    """
    path = folder / f"step-{step:07d}.pt"
    with atomic(path) as file:
        torch.save({"step": step, **state}, file)
    link = folder / ".latest.pt.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, folder / "latest.pt")
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """List a run's checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*.pt") if NAME.fullmatch(p.name))


def load(path: Path) -> dict:
    """Read a checkpoint onto the CPU, without unpickling anything but tensors and plain Python.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): cut short, or no checkpoint; "
            "delete it to resume from the one before"
        ) from error
