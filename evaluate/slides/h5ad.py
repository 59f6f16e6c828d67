"""Write AnnData's on-disk format (.h5ad), a block of X at a time.

Source: anndata's documentation, "On disk format" (encoding versions of anndata 0.8 and later).
anndata's own writer wants X whole in memory; h5py alone is needed here.
"""

import json
from pathlib import Path

import numpy as np

from shards.write import atomic

ROWS = 4096  # of X in a block
CHUNK = 1 << 20  # bytes of a compressed piece of X


def write_h5ad(
    path: Path,
    vectors: np.ndarray,
    names: list[str],
    columns: dict[str, np.ndarray],
    obsm: dict[str, np.ndarray],
    uns: dict,
) -> None:
    """Write an AnnData file, whole or not at all.

    Args:
        path: of the file.
        vectors: (N, D) float32, X; may be mapped from a file.
        names: N names of the observations.
        columns: of obs, name -> (N,) numbers, or str, which become categories ('' is missing).
        obsm: name -> (N, K) numbers.
        uns: nested dicts of numbers, str, arrays; lists become arrays; None is left out.
    """
    import h5py

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file, h5py.File(file.name, "w") as root:
        _mark(root, "anndata", "0.1.0")
        count, width = vectors.shape
        chunk = max(1, min(count, CHUNK // (4 * width)))
        x = root.create_dataset("X", vectors.shape, np.float32, chunks=(chunk, width))
        _mark(x, "array", "0.2.0")
        for first in range(0, count, ROWS):
            x[first : first + ROWS] = vectors[first : first + ROWS]
        _frame(root, "obs", names, columns)
        _frame(root, "var", [f"embedding_{i}" for i in range(width)], {})
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            _mark(root.create_group(name), "dict", "0.1.0")
        for name, values in obsm.items():
            _array(root["obsm"], name, values)
        _mapping(root["uns"], uns)


def _mark(item, kind: str, version: str) -> None:
    item.attrs["encoding-type"], item.attrs["encoding-version"] = kind, version


def _array(group, name: str, values: np.ndarray) -> None:
    import h5py

    if values.dtype.kind in "UO":
        item = group.create_dataset(name, data=values.astype(object), dtype=h5py.string_dtype())
        _mark(item, "string-array", "0.2.0")
    else:
        _mark(group.create_dataset(name, data=values), "array", "0.2.0")


def _frame(root, name: str, index: list[str], columns: dict[str, np.ndarray]) -> None:
    """Write a data frame: its index, and each column as an array or as categories."""
    import h5py

    group = root.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    _array(group, "_index", np.array(index, object))
    for column, values in columns.items():
        if values.dtype.kind not in "UO":
            _array(group, column, values)
            continue
        categories, codes = np.unique(values, return_inverse=True)
        if len(categories) and categories[0] == "":
            categories, codes = categories[1:], codes - 1
        item = group.create_group(column)
        _mark(item, "categorical", "0.2.0")
        item.attrs["ordered"] = False
        _array(item, "categories", categories)
        _array(item, "codes", codes.astype(np.int32))


def _mapping(group, mapping: dict) -> None:
    """Write nested dicts."""
    import h5py

    for name, value in mapping.items():
        name = str(name).replace("/", "-")  # a slash would open a group
        if value is None:
            continue
        if isinstance(value, dict):
            _mark(group.create_group(name), "dict", "0.1.0")
            _mapping(group[name], value)
        elif isinstance(value, np.ndarray):
            _array(group, name, value)
        elif isinstance(value, str):
            item = group.create_dataset(name, data=value, dtype=h5py.string_dtype())
            _mark(item, "string", "0.2.0")
        elif isinstance(value, (list, tuple)):
            flat = {type(v) for v in value}
            plain = flat <= {int, float} or flat == {str} or flat == {bool}
            _mapping(group, {name: np.array(value) if plain else json.dumps(value)})
        else:
            _mark(group.create_dataset(name, data=value), "numeric-scalar", "0.2.0")
