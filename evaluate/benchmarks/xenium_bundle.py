"""A 10x Xenium output bundle: counts per cell and gene, places of cells, the scale of its image.

Tested on 10x's own cell_feature_matrix.h5, cells.csv.gz and experiment.xenium; the .zarr.zip and
the alignment only on small files in 10x's documented layout.
"""

import gzip
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_array

from evaluate.benchmarks import transcripts
from shards.filetype import check_file, describe
from shards.folder import visible
from shards.scale import check_mpp
from shards.table import read_table

GENES = ("gene expression", "gene")  # feature types that are genes, in any case: .h5's, .zarr's
MATRICES = ("cell_feature_matrix.h5", "cell_feature_matrix.zarr.zip")
ARRAYS = ("data", "indices", "indptr")  # of a compressed sparse matrix, in both kinds of file
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
EXPERIMENT = "experiment.xenium"
LAYOUT = f"{' or '.join(MATRICES)}, {' or '.join(CELLS)}, {EXPERIMENT}"


@dataclass(frozen=True, eq=False)
class Bundle:
    """C cells and G genes of one slide."""

    path: Path
    ids: np.ndarray  # (C,) str
    xy_um: np.ndarray  # (C, 2) float64, centroids of cells in the frame of the Xenium image, µm
    genes: np.ndarray  # (G,) str, sorted
    counts: csr_array  # (C, G)
    pixel_um: float  # of the Xenium image, µm/px
    matrix: np.ndarray  # (3, 3) from px of the H&E to px of the Xenium image
    notes: tuple[str, ...]

    def to_um(self, xy: np.ndarray) -> np.ndarray:
        """Return places in the Xenium frame, µm, of (N, 2) float px of the H&E, level 0."""
        return (xy @ self.matrix[:2, :2].T + self.matrix[:2, 2]) * self.pixel_um

    def to_px(self) -> np.ndarray:
        """Return the cells' centroids in px of the H&E, level 0, (C, 2)."""
        back = np.linalg.inv(self.matrix)
        return (self.xy_um / self.pixel_um) @ back[:2, :2].T + back[:2, 2]

    @property
    def sides(self) -> tuple[float, float]:
        """The largest and the least scale of the H&E, µm/px, in any direction."""
        largest, least = np.linalg.svd(self.matrix[:2, :2], compute_uv=False).tolist()
        return self.pixel_um * largest, self.pixel_um * least

    @property
    def mpp(self) -> float:
        """The scale of the H&E, µm/px, by its alignment; without one the Xenium image's."""
        return float(self.pixel_um * abs(np.linalg.det(self.matrix[:2, :2])) ** 0.5)


def is_bundle(path: Path) -> bool:
    """Tell whether this is a bundle's folder, or its matrix."""
    if path.is_dir():
        return any((path / name).is_file() for name in MATRICES)
    return path.name.endswith((".h5", ".zarr.zip")) and path.is_file()


def read_bundle(path: Path) -> Bundle:
    """Read a bundle's counts, without controls, blanks and unassigned codewords.

    Args:
        path: the folder, or its matrix, beside which the cells' table lies.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file does not open, or matrix and table share no cell.
    """
    folder = path if path.is_dir() else path.parent
    file = _one(folder, MATRICES) if path.is_dir() else path
    check_file(file)
    barcodes, names, kinds, counts = (_h5 if file.suffix == ".h5" else _zarr)(file)
    if len(kinds) != len(names):
        raise ValueError(
            f"{file}: {len(names)} names of features, {len(kinds)} feature types; download it again"
        )
    if not (np.isfinite(counts.data) & (counts.data >= 0)).all():
        raise ValueError(f"{file}: a count is negative or no number; 10x's own are wanted")
    gene = np.array([kind.lower() in GENES for kind in kinds], bool)
    if not gene.any():
        found = ", ".join(f"{kind} {n}" for kind, n in Counter(kinds).most_common())
        raise ValueError(f"{file}: none of its {len(kinds)} features is a gene ({found})")
    others = Counter(kinds[i] for i in np.flatnonzero(~gene))
    notes = [
        f"{len(kinds)} features: {gene.sum()} genes; left out "
        + (", ".join(f"{n} {kind}" for kind, n in others.most_common()) or "none")
    ]
    columns = np.flatnonzero(gene)
    columns = columns[np.argsort(names[columns], kind="stable")]
    genes, times = np.unique(names[columns], return_counts=True)
    if (times > 1).any():
        raise ValueError(f"{file}: gene {genes[times > 1][0]} stands there {times.max()} times")
    ids, xy = _cells(_one(folder, CELLS))
    if not counts[:, columns].sum():
        raise ValueError(
            f"{file}: {len(barcodes)} cells, and not one transcript of a gene; "
            "10x's own matrix is wanted"
        )
    if again := len(barcodes) - len(np.unique(barcodes)):
        raise ValueError(f"{file}: {again} cells stand there twice; download it again")
    order = np.argsort(barcodes)
    place = np.searchsorted(barcodes, ids, sorter=order).clip(max=len(barcodes) - 1)
    joined = barcodes[order[place]] == ids
    if not joined.any():
        raise ValueError(
            f"{file}: no cell of the matrix ({barcodes[0]}, …) is in {folder}'s table of cells "
            f"({ids[0]}, …): files of two bundles"
        )
    notes.append(
        f"{joined.sum()} cells by id; {len(ids) - joined.sum()} of the table without counts, "
        f"{len(barcodes) - joined.sum()} of the matrix without a place: left out"
    )
    rows = order[place[joined]]
    matrix = _alignment(folder)
    if matrix is None:
        matrix = np.eye(3)
        notes.append(
            "no *he_imagealignment.csv: the slide is taken to be in the frame and of the scale of "
            "the Xenium image"
        )
    return Bundle(
        folder, ids[joined], xy[joined], names[columns], counts[rows][:, columns],
        _pixel_um(folder), matrix, tuple(notes),
    )  # fmt: skip


