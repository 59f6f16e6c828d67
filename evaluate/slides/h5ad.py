"""Write a slide's nuclei as AnnData (.h5ad), X a block at a time.

anndata writes all but X: its own writer wants X whole in memory.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import no_room
from shards.write import atomic

ROWS = 4096  # of X in a block
CHUNK = 1 << 20  # bytes of a piece of X in the file


def write_h5ad(
    path: Path,
    embeddings: np.ndarray,
    names: list[str],
    columns: dict[str, np.ndarray],
    obsm: dict[str, np.ndarray],
    uns: dict,
    categories: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Write an AnnData file, whole or not at all.

    Args:
        embeddings: (N, D) float32, X; may be mapped from a file.
        names: N names of the observations.
        columns: of obs, name -> (N,) numbers, or str, which become categories ('' is missing).
        obsm: name -> (N, K) numbers.
        uns: nested dicts of numbers, str, arrays; lists become arrays; None is left out.
        categories: of columns whose categories have an order, or of which some may be absent.

    Raises:
        NoRoom: the disk is full.
    """
    import h5py
    from anndata.io import write_elem

    obs, var = frames(names, columns, embeddings.shape[1], categories)
    count, width = embeddings.shape
    parts: dict[str, Any] = {"obs": obs, "var": var, "obsm": obsm, "uns": plain(uns)}
    parts |= {name: {} for name in ("varm", "obsp", "varp", "layers")}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    needed = embeddings.size * 4 + _bytes([obs, obsm, uns])
    if needed > shutil.disk_usage(Path(path).parent).free:  # HDF5 says it in a hundred lines
        raise no_room(path, needed)
    with atomic(path) as file, h5py.File(file.name, "w") as root:
        root.attrs["encoding-type"], root.attrs["encoding-version"] = "anndata", "0.1.0"
        for name, part in parts.items():
            write_elem(root, name, part)
        chunks = (max(1, min(count, CHUNK // (4 * width))), width)
        x = root.create_dataset("X", (count, width), np.float32, chunks=chunks)
        x.attrs["encoding-type"], x.attrs["encoding-version"] = "array", "0.2.0"
        for first in range(0, count, ROWS):
            x[first : first + ROWS] = embeddings[first : first + ROWS]


def _bytes(value: Any) -> int:
    """Return the bytes of the arrays and tables in what is nested, but for its text."""
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(_bytes, value))
    if hasattr(value, "memory_usage"):
        return int(value.memory_usage().sum())
    return getattr(value, "nbytes", 0)


def frames(
    names: list[str],
    columns: dict[str, np.ndarray],
    width: int,
    categories: dict[str, tuple[str, ...]] | None = None,
) -> tuple[Any, Any]:
    """Return obs and var, pandas' DataFrames, of embeddings of `width` numbers.

    Args: as of `write_h5ad`.
    """
    import pandas

    obs = pandas.DataFrame(index=pandas.Index(names))
    for name, values in columns.items():
        kinds = sorted(set(values.tolist()) - {""}) if values.dtype.kind in "UO" else None
        kinds = (categories or {}).get(name, kinds)
        obs[name] = values if kinds is None else pandas.Categorical(values, kinds)
    return obs, pandas.DataFrame(index=pandas.Index([f"embedding_{i}" for i in range(width)]))


def plain(mapping: dict) -> dict:
    """Return nested dicts of what AnnData stores: no None, no list, no slash in a name."""
    found: dict[str, Any] = {}
    for name, value in mapping.items():
        if isinstance(value, dict):
            value = plain(value)
        elif isinstance(value, (list, tuple)):
            kinds = {type(v) for v in value}
            alike = kinds <= {int, float} or kinds in ({str}, {bool})
            value = np.array(value) if alike else json.dumps(value)
        if value is not None:
            found[str(name).replace("/", "-")] = value
    return found
