"""`index.parquet`, read some row groups at a time: no process holds 300 million rows."""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset import digest
from shards.filetype import check_file
from shards.schema import INDEX_COLUMNS

KEPT = 64  # row groups, of 65,536 rows and 1 MB each as `mix` writes them
PLACE = ["shard", "offset", "size"]


class Index:
    """Where each sample is, and where it came from. Pickled by path."""

    def __init__(self, folder: Path, info: dict):
        """Open the index of a data set.

        Raises:
            ValueError: no Parquet file, no index, or the index of another data set.
        """
        self.path = folder / "index.parquet"
        try:
            self._metadata = pq.read_metadata(self.path)
        except pa.ArrowInvalid as error:
            check_file(self.path)
            raise ValueError(
                f"{self.path} is no Parquet file ({error}); copy it again from where it was mixed, "
                "or mix again"
            ) from error
        described = json.loads((self._metadata.metadata or {}).get(b"lemon", b"{}"))
        source = digest(info["source"])
        if self._metadata.num_rows != info["samples"]:
            other = f"has {self._metadata.num_rows} rows, dataset.json says {info['samples']}"
        elif missing := [c for c in INDEX_COLUMNS.names if c not in self._metadata.schema.names]:
            raise ValueError(f"{self.path} has no column {', '.join(missing)}; mix again")
        elif described.get("digest") != source:
            other = "was written for other cells or settings than dataset.json says"
        else:
            other = ""
        if other:
            raise ValueError(f"{self.path} {other}: they are of two data sets; mix again")
        sizes = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._first = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._kept: OrderedDict[int, list[np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": OrderedDict(), "_metadata": None}

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the shard, the offset and the size in bytes of the images of some rows.

        Args:
            rows: (N,) int64.

        Returns:
            (N,) int32, (N,) int64, (N,) int32.

        Raises:
            IndexError: a row that is not there.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)}")
        shards, sizes = np.empty(len(rows), np.int32), np.empty(len(rows), np.int32)
        offsets = np.empty(len(rows), np.int64)
        groups = np.searchsorted(self._first, rows, side="right") - 1
        for group in np.unique(groups).tolist():
            here = groups == group
            for column, values in zip((shards, offsets, sizes), self._group(group), strict=True):
                column[here] = values[rows[here] - self._first[group]]
        return shards, offsets, sizes

    def table(self, start: int, stop: int) -> pa.Table:
        """Return the rows [start, stop) with INDEX_COLUMNS."""
        first, last = np.searchsorted(self._first, [start, max(start, stop - 1)], side="right") - 1
        with self._open() as file:
            table = file.read_row_groups(range(int(first), int(last) + 1))
        table = table.select(INDEX_COLUMNS.names).cast(INDEX_COLUMNS)
        return table.slice(start - self._first[first], stop - start)

    def _open(self) -> pq.ParquetFile:
        """Open the file without reading its footer again."""
        file = pq.ParquetFile(self.path, metadata=self._metadata)
        self._metadata = file.metadata
        return file

    def _group(self, group: int) -> list[np.ndarray]:
        """Return the PLACE columns of one row group."""
        if group not in self._kept:
            with self._open() as file:
                table = file.read_row_group(group, columns=PLACE)
            if len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            self._kept[group] = [table[name].to_numpy() for name in PLACE]
        return self._kept[group]
