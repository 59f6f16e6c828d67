"""Write a slide's nuclei and embeddings as Parquet, a block at a time."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.classes.calls import Calls
from evaluate.slides.annotations import columns, xy
from evaluate.slides.extraction import Nuclei
from shards.write import atomic

BLOCK = 4096  # rows in memory at once


def write_parquet(
    path: Path,
    nuclei: Nuclei,
    embeddings: np.ndarray | None,
    described: dict,
    calls: Calls | None = None,
) -> None:
    """Write key, position, the columns of obs and `embedding` (a list of D float32), if given.

    The file's metadata holds `described` as JSON under the key "lemon".
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    named = columns(nuclei, calls) | (calls.arrow() if calls else {})
    places = dict(zip("xy", xy(nuclei).T, strict=True))
    schema, writer = None, None
    with atomic(path) as file:
        for first in range(0, len(nuclei), BLOCK):
            rows = slice(first, first + BLOCK)
            values = {"key": nuclei.keys(rows)}
            values |= {name: column[rows] for name, column in (places | named).items()}
            part = {
                name: column if isinstance(column, pa.Array) else pa.array(column, from_pandas=True)
                for name, column in values.items()
            }
            if embeddings is not None:
                flat = pa.array(np.ascontiguousarray(embeddings[rows]).reshape(-1))
                part["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
            table = pa.table(part)
            if writer is None:
                schema = table.schema.with_metadata({"lemon": json.dumps(described)})
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(table.cast(schema))
        if writer:
            writer.close()
