"""Spill files: cells between the two passes of a mix, sorted by their places in the data set.

`spill-000000.bin` holds the cells' whole tar members, in 512-byte blocks; `spill-000000.arrow` has
a row for each in the same order. The second is the commit mark, renamed into place last.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.fingerprint import member_blocks

KEPT = 1 << 28  # bytes of tables that stay mapped while shards are written: 4 million cells
SPILL_COLUMNS = pa.schema(
    [
        ("position", pa.int64()),  # in the data set, ascending
        ("start", pa.int64()),  # first block of the member in `.bin`
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
    """The rows of a spill file that go to some consecutive places.

    Attributes:
        path: of the members.
        rows: SPILL_COLUMNS.
        begin: block of the first member in `path`.
        end: the block after the last.
    """

    path: Path
    rows: pa.Table
    begin: int
    end: int


def spill_path(work: Path, number: int) -> Path:
    """Return the commit mark of a spill file."""
    return work / f"spill-{number:06d}.arrow"


def read_facts(path: Path) -> dict:
    """Return what the commit mark of a spill file or a shard says beside its rows."""
    with pa.memory_map(str(path)) as file:
        metadata = pa.ipc.open_file(file).schema.metadata
    return {k.decode(): json.loads(v) if v[:1] == b"{" else v.decode() for k, v in metadata.items()}


class Spills:
    """All spill files of a mix, read by places."""

    def __init__(self, work: Path, count: int):
        """Open files 0 to `count` - 1 of a work folder, once they are there."""
        self._work, self._count = work, count
        size = sum(spill_path(work, number).stat().st_size for number in range(count))
        self._table = cache(self._read) if size <= KEPT else self._read

    def slices(self, first: int, last: int) -> Iterator[Slice]:
        """Yield the rows that go to the places [first, last), of each file that has any."""
        for number in range(self._count):
            table, positions = self._table(number)
            low, high = np.searchsorted(positions, [first, last]).tolist()
            if low < high:
                rows = table.slice(low, high - low)
                end = rows["start"][-1].as_py() + int(member_blocks(rows["size"][-1].as_py()))
                path = spill_path(self._work, number).with_suffix(".bin")
                yield Slice(path, rows, rows["start"][0].as_py(), end)

    def _read(self, number: int) -> tuple[pa.Table, np.ndarray]:
        """Map a spill file's rows, and their places."""
        with pa.memory_map(str(spill_path(self._work, number))) as file:
            table = pa.ipc.open_file(file).read_all()  # stays mapped while it is used
        # A spill file is one batch: its column is not copied.
        return table.replace_schema_metadata(), table["position"].chunk(0).to_numpy()
