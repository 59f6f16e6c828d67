"""What a run tells: log.jsonl, TensorBoard, and how fast it goes."""

import io
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from shards.errors import room
from shards.write import atomic
from train.health import ROWS, spectrum
from train.host_copy import HostCopy


class Noted(NamedTuple):
    """What a line of the log will be made of."""

    step: int
    names: list[str]  # of the scalars
    copy: HostCopy  # of scalars and embedding
    counts: dict[str, int]
    values: dict[str, float]
    steps: int  # since the line before
    waited: float  # s, for batches


class Record:
    """Write a line of values now and then; only rank 0 writes, all ranks average.

    Attributes:
        error: of the disk, which the trainer looks at; nothing is written after it.
    """

    def __init__(
        self, out: Path, start: int, batch: int, rank: int, flops_per_image: float, peak: float
    ):
        """Open the log, without the lines of steps that are done again.

        Args:
            out: the run's folder.
            start: steps done.
            batch: images in a global batch.
            rank: of this process.
            flops_per_image: of a training step.
            peak: FLOP/s of all ranks together in a large matrix product.
        """
        self.batch, self.rank = batch, rank
        self.flops_per_image, self.peak = flops_per_image, peak
        self._since, self._steps, self._waited = time.perf_counter(), 0, 0.0
        self.error: Exception | None = None
        self._noted: Noted | None = None
        self._path, self._events = out / "log.jsonl", None
        if rank > 0:
            return
        before = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in before if line.endswith("}") and json.loads(line)["step"] <= start]
        with atomic(self._path, "w") as file:
            file.writelines(line + "\n" for line in kept)
        self._events = Events(out, start + 1)

    def timed(self, batches: Iterable) -> Iterator:
        """Pass batches on, adding up how long each was waited for."""
        source = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(source)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            self._steps += 1
            yield batch

    def note(
        self, step: int, result: dict[str, Tensor], counts: dict[str, int], **values: float
    ) -> None:
        """Note what a step gave, for `line`, without waiting for the device.

        Args:
            step: steps done.
            result: scalars of this rank, and its `embedding` (N, D).
            counts: of this rank, to be summed.
            values: what is the same on all ranks.
        """
        scalars = {name: value for name, value in result.items() if name != "embedding"}
        stacked = torch.stack([value.detach().float() for value in scalars.values()])
        copy = HostCopy([stacked, result["embedding"][:ROWS]])
        self._noted = Noted(step, list(scalars), copy, counts, values, self._steps, self._waited)
        self._steps, self._waited = 0, 0.0

    def line(self) -> dict[str, float] | None:
        """Write what was noted: means over ranks, and the speed since the last; None if nothing.

        Returns:
            The line.
        """
        if self._noted is None:
            return None
        (step, names, copy, counts, values, steps, waited), self._noted = self._noted, None
        scalars, embedding = copy.wait()
        measured = spectrum(embedding)  # on the CPU, while the device does the next step
        ranks = dist.get_world_size()
        means = torch.cat([scalars, torch.stack([*measured.values()]), torch.zeros(len(counts))])
        if counts:
            means[-len(counts) :] = torch.tensor([*counts.values()]) * ranks
        dist.all_reduce(means)
        named = zip([*names, *measured, *counts], (means / ranks).tolist(), strict=True)
        now = time.perf_counter()
        took = now - self._since
        rate = steps * self.batch / took
        line = {
            "step": step,
            **dict(named),
            **values,
            "images_per_s": rate,
            "peak_share": rate
            * self.flops_per_image
            / self.peak,  # of the matmul peak of all ranks
            "data_wait": waited / took,  # share of the time spent waiting for batches
        }
        self._since = now
        self._put(step, line)
        return line

    def add(self, name: str, value: float, step: int) -> None:
        """Write one value of its own, as a line of log.jsonl and for TensorBoard."""
        self._put(step, {"step": step, name: value})

    def _put(self, step: int, line: dict[str, float]) -> None:
        """Write a line, on rank 0."""
        if not self._events or self.error:
            return
        try:
            _append(self._path, json.dumps(line).encode() + b"\n")
            self._events.add(step, line)
        except OSError as error:
            self.error = error

    def close(self) -> None:
        """Raise what the disk said, if it did."""
        if self.error:
            raise self.error


class Events:
    """A file for TensorBoard, written at once: torch's own writer is a thread that dies alone."""

    def __init__(self, folder: Path, purge: int):
        """Begin a file.

        Args:
            folder: of the run.
            purge: TensorBoard forgets what earlier files say of this step and those after it.
        """
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        self._event, self._summary = Event, Summary
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._path = folder / f"{name}.0"
        self._write(
            Event(file_version="brain.Event:2"),
            Event(step=purge, session_log=SessionLog(status=SessionLog.START)),
        )

    def add(self, step: int, values: dict[str, float]) -> None:
        """Write a step's scalars."""
        named = [
            self._summary.Value(tag=name, simple_value=value)
            for name, value in values.items()
            if name != "step"
        ]
        self._write(self._event(step=step, summary=self._summary(value=named)))

    def _write(self, *events) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        records = io.BytesIO()
        for event in events:
            event.wall_time = time.time()
            RecordWriter(records).write(event.SerializeToString())  # with length and checksums
        _append(self._path, records.getvalue())


def _append(path: Path, data: bytes) -> None:
    """Append to a file whole, or leave it as it was.

    Raises:
        NoRoom: the disk or the quota is full.
        OSError: it cannot be written.
    """
    with room(path), open(path, "ab", buffering=0) as file:
        before = os.fstat(file.fileno()).st_size
        try:
            done = file.write(data)
            if done < len(data):  # a full disk takes a part; the next call says so
                file.write(data[done:])
        except OSError:
            os.ftruncate(file.fileno(), before)
            raise
