"""The runs between the passes of a mix: cells sorted by destination, and where their bytes are.

A run is `run-000000.arrow`, a row for each cell in the order of their places in the data set, and
`run-000000.bin`, the whole tar members in 512-byte blocks in the same order. The first is the
commit mark, renamed into place last. A run without `.bin` says where its members are in the
slides' tars.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.fingerprint import member_blocks

KEPT = 1 << 28  # bytes of runs that stay mapped while shards are written: 4 million cells
RUN_COLUMNS = pa.schema(
    [
        ("position", pa.int64()),  # in the data set, ascending
        ("start", pa.int64()),  # of the member in `.bin` or the slide's tar, blocks
        ("size", pa.int32()),  # of the image, bytes
        ("slide_number", pa.int32()),
        ("nucleus", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("area_um2", pa.float32()),
        ("label", pa.string()),
        ("fingerprint", pa.uint64()),
    ]
)


@dataclass(frozen=True)
class Slice:
    """The rows of a run that go to some places.

    Attributes:
        path: of the copied members; None: they are in the slides' tars.
        rows: RUN_COLUMNS.
        begin: block of the first in `path`.
        end: the block after the last.
    """

    path: Path | None
    rows: pa.Table
    begin: int
    end: int


def run_path(work: Path, number: int) -> Path:
    """Return the commit mark of a run."""
    return work / f"run-{number:06d}.arrow"


def read_facts(path: Path) -> dict:
    """Return what a run's or a shard's commit mark says beside its rows."""
    with pa.memory_map(str(path)) as file:
        metadata = pa.ipc.open_file(file).schema.metadata
    return {k.decode(): json.loads(v) if v[:1] == b"{" else v.decode() for k, v in metadata.items()}


class Runs:
    """All runs of a mix, to be read by places."""

    def __init__(self, work: Path, count: int):
        """Read runs 0 to `count` - 1 of a work folder, once they are there."""
        self._work, self._count = work, count
        size = sum(run_path(work, number).stat().st_size for number in range(count))
        self._table = cache(self._read) if size <= KEPT else self._read

    def slices(self, first: int, last: int) -> Iterator[Slice]:
        """Yield the rows that go to the places [first, last), of each run that has any."""
        for number in range(self._count):
            table, positions, copied = self._table(number)
            low, high = np.searchsorted(positions, [first, last]).tolist()
            if low == high:
                continue
            rows, path, begin, end = table.slice(low, high - low), None, 0, 0
            if copied:
                path = run_path(self._work, number).with_suffix(".bin")
                begin, final = rows["start"][0].as_py(), rows["start"][-1].as_py()
                end = final + int(member_blocks(rows["size"][-1].as_py()))
            yield Slice(path, rows, begin, end)

    def _read(self, number: int) -> tuple[pa.Table, np.ndarray, bool]:
        """Map a run: its rows, their places, and whether their bytes are copied."""
        with pa.memory_map(str(run_path(self._work, number))) as file:
            table = pa.ipc.open_file(file).read_all()  # stays mapped while it is used
        copied = json.loads(table.schema.metadata.get(b"copied", b"true"))  # as it always was
        positions = table["position"].chunk(0).to_numpy()  # a run is one batch: not copied
        return table.replace_schema_metadata(), positions, copied
