"""Small Xenium bundles in every form that 10x writes, and images for them."""

import gzip
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from scipy.sparse import csc_array, csr_array

GENES = [f"GENE{i}" for i in range(9, -1, -1)]  # not sorted
OTHERS = {
    "NegControlProbe_00042": "Negative Control Probe",
    "NegControlCodeword_0500": "Negative Control Codeword",
    "BLANK_0006": "Blank Codeword",
    "UnassignedCodeword_0001": "Unassigned Codeword",
}
FEATURES = [*GENES[:4], *OTHERS, *GENES[4:]]
KINDS = [OTHERS.get(name, "Gene Expression") for name in FEATURES]
CELLS = 40
SIZE = (700, 500)  # of the H&E, px
MATRIX = np.array([[0.0, -1.2, 650.0], [1.2, 0.0, 40.0], [0, 0, 1]])  # turned, 1.2 times as large
PIXEL_UM = 0.2125


def ids(kind: str) -> list[str]:
    if kind == "numbers":
        return [str(i + 1) for i in range(CELLS)]
    return [f"aaaa{chr(97 + i // 16)}{chr(97 + i % 16)}aa-1" for i in range(CELLS)]


def write_bundle(path, matrix="h5", table="csv.gz", kind="letters", aligned=True, seed=0):
    """Write a bundle; return counts (C, features), and the cells' places in px of the H&E."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.linspace(4, 0.2, len(FEATURES)), (CELLS, len(FEATURES)))
    names = ids(kind)
    if matrix == "h5":
        sparse = csc_array(counts.T)  # features by cells
        with h5py.File(path / "cell_feature_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(sparse, name)
            group["shape"] = sparse.shape
            group["barcodes"] = np.array(names, "S")
            group["features/name"] = np.array(FEATURES, "S")
            group["features/id"] = np.array([f"ENSG{i}" for i in range(len(FEATURES))], "S")
            group["features/feature_type"] = np.array(KINDS, "S")
    else:
        zarr = pytest.importorskip("zarr")
        sparse = csr_array(counts.T)
        store = zarr.storage.ZipStore(path / "cell_feature_matrix.zarr.zip", mode="w")
        kinds = ["gene" if k == "Gene Expression" else k.lower().replace(" ", "_") for k in KINDS]
        facts = {"feature_keys": FEATURES, "feature_types": kinds, "number_cells": CELLS}
        root = zarr.open_group(store, mode="w", zarr_format=2)
        group = root.create_group("cell_features", attributes=facts)
        for name in ("data", "indices", "indptr"):
            group.create_array(name, data=getattr(sparse, name).astype(np.uint32))
        prefix = [(i // 16 << 12) + (i % 16 << 8) for i in range(CELLS)]
        cell = np.array([(p, 1) for p in prefix], np.uint32)
        group.create_array("cell_id", data=cell if kind == "letters" else cell[:, 0])
        store.close()
    row, column = np.divmod(np.arange(CELLS), 8)
    xy = np.stack([column, row], axis=1) * 80.0 + (70, 90) + rng.uniform(-9, 9, (CELLS, 2))
    matrix = MATRIX if aligned else np.eye(3)
    um = (xy @ matrix[:2, :2].T + matrix[:2, 2]) * PIXEL_UM
    shuffled = rng.permutation(CELLS)
    if table == "parquet":
        columns = {
            "cell_id": [names[i].encode() for i in shuffled],
            "x_centroid": um[shuffled, 0],
            "y_centroid": um[shuffled, 1],
        }
        pq.write_table(pa.table(columns), path / "cells.parquet")
    else:
        lines = ['"cell_id","x_centroid","y_centroid","transcript_counts"']
        lines += [f'"{names[i]}",{um[i, 0]!r},{um[i, 1]!r},1' for i in shuffled]
        lines = [line.replace("np.float64(", "").replace(")", "") for line in lines]
        (path / "cells.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (path / "experiment.xenium").write_text(json.dumps({"pixel_size": PIXEL_UM}))
    if aligned:
        text = "\n".join(",".join(map(str, row)) for row in MATRIX.tolist())
        (path / "x_he_imagealignment.csv").write_text(text + "\n")
    return counts[:, [FEATURES.index(gene) for gene in sorted(GENES)]], xy


def write_image(path, seed=0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zlib")
    return pixels
