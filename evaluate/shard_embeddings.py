"""Embeddings of every cell of a data set, streamed from its shards in bounded memory."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from evaluate.embeddings import FORMAT, array_path, write
from evaluate.endings import Encoder
from shards.dataset import digest
from shards.index import Index
from shards.read import Shards
from shards.schema import VIEW_PX
from shards.write import atomic

KEYS = ["slide", "nucleus", "x", "y", "project", "label"]  # of a row: which cell it is
ROWS = 65_536  # of the index at once


def embed_shards(
    encoder: Encoder,
    path: str | Path,
    out: Path,
    overwrite: bool = False,
    dtype: str = "float32",
    side: int | None = None,
) -> tuple[Path, np.ndarray]:
    """Write an embedding per row of the index, resumable, and the rows' keys beside it.

    `<out>/embeddings/<encoder>/shards--<name>.npy` and `.keys.parquet`, in the order of
    `index.parquet`.

    Args:
        path: a folder that shards/main.py wrote, or a URL of one.
        side: of the crops that the encoder sees, px; None: as in a benchmark.

    Returns:
        The array's path, and the array mapped, (N, D).

    Raises:
        FileNotFoundError: no such folder, or no shards in it.
        ValueError: a crop is broken or smaller than the encoder's input.
    """
    shards = Shards(path)
    name = re.sub(r"[^\w+=@-]", "_", Path(str(path)).resolve().name) or "shards"
    view = max(side or VIEW_PX, encoder.input_px or 0)
    patch = shards.info["patch_px"]
    if view > patch:
        raise ValueError(f"{encoder.name} takes {view} px; {path} holds crops of {patch} px")
    margin = (patch - view) // 2
    cut = slice(margin, margin + view)
    manifest = {
        "format": FORMAT,
        "encoder": encoder.manifest(),
        "shards": {
            "name": name,
            "samples": len(shards),
            "digest": digest(shards.info["source"]),
            "view_px": view,
        },
        **({} if dtype == "float32" else {"dtype": dtype}),
    }
    array = array_path(encoder, f"shards--{name}", out, dtype)

    def read(first: int, last: int) -> np.ndarray:
        crops = shards.read(np.arange(first, last)).transpose(0, 2, 3, 1)  # (M, 60, 60, 3)
        return crops[:, cut, cut]

    embeddings = write(encoder, array, manifest, read, len(shards), dtype, overwrite)
    keys = array.with_suffix(".keys.parquet")
    if overwrite or not keys.is_file() or pq.read_metadata(keys).num_rows != len(shards):
        _write_keys(shards, keys)
    return array, embeddings


def _write_keys(shards: Shards, path: Path) -> None:
    """Copy the columns that name a cell, some row groups at a time."""
    index = Index(shards.folder, shards.info)
    with atomic(path) as file:
        writer = None
        for first in range(0, len(index), ROWS):
            table = index.table(first, min(first + ROWS, len(index))).select(KEYS)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer:
            writer.close()
