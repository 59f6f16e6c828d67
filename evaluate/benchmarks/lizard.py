"""Lizard (Graham et al. 2021) and its patches, CoNIC: colon at 20X, outlined nuclei of six classes.

Tested on small folders in the publisher's layouts only.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.fields import Field, build
from evaluate.benchmarks.matlab import read_mat
from evaluate.benchmarks.numpy_file import open_array
from evaluate.benchmarks.picture import read_size
from shards.folder import visible

LAYOUT = (
    "Lizard: lizard_images*/*/*.png, lizard_labels/Lizard_Labels/Labels/*.mat; or CoNIC: "
    "images.npy, labels.npy, patch_info.csv"
)
CLASSES = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")
LABELS = ("Labels", "Lizard_Labels/Labels", "lizard_labels/Lizard_Labels/Labels")
MPP_20X = 0.5
PATCHES = ("images.npy", "labels.npy", "patch_info.csv")


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return all((path / name).is_file() for name in PATCHES) or bool(_mats(path) and _images(path))


def load(path: Path, view_px: int = 40, mpp: float = MPP_20X) -> list[Benchmark]:
    """Cut every nucleus whose window lies in its field; groups are the fields.

    The images are at 20X, so that crops are enlarged twofold: an encoder sees a quarter of the
    pixels it was trained on. Whose the fields are is not published. A patch of CoNIC is cut out
    of a field of Lizard, so more of its nuclei lie at a border.

    Raises:
        FileNotFoundError: a field without its image.
        ValueError: a file does not open, arrays do not fit each other, a class is unknown, or
            nuclei lie outside their field.
    """
    patches = (path / PATCHES[0]).is_file()
    name, what = ("conic", "patch") if patches else ("lizard", "field")
    left_out = Counter[str]()
    fields = _patches(path, mpp) if patches else _fields(path, mpp, left_out)
    kinds = ("field", "source")
    source = "labels.npy" if patches else "Labels/*.mat"
    whole, labels = build(name, source, fields, view_px, kinds, [], left_out, what=what)
    return [replace(whole, labels=labels, classes=CLASSES)]


def _fields(path: Path, mpp: float, left_out: Counter[str]) -> Iterator[Field]:
    images = {image.stem: image for image in _images(path)}
    for mat in _mats(path):
        if mat.stem not in images:
            raise FileNotFoundError(f"{mat} has no image {mat.stem}.png in {path}/lizard_images*")
        found = read_mat(mat, ("inst_map", "id", "class", "centroid"))
        ids, kinds, xy = found["id"].ravel(), found["class"].ravel(), found["centroid"]
        if xy.size == 0:
            xy = xy.reshape(0, 2)
        if xy.shape != (len(ids), 2) or len(kinds) != len(ids):
            raise ValueError(
                f"{mat}: {len(ids)} id, {len(kinds)} class, centroid of {xy.shape}; expected (N, 2)"
            )
        width, height = read_size(images[mat.stem], str(mat))
        instances = found["inst_map"]
        if instances.shape != (height, width):
            raise ValueError(
                f"{mat}: inst_map is {instances.shape}, its image {images[mat.stem].name} "
                f"{(height, width)}; take both from one download"
            )
        if not np.isfinite(xy).all():
            raise ValueError(f"{mat}: a centroid is nan or infinite; download it again")
        x, y = np.rint(xy).astype(int).T
        there = instances[y.clip(0, height - 1), x.clip(0, width - 1)]
        if (there == ids).sum() < len(ids) / 2:  # the middle of a bent nucleus may lie outside it
            raise ValueError(
                f"{mat}: {(there != ids).sum()} of {len(ids)} centroids lie in another nucleus of "
                "inst_map or in none; (x, y) of each id are needed"
            )
        nameless = np.unique(instances[~np.isin(instances, [0, *ids.tolist()])])
        if len(nameless):
            left_out["in inst_map without a class"] += len(nameless)
        batch_variables = {"source": mat.stem.partition("_")[0]}
        yield Field(
            mat.stem, images[mat.stem], xy.astype(float), _names(mat, kinds), mpp, batch_variables
        )


def _patches(path: Path, mpp: float) -> Iterator[Field]:
    images = open_array(path / PATCHES[0], (None, None, None, 3), mapped=True)
    labels = open_array(path / PATCHES[1], (len(images), *images.shape[1:3], 2), mapped=True)
    if images.dtype != np.uint8 or labels.dtype.kind not in "ui":
        raise ValueError(f"{path}: images of {images.dtype}, labels of {labels.dtype}; expected "
                         "uint8 and integers")  # fmt: skip
    names = read_columns(path / PATCHES[2], ("patch_info",))["patch_info"]
    if len(names) != len(images):
        raise ValueError(f"{path}: {len(names)} rows of patch_info.csv for {len(images)} images")
    for name, image, label in zip(names.tolist(), images, labels, strict=True):
        y, x = np.nonzero(label[..., 0])
        _, first, nucleus, size = np.unique(
            label[y, x, 0], return_index=True, return_inverse=True, return_counts=True
        )
        xy = np.stack([np.bincount(nucleus, axis, len(size)) / size for axis in (x, y)], axis=1)
        kinds = label[y[first], x[first], 1]
        field = name.rpartition("-")[0] or name
        batch_variables = {"field": field, "source": field.partition("_")[0]}
        labels_ = _names(path / PATCHES[1], kinds)
        yield Field(name, np.ascontiguousarray(image), xy, labels_, mpp, batch_variables)


def _names(file: Path, kinds: np.ndarray) -> np.ndarray:
    foreign = sorted(set(kinds.tolist()) - set(range(1, len(CLASSES) + 1)))
    if foreign:
        raise ValueError(f"{file}: unknown class {foreign[0]}; known are 1-{len(CLASSES)}")
    return np.array(CLASSES, np.str_)[kinds.astype(int) - 1]


def _mats(path: Path) -> list[Path]:
    return next((mats for place in LABELS if (mats := visible((path / place).glob("*.mat")))), [])


def _images(path: Path) -> list[Path]:
    return visible([*path.glob("*mages*/*.png"), *path.glob("*mages*/*/*.png")])
