"""Checkpoints: the whole state of a run in one file, written atomically and in the background."""

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError

import torch

from shards.write import atomic

NAME = re.compile(r"step-(\d{7})\.pt")


class Saver:
    """Write checkpoints in the background; one at a time, the last one joined by `close`."""

    def __init__(self, folder: Path, keep: int, keep_every: int):
        """Describe what stays.

        Args:
            folder: of the run.
            keep: newest checkpoints that stay.
            keep_every: steps; a checkpoint at a multiple of them stays for good; 0: none does.
        """
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, state: dict, after: Callable[[dict], None]) -> None:
        """Copy the state, and write it while the training goes on.

        Args:
            step: steps done.
            state: tensors and plain Python in dicts and lists.
            after: called with the copy when the checkpoint is on disk.
        """
        self.close()
        copy = _to_cpu(state)
        self._thread = threading.Thread(target=self._work, args=(step, copy, after))
        self._thread.start()

    def close(self) -> None:
        """Wait for the write under way; raise its error, if it had one."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            raise self._error

    def _work(self, step: int, state: dict, after: Callable[[dict], None]) -> None:
        try:
            write(self.folder, step, state)
            after(state)
            self._prune()
        except OSError as error:  # a full disk must reach the trainer, not die with the thread
            self._error = error

    def _prune(self) -> None:
        for old in checkpoints(self.folder)[: -self.keep]:
            step = int(NAME.fullmatch(old.name)[1])
            if not self.keep_every or step % self.keep_every:
                old.unlink()


def _to_cpu(state: object) -> object:
    """Copy a nest of dicts and lists with its tensors on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {k: _to_cpu(v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return [_to_cpu(v) for v in state]
    return state


def write(folder: Path, step: int, state: dict) -> Path:
    """Write `step-XXXXXXX.pt` and point `latest.pt` at it, atomically both.

    Args:
        folder: of the run.
        step: steps done.
        state: tensors and plain Python in dicts and lists.
    """
    path = folder / f"step-{step:07d}.pt"
    with atomic(path) as file:
        torch.save({"step": step, **state}, file)
    link = folder / ".latest.pt.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, folder / "latest.pt")
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