def _one(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {' or '.join(names)}; a Xenium bundle holds {LAYOUT}")


def _pixel_um(folder: Path) -> float:
    file = _one(folder, (EXPERIMENT,))
    check_file(file)
    try:
        size = float(json.loads(file.read_text(encoding="utf-8-sig"))["pixel_size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} gives no pixel_size: {error!r}") from error
    return check_mpp(size, f"the Xenium image (by pixel_size of {file})", "correct that file")


def _h5(file: Path) -> tuple[np.ndarray, np.ndarray, list[str], csr_array]:
    """Return barcodes, names and kinds of features, and (cells, features) counts."""
    import h5py

    try:
        with h5py.File(file) as opened:
            data, indices, indptr, *words = (
                np.asarray(opened[f"matrix/{name}"])
                for name in (*ARRAYS, "barcodes", "features/name", "features/feature_type")
            )
        barcodes, names = (np.array([_text(word) for word in of], np.str_) for of in words[:2])
        kinds = [_text(word) for word in words[2]]
        counts = csr_array((data, indices, indptr), shape=(len(barcodes), len(names)))
        counts.check_format()
    except (OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{file}, {describe(file)}, is no 10x matrix of features by cells: {error}"
        ) from error
    return barcodes, names, kinds, counts


def _zarr(file: Path) -> tuple[np.ndarray, np.ndarray, list[str], csr_array]:
    """Return the same of Xenium Explorer's matrix, whose rows are features."""
    try:
        import zarr
        import zarr.storage
    except ImportError as error:
        raise ValueError(
            f"{file} needs zarr (pip install 'zarr>=3'); cell_feature_matrix.h5 does not"
        ) from error
    try:
        store = zarr.storage.ZipStore(file, mode="r")
        try:
            group = zarr.open_group(store, mode="r", path="cell_features")
            facts: dict[str, Any] = dict(group.attrs)
            data, indices, indptr, cell = (np.asarray(group[name]) for name in (*ARRAYS, "cell_id"))
        finally:
            store.close()
        names = np.array([_text(name) for name in facts["feature_keys"]], np.str_)
        kinds = [_text(kind) for kind in facts["feature_types"]]
        counts = csr_array((data, indices, indptr), shape=(len(names), len(cell)))
        counts.check_format()
    except (
        OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError
    ) as error:  # fmt: skip
        raise ValueError(
            f"{file}, {describe(file)}, is no matrix of Xenium Explorer: {error!r}"
        ) from error
    return _cell_ids(cell), names, kinds, csr_array(counts.T)


def _cell_ids(cell: np.ndarray) -> np.ndarray:
    """Return ids as 10x writes them: a prefix of 8 letters a-p for its hex digits, -suffix."""
    if cell.ndim == 1:  # before XOA 1.3: numbers
        return cell.astype(np.str_)
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return np.array([f"{prefix:08x}".translate(letters) + f"-{n}" for prefix, n in cell.tolist()])


def _cells(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (C,) str and centroids (C, 2), µm, of cells.parquet or cells.csv.gz."""
    check_file(file)
    places = ("x_centroid", "y_centroid")
    if file.suffix != ".parquet":
        try:
            data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else None
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{file} does not unpack: {error}") from error
        table = read_table(file, ("cell_id", *places), say_unknown=False, data=data)
        ids = np.array(table.words("cell_id"), np.str_)
        xy = np.stack([table.numbers(name) for name in places], axis=1)
    else:
        try:
            read = pq.read_table(file, columns=["cell_id", *places])
            xy = np.stack([read[name].to_numpy().astype(float) for name in places], axis=1)
            texts, which = transcripts.words(read["cell_id"])
            ids = texts[which]
        except (pa.ArrowException, KeyError, OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file} has no cell_id, {', '.join(places)}: {error}") from error
    if not len(ids):
        raise ValueError(f"{file}: a header and no rows")
    if len(set(ids.tolist())) < len(ids):
        raise ValueError(f"{file}: {len(ids) - len(set(ids.tolist()))} cells stand there twice")
    if not np.isfinite(xy).all():
        raise ValueError(f"{file}: {(~np.isfinite(xy).all(axis=1)).sum()} cells have no place")
    return ids, xy


def _alignment(folder: Path) -> np.ndarray | None:
    """Return the 3x3 matrix of Xenium Explorer's `*he_imagealignment.csv`, if there is one."""
    found = visible(folder.glob("*he_imagealignment.csv"))
    if not found:
        return None
    if len(found) > 1:
        raise ValueError(f"{folder} holds {len(found)} files *he_imagealignment.csv; leave one")
    check_file(found[0])
    try:
        matrix = np.loadtxt(found[0], delimiter=",", encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{found[0]} is no 3x3 matrix of numbers (one of keypoints? export the matrix): {error}"
        ) from error
    if matrix.shape != (3, 3) or not np.allclose(matrix[2], (0, 0, 1)):
        raise ValueError(f"{found[0]} is no 3x3 matrix that ends in 0, 0, 1")
    if not abs(np.linalg.det(matrix)) > 1e-6:
        raise ValueError(f"{found[0]}: the matrix has no inverse")
    return matrix


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
