"""Checkpoints: the whole state of a run in one file, written atomically and in the background."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from shards.filetype import check_archive, check_file
from shards.write import atomic
from train.host_copy import HostCopy

NAME = re.compile(r"step-(\d{7})\.pt")


def name(step: int) -> str:
    """Return the file name of a step's checkpoint."""
    return f"step-{step:07d}.pt"


class Saver:
    """Write checkpoints in the background; one at a time, the last one joined by `close`.

    Attributes:
        error: what the last write ended with, if not well. The trainer looks at it at every step.
    """

    def __init__(self, folder: Path, keep: int, keep_every: int):
        """Describe what stays.

        Args:
            folder: of the run.
            keep: newest checkpoints that stay.
            keep_every: steps; a checkpoint at a multiple of them stays for good; 0: none does.
        """
        self.folder, self.keep, self.keep_every = folder, keep, keep_every
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None

    def save(self, step: int, state: dict, publish: Callable[[dict], None]) -> None:
        """Copy the state, and write it while the training goes on.

        Args:
            step: steps done.
            state: tensors and plain Python in dicts and lists.
            publish: writes what goes with the checkpoint, of the copy; `latest.pt` moves after it.
        """
        self._join()
        if self.error:  # the trainer has not seen it yet
            return
        tensors = list(_tensors(state))
        copy, state = HostCopy(tensors), _with(state, iter(tensors))
        self._thread = threading.Thread(target=self._work, args=(step, state, copy, publish))
        self._thread.start()

    def close(self) -> None:
        """Wait for the write under way; raise its error, if it had one."""
        self._join()
        if self.error:
            raise self.error

    def _join(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None

    def _work(
        self, step: int, state: dict, copy: HostCopy, publish: Callable[[dict], None]
    ) -> None:
        try:
            state = _with(state, iter(copy.wait()))
            path = write(self.folder, step, state)
            publish(state)
            point(path)
            self._prune()
        except Exception as error:  # whatever it is must reach the trainer, not die with the thread
            self.error = error

    def _prune(self) -> None:
        for old in checkpoints(self.folder)[: -self.keep]:
            step = step_of(old)
            if not self.keep_every or step % self.keep_every:
                old.unlink()


def _tensors(state: object) -> Iterator[torch.Tensor]:
    """Yield the tensors in a nest of dicts and lists."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def _with(state: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """Copy a nest of dicts and lists, with other tensors in their places."""
    if isinstance(state, torch.Tensor):
        return next(tensors)
    if isinstance(state, dict):
        return {k: _with(v, tensors) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return [_with(v, tensors) for v in state]
    return state


def write(folder: Path, step: int, state: dict) -> Path:
    """Write `step-XXXXXXX.pt` atomically.

    Args:
        folder: of the run.
        step: steps done.
        state: tensors and plain Python in dicts and lists.

    Raises:
        NoRoom: the disk or the quota is full; what was there before stays.
        OSError: it cannot be written.
    """
    path = folder / name(step)
    with atomic(path, needed=sum(t.nbytes for t in _tensors(state))) as file:
        try:
            torch.save({"step": step, **state}, file)
        except RuntimeError as error:  # torch speaks of positions; below lies what the system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
    return path


def point(path: Path) -> None:
    """Point `latest.pt` at a checkpoint, atomically."""
    link = path.with_name(".latest.pt.tmp")
    link.unlink(missing_ok=True)
    link.symlink_to(path.name)
    os.replace(link, path.with_name("latest.pt"))


def step_of(path: Path) -> int:
    """Return the steps done that a checkpoint's name tells."""
    return int(path.stem.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """List a run's checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*.pt") if NAME.fullmatch(p.name))


def load(path: Path) -> dict:
    """Read a checkpoint onto the CPU, without unpickling anything but tensors and plain Python.

    Raises:
        ValueError: it cannot be read.
    """
    check_file(path)
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever damaged bytes did to the unpickler
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}): cut short, or no checkpoint; "
            "delete it to resume from the one before"
        ) from error
