"""Read shards: decoded crops at any rows of the index, or any WebDataset tar in a stream.

shards = Shards("shards/")
crops = shards.read([0, 17, 4])  # (3, 3, 60, 60) uint8
"""

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from shards.crop import decode
from shards.schema import INDEX_COLUMNS

FORMAT = 1  # of dataset.json


class Shards:
    """A data set of crops: `dataset.json`, `index.parquet` and the tars they describe.

    Opened lazily and pickled by its path alone, so data workers map the tars themselves.
    """

    def __init__(self, folder: str | Path):
        """Open a folder that `shards/main.py mix` wrote.

        Raises:
            FileNotFoundError: no such folder, or no data set in it.
            ValueError: its files do not belong together.
        """
        self.folder = Path(folder)
        self.info = _read_info(self.folder)
        index = pq.read_table(self.folder / "index.parquet", columns=["shard", "offset", "size"])
        self._shard = index["shard"].to_numpy()
        self._offset = index["offset"].to_numpy()
        self._size = index["size"].to_numpy()
        if len(index) != self.info["samples"]:
            raise ValueError(
                f"{self.folder}/index.parquet has {len(index)} rows but dataset.json says "
                f"{self.info['samples']} samples: they are of two data sets; mix again"
            )
        for shard in self.info["shards"]:
            path = self.folder / shard["name"]
            found = path.stat().st_size if path.is_file() else "no file"
            if found != shard["bytes"]:
                raise ValueError(f"{path}: {found}, expected {shard['bytes']} bytes; mix again")
        self._maps: dict[int, mmap.mmap] = {}

    def __len__(self) -> int:
        return len(self._shard)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_maps": {}}

    @property
    def index(self):
        """The whole index as a pyarrow table, columns as in shards/schema.py INDEX_COLUMNS."""
        return pq.read_table(self.folder / "index.parquet", schema=INDEX_COLUMNS)

    def data(self, row: int) -> memoryview:
        """Return the encoded image of one row of the index."""
        shard = int(self._shard[row])
        if shard not in self._maps:
            with open(self.folder / self.info["shards"][shard]["name"], "rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = int(self._offset[row])
        return memoryview(self._maps[shard])[start : start + int(self._size[row])]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the decoded crops at the given rows of the index.

        Args:
            rows: (N,) integers.

        Returns:
            (N, 3, patch_px, patch_px) uint8.

        Raises:
            ValueError: a crop does not decode or has another size; names its shard and row.
        """
        side = self.info["patch_px"]
        crops = np.empty((len(rows), side, side, 3), np.uint8)
        for i, row in enumerate(rows):
            try:
                crops[i] = decode(self.data(row))
            except ValueError as error:
                name = self.info["shards"][int(self._shard[row])]["name"]
                raise ValueError(
                    f"{self.folder / name}: the crop of index row {row} at byte "
                    f"{self._offset[row]} is broken ({error}); mix again"
                ) from error
        return np.ascontiguousarray(crops.transpose(0, 3, 1, 2))  # (N, 3, side, side)


def _read_info(folder: Path) -> dict:
    """Return `dataset.json`, checked."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; make it with `python shards/main.py mix`")
    path = folder / "dataset.json"
    if not path.is_file() or not (folder / "index.parquet").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished shards (no dataset.json or no index.parquet); "
            "make them with `python shards/main.py mix cells/ --out shards/`"
        )
    try:
        info = json.loads(path.read_text())
        form = info["format"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no data set's description: {error!r}") from error
    if form != FORMAT:
        raise ValueError(f"{path} is of format {form}; this code reads {FORMAT}: mix again")
    return info


def stream(urls: str | list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (key, crop) from WebDataset tars wherever webdataset can open them.

    Args:
        urls: paths, brace patterns, `https://…` or `pipe:…`.

    Yields:
        The key and (H, W, 3) uint8 RGB. Nothing is unpickled.
    """
    import webdataset

    source = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls), webdataset.tarfile_to_samples()
    )
    for sample in source:
        images = [sample[e] for e in ("jpg", "png", "webp") if e in sample]
        if len(images) != 1:
            raise ValueError(f"{sample['__url__']}: {sample['__key__']} holds {len(images)} images")
        yield sample["__key__"], decode(images[0])
