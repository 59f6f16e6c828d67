"""python bench/read.py [--quick] [--data FIELDS]

Read shards as decoded 60x60 crops, ours and the plain way in turn on the same tars: ours is the
stream in shuffled order, batches of 1024 as one uint8 tensor; plain is webdataset's
`.decode("pil")`, one image at a time in the tar's order, as its manual shows it. Then both behind
two data workers. Crops/s per core: per second of processor time of all processes, so that a busy
machine does not blur it; the clock's are beside. webdataset's array decoder with its own batching
is shown too, for who would tune it. The target: 5 times plain at 0 and at 2 workers.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset

from bench.alternate import alternate, last_line, ratio
from bench.flags import bench_parser
from bench.mix import crops_of, write_cells
from shards.mix.mix import mix
from shards.read import Shards
from shards.stream import Stream

CELLS, REPEATS, BATCH = 30_000, 5, 1024
QUICK = 12_000, 3


class Batches(Dataset):
    """Our stream as the trainer reads it."""

    def __init__(self, shards: Shards):
        self._stream = Stream(shards, BATCH)

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.from_numpy(self._stream.read(step))


def ours(folder: Path, workers: int) -> Iterable[int]:
    """Yield how many crops each item brings."""
    shards = Shards(folder)
    steps = range(len(shards) // BATCH)
    loader = DataLoader(Batches(shards), batch_size=None, sampler=steps, num_workers=workers)
    for crops in loader:
        assert crops.shape == (BATCH, 3, 60, 60)
        yield len(crops)


def plain(folder: Path, workers: int) -> Iterable[int]:
    """The same of webdataset's images."""
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("pil")
    for sample in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers):
        assert sample["jpg"].size == (60, 60)
        yield 1


def batched(folder: Path, workers: int) -> Iterable[int]:
    """The same of webdataset's arrays, put into batches before they leave the worker."""
    urls = [str(p) for p in sorted(folder.glob("*.tar"))]
    dataset = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg")
    dataset = dataset.batched(
        BATCH, collation_fn=lambda b: torch.from_numpy(np.stack([x for (x,) in b]))
    )
    for crops in webdataset.WebLoader(dataset, batch_size=None, num_workers=workers):
        yield len(crops)


def rates(way: Callable, folder: Path, workers: int) -> tuple[float, float]:
    """Return crops a second of processor time, and of the clock."""

    def used() -> float:
        usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in usages)

    before, start = used(), time.perf_counter()
    count = sum(way(folder, workers))  # the workers have ended, and count as children
    return count / (used() - before), count / (time.perf_counter() - start)


def main() -> None:
    """Alternate the ways, and print the table."""
    parser = bench_parser("read", __doc__, "fewer crops and repeats", "--data")
    args = parser.parse_args()
    count, repeats = QUICK if args.quick else (CELLS, REPEATS)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_cells(Path(name) / "cells", count, crops_of(args.data, 4_000))
        folder = Path(name) / "shards"
        mix(Path(name) / "cells", folder, 10_000, 0)
        ways = {
            (workers, way.__name__): partial(rates, way, folder, workers)
            for workers in (0, 2)
            for way in (ours, plain, batched)
        }
        found = alternate(ways, repeats)
    print(f"{count} crops, {repeats} times in turn; crops/s, median (range)")
    print("workers  way       per core                  by the clock")
    for (workers, way), values in found.items():
        columns = [
            f"{np.median(v):7.0f} ({min(v):.0f}–{max(v):.0f})" for v in zip(*values, strict=True)
        ]
        print(f"{workers:7}  {way:8}  {columns[0]:24}  {columns[1]}")
    cores = {way: [per_core for per_core, _ in values] for way, values in found.items()}
    print(f"with 2 workers: {ratio(cores[2, 'ours'], cores[2, 'plain'])}")
    print(last_line("read", cores[0, "ours"], cores[0, "plain"], "crops/s"))


if __name__ == "__main__":
    main()
