"""What a run tells: log.jsonl, TensorBoard, and how fast it goes."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from shards.write import atomic


class Record:
    """Write a line of values now and then; only rank 0 writes, all ranks average."""

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
        self._path, self._board = out / "log.jsonl", None
        if rank > 0:
            return
        from torch.utils.tensorboard import SummaryWriter

        before = self._path.read_text().splitlines() if self._path.exists() else []
        kept = [line for line in before if line.endswith("}") and json.loads(line)["step"] <= start]
        with atomic(self._path, "w") as file:
            file.writelines(line + "\n" for line in kept)
        self._board = SummaryWriter(out, purge_step=start + 1)

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

    def write(self, step: int, result: dict[str, Tensor], **values: float) -> dict[str, float]:
        """Write one line: what the step gave, averaged over ranks, and the speed since the last.

        Args:
            step: steps done.
            result: scalars of this rank.
            values: what is the same on all ranks.

        Returns:
            The line.
        """
        means = torch.stack([v.detach().float() for v in result.values()])
        dist.all_reduce(means)
        means = (means / dist.get_world_size()).tolist()  # waits for the device
        now = time.perf_counter()
        took = now - self._since
        rate = self._steps * self.batch / took
        line = {
            "step": step,
            **dict(zip(result, means, strict=True)),
            **values,
            "images_per_s": rate,
            "peak_share": rate
            * self.flops_per_image
            / self.peak,  # of the matmul peak of all ranks
            "data_wait": self._waited / took,  # share of the time spent waiting for batches
        }
        self._since, self._steps, self._waited = now, 0, 0.0
        if self._board:
            with open(self._path, "a") as file:
                file.write(json.dumps(line) + "\n")
            for name, value in line.items():
                self._board.add_scalar(name, value, step)
        return line

    def add(self, name: str, value: float, step: int) -> None:
        """Write one value of its own, as a line of log.jsonl and for TensorBoard."""
        if self._board:
            with open(self._path, "a") as file:
                file.write(json.dumps({"step": step, name: value}) + "\n")
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board:
            self._board.close()
