"""Read shards: decoded crops at any rows of the index, or any WebDataset tar in a stream.

shards = Shards("shards/")  # or https://…, s3://…, pipe:…
crops = shards.read([0, 17, 4])  # (3, 3, 60, 60) uint8
"""

import logging
import mmap
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.crop import decode, decode_into
from shards.dataset import read_info
from shards.errors import dead_link
from shards.index import Index
from shards.remote import Mirror, is_remote
from shards.schema import INDEX_COLUMNS
from shards.url import open_url

OPEN = 256  # shards mapped at a time

log = logging.getLogger(__name__)


class Shards:
    """A data set of crops: `dataset.json`, `index.parquet` and the tars they describe.

    Index and tars are read as they are needed, and pickled by path alone, so data workers map the
    tars themselves and no process holds the whole index.
    """

    def __init__(
        self, folder: str | Path, info: dict | None = None, cache: str | Path | None = None
    ):
        """Open a folder that `shards/main.py mix` wrote.

        Args:
            folder: its path, or a URL (`https://`, `s3://`, `pipe:`), see shards/remote.py.
            info: what `dataset.json` will hold, where it is not written yet.
            cache: folder for what is fetched from a URL; None: in the system's temporary folder.

        Raises:
            FileNotFoundError: no such folder, or no data set in it.
            ValueError: its files do not belong together.
        """
        self._mirror = Mirror(str(folder), cache) if is_remote(folder) else None
        self.folder = self._mirror.folder if self._mirror else Path(folder)
        self.info = info or read_info(self.folder)
        self.samples = [shard["samples"] for shard in self.info["shards"]]
        self._index = Index(self.folder, self.info)
        self._maps: OrderedDict[int, memoryview] = OrderedDict()
        if not self._mirror:
            for number in range(len(self.samples)):
                self._check_size(number)

    def __len__(self) -> int:
        return len(self._index)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": OrderedDict()}

    @property
    def index(self) -> pa.Table:
        """The whole index, columns as in shards/schema.py INDEX_COLUMNS."""
        return pq.read_table(self.folder / "index.parquet", schema=INDEX_COLUMNS)

    def rows(self, rows: np.ndarray, columns: list[str]) -> pa.Table:
        """Return columns of some rows of the index, which is read a part at a time.

        Args:
            rows: (N,) integers, ascending.
            columns: of shards/schema.py INDEX_COLUMNS.
        """
        parts, start = [], 0
        with pq.ParquetFile(self.folder / "index.parquet") as file:
            for batch in file.iter_batches(columns=columns):
                stop = start + len(batch)
                here = rows[slice(*np.searchsorted(rows, (start, stop)))] - start
                if len(here):
                    parts.append(pa.Table.from_batches([batch.take(pa.array(here))]))
                start = stop
        empty = pa.schema([INDEX_COLUMNS.field(name) for name in columns]).empty_table()
        return pa.concat_tables(parts) if parts else empty

    def data(self, row: int) -> memoryview:
        """Return the encoded image of one row of the index."""
        shard, offset, size = (int(column[0]) for column in self._index.locate(np.array([row])))
        return self._map(shard)[offset : offset + size]

    def read(self, rows: np.ndarray, skipped: list[tuple[int, str]] | None = None) -> np.ndarray:
        """Return the decoded crops at the given rows of the index.

        Args:
            rows: (N,) integers.
            skipped: None refuses a broken crop. A list gets of each its row and what was
                found, and the crop is replaced by the next whole one of its shard: still a
                function of the rows alone, and no rank gets fewer samples.

        Returns:
            (N, 3, patch_px, patch_px) uint8, channels last in memory, as images are decoded.

        Raises:
            IndexError: a row that is not there.
            ValueError: a crop does not decode or has another size; names its shard and row.
        """
        rows = np.asarray(rows, np.int64)
        side = self.info["patch_px"]
        crops = np.empty((len(rows), side, side, 3), np.uint8)
        shards, offsets, sizes = (column.tolist() for column in self._index.locate(rows))
        broken = {}
        for i in np.argsort(shards, kind="stable").tolist():  # one after the other: few are open
            start = offsets[i]
            try:
                decode_into(self._map(shards[i])[start : start + sizes[i]], crops[i])
            except ValueError as error:
                broken[i] = error
        for i, error in sorted(broken.items()):
            row = int(rows[i])
            message = (
                f"{self._name(shards[i])}: the crop of index row {row} at byte {offsets[i]} is "
                f"broken ({error})"
            )
            if skipped is None:
                raise ValueError(
                    f"{message}; `python shards/main.py verify` lists all faults; mix again, or "
                    "let training skip broken crops"
                ) from error
            log.warning("%s; the next whole one takes its place", message)
            skipped.append((row, message))
            crops[i] = self._next_whole(row, shards[i])
        return crops.transpose(0, 3, 1, 2)

    def advise(self, shards: list[int]) -> None:
        """Have shards read ahead: from disk by the system, from a URL at once."""
        for number in shards:
            if self._mirror:
                self._path(number)
            elif hasattr(os, "posix_fadvise"):
                with open(self._path(number), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def _next_whole(self, row: int, shard: int) -> np.ndarray:
        """Return the first crop after a row, round its shard, that decodes, (side, side, 3)."""
        first = int(np.sum(self.samples[:shard], dtype=np.int64))
        crop = np.empty((self.info["patch_px"],) * 2 + (3,), np.uint8)
        for step in range(1, self.samples[shard]):
            try:
                decode_into(self.data(first + (row - first + step) % self.samples[shard]), crop)
            except ValueError:
                continue
            return crop
        raise ValueError(f"{self._name(shard)}: no crop is whole; mix again")

    def _map(self, shard: int) -> memoryview:
        """Return the bytes of a shard."""
        view = self._maps.get(shard)
        if view is None:
            path = self._path(shard)
            self._check_size(shard)  # reading beyond a mapping's end would kill the process
            with open(path, "rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if len(self._maps) >= OPEN:
                self._maps.popitem(last=False)
            self._maps[shard] = view
        return view

    def _path(self, shard: int) -> Path:
        """Return a shard's file, fetched if need be."""
        described = self.info["shards"][shard]
        if self._mirror:
            return self._mirror.fetch(described["name"], described["bytes"], described["sha256"])
        return self.folder / described["name"]

    def _name(self, shard: int) -> str:
        """Return a shard's path for messages."""
        return f"{self.folder / self.info['shards'][shard]['name']}"

    def _check_size(self, shard: int) -> None:
        described = self.info["shards"][shard]
        path = self.folder / described["name"]
        found = path.stat().st_size if path.is_file() else f"no file{dead_link(path)}"
        if found != described["bytes"]:
            raise ValueError(f"{path}: {found}, expected {described['bytes']} bytes; mix again")


def stream(urls: str | list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (key, crop) from WebDataset tars, wherever they are.

    Args:
        urls: paths, brace patterns, `https://…` or `pipe:…`.

    Yields:
        The key and (H, W, 3) uint8 RGB. Nothing is unpickled.

    Raises:
        FileNotFoundError: a URL cannot be read.
        ValueError: it gives no tar, or one cut short; a sample holds anything but one image.
    """
    from webdataset.shardlists import expand_urls
    from webdataset.tariterators import group_by_keys, tar_file_expander

    for url in [
        u for each in ([urls] if isinstance(urls, str) else urls) for u in expand_urls(each)
    ]:
        with open_url(url) as file:
            samples = group_by_keys(tar_file_expander([{"url": url, "stream": file}]))
            for sample in _whole(samples, url):
                members = [name for name in sample if not name.startswith("__")]
                if len(members) != 1 or members[0] not in ("jpg", "png", "webp"):
                    raise ValueError(
                        f"{url}: {sample['__key__']} holds {', '.join(members)} instead of one "
                        "image; nothing else is read, least of all unpickled"
                    )
                yield sample["__key__"], decode(sample[members[0]])


def _whole(samples: Iterator[dict], url: str) -> Iterator[dict]:
    """Yield the samples of a tar; a ValueError where it does not read to its end."""
    try:
        yield from samples
    except tarfile.TarError as error:
        raise ValueError(
            f"{url} is no tar that reads to its end ({error.args[0]}): cut short, or none"
        ) from error
