"""The first crops of a mix, which are a random sample of its cells, and what their colours are.

Scikit-learn's import and its mixtures hold Python's interpreter for two seconds, for which the
threads of a mix would stand still. So a process of their own does this where the sample is full.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.colour import colour_statistics, load
from shards.gather import mark_path, shard_name
from shards.plan import Plan
from shards.schema import CROP_PX
from shards.strip import decode_batch

ROOT = Path(__file__).resolve().parents[1]
CHILD = "from shards.sample import serve; serve()"
SAMPLE = 10_000  # crops
DECODED = 64  # crops at a time: what is made of them stays in the cache

log = logging.getLogger(__name__)


@contextmanager
def colours_beside(plan: Plan, out: Path, work: Path, beside: bool) -> Iterator[Callable[[], dict]]:
    """Give a function that describes the colours of the sample, once its shards are there.

    Args:
        plan: of the mix.
        out: the data set.
        work: its work folder.
        beside: start a process that gets ready at once and describes them when told.
    """
    asked = out, work, plan.shards, plan.seed
    if not beside:
        yield lambda: _describe(*asked)
        return
    # No multiprocessing: it would run a caller's script again that lacks `if __name__ == …`.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        start_new_session=True,  # Ctrl-C stops the mix, and that this process
    )

    def ask() -> dict:
        with suppress(BrokenPipeError):
            print(json.dumps(asked, default=str), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            log.warning("the process that describes the colours has died; they are described here")
        # What went wrong there goes wrong here with a better error.
        return json.loads(answer or "null") or _describe(*asked)

    try:
        yield ask
    finally:
        process.kill()
        process.communicate()


def serve() -> None:
    """Wait for what to describe on stdin, and print the description, or null after an error."""
    load()
    line = sys.stdin.readline()
    if line:  # else the mix has ended
        out, work, shards, seed = json.loads(line)
        try:
            answer = _describe(Path(out), Path(work), shards, seed)
        except (ValueError, OSError):
            answer = None
        with suppress(BrokenPipeError):
            print(json.dumps(answer), flush=True)


def _describe(out: Path, work: Path, shards: int, seed: int) -> dict:
    """Describe the colours of the sample."""
    return colour_statistics(_read_crops(out, work, shards), seed)


def _read_crops(out: Path, work: Path, shards: int) -> Iterator[np.ndarray]:
    """Yield the crops of the sample, (N, 3, H, W) uint8, some at a time.

    Raises:
        ValueError: one does not decode, or has another size.
    """
    count = SAMPLE
    for number in range(shards):
        with pa.memory_map(str(mark_path(work, number))) as file:
            table = pa.ipc.open_file(file).read_all()
        path = out / shard_name(number)
        with open(path, "rb", buffering=0) as tar:
            for start in range(0, min(count, len(table)), DECODED):
                offsets, sizes = (
                    table[c][start : min(start + DECODED, count)].to_pylist()
                    for c in ("offset", "size")
                )
                images = [
                    os.pread(tar.fileno(), size, offset)
                    for offset, size in zip(offsets, sizes, strict=True)
                ]
                crops = np.empty((len(images), CROP_PX, CROP_PX, 3), np.uint8)
                for i, error in decode_batch(images, crops).items():
                    raise ValueError(
                        f"{path}: the crop at byte {offsets[i]} is broken ({error}); `python "
                        "shards/main.py verify` lists all faults; extract that slide again"
                    )
                yield crops.transpose(0, 3, 1, 2)
        count -= min(count, len(table))
        if not count:
            return
