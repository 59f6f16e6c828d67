"""CoNSeP (Graham et al. 2019, HoVer-Net): 41 colorectal fields at 40X, four kinds of nuclei.

As Warwick distributes it, `Train/` and `Test/` with `Images/*.png` and `Labels/*.mat`; or with one
table, `nuclei.csv`. Tested on the publisher's fields with such a table; the .mat reader on small
files in the publisher's layout.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import counted, listed, no_class
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.fields import Field, build
from evaluate.benchmarks.matlab import read_mat
from evaluate.benchmarks.picture import read_pixels
from shards.folder import visible
from shards.schema import MPP

LAYOUT = (
    "images/*.jpg or *.png, nuclei.csv (image, label, x, y); or Warwick's Train/ and Test/ with "
    "Images/*.png and Labels/*.mat"
)
CLASSES = ("epithelial", "spindle", "inflammatory", "other")
# Warwick's numbers; healthy and malignant epithelium are one class, and so are fibroblasts, muscle
# and endothelium, as in the paper.
NUMBERS = {
    1: "other", 2: "inflammatory", 3: "epithelial", 4: "epithelial", 5: "spindle", 6: "spindle",
    7: "spindle",
}  # fmt: skip


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    one_table = (path / "nuclei.csv").is_file() and (path / "images").is_dir()
    return one_table or bool(_splits(path))


def load(path: Path, view_px: int = 40) -> list[Benchmark]:
    """Cut every nucleus whose whole window lies in its field; groups are the fields.

    Paper leaves open: CoNSeP is not in it. Here: windows beyond a border are dropped rather than
    filled, since a filled margin tells a nucleus' place; the count is in `notes`. The publisher's
    train/test split is not used, as the protocol is cross-validation.

    Args:
        path: the publisher's folder, or images/ at 0.25 µm/px and nuclei.csv.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: a column is absent, a label is foreign, a file does not open, or more than a
            few nuclei lie outside their field.
    """
    one_table = (path / "nuclei.csv").is_file()
    notes, left_out = [], Counter[str]()
    source, fields = (
        ("nuclei.csv", _of_table(path, notes, left_out))
        if one_table
        else ("Labels/*.mat", _of_mats(path, notes))
    )
    whole, labels = build(
        "consep", source, fields, view_px, ("field",), notes, left_out, str(view_px)
    )
    return [replace(whole, labels=labels, classes=CLASSES)]


def _of_table(path: Path, notes: list[str], left_out: Counter[str]) -> Iterator[Field]:
    """Yield the fields of nuclei.csv in its order."""
    table = read_columns(path / "nuclei.csv", ("image", "label"), ("x", "y"), as_written=("label",))
    xy = np.stack([table["x"], table["y"]], axis=1)  # (N, 2)
    labels, words = no_class(table["label"])
    for name in dict.fromkeys(table["image"].tolist()):
        rows = table["image"] == name
        yield Field(name, _image(path / "images", name), xy[rows], labels[rows], MPP)
    left_out["without a label"] = words.total()
    if words:
        notes.append(f"{words.total()} of {len(xy)} rows passed over: no label ({counted(words)})")


def _image(folder: Path, name: str) -> Path:
    for suffix in (".jpg", ".png"):
        if (folder / (name + suffix)).is_file():
            return folder / (name + suffix)
    raise FileNotFoundError(f"nuclei.csv names {name}, but {folder} has no {name}.jpg or .png")


def _splits(path: Path) -> list[Path]:
    """Return Warwick's Train and Test folders, in the folder itself or one below."""
    for root in (path, *(p for p in visible(path.iterdir()) if p.is_dir())):
        found = [
            split
            for split in visible(root.iterdir())
            if split.name.lower() in ("train", "test") and (split / "Labels").is_dir()
        ]
        if found and any(visible((split / "Labels").glob("*.mat")) for split in found):
            return found
    return []


def _of_mats(path: Path, notes: list[str]) -> Iterator[Field]:
    """Yield the fields of Warwick's folders, by name."""
    splits = _splits(path)
    if len(splits) < 2:
        notes.append(f"{splits[0].name} alone: its other half is not there")
    for split in splits:
        mats = visible((split / "Labels").glob("*.mat"))
        bare = {p.stem for p in visible((split / "Images").glob("*.png"))} - {p.stem for p in mats}
        if bare:
            notes.append(
                f"{len(bare)} images of {split.name} without Labels/*.mat, not used: "
                f"{listed(sorted(bare))}"
            )
        for mat in mats:
            yield _field(mat, split / "Images" / f"{mat.stem}.png")


def _field(mat: Path, image: Path) -> Field:
    """Return a field of its image and .mat file."""
    pixels = read_pixels(image, str(mat))
    found = read_mat(mat, ("inst_map", "inst_type"), ("inst_centroid",))
    ids = found["inst_map"]
    if ids.shape != pixels.shape[:2]:
        raise ValueError(f"{mat}: inst_map is {ids.shape}, its image {pixels.shape[:2]}")
    y, x = np.nonzero(ids)
    instance = np.unique(ids[y, x], return_inverse=True)[1]
    types = found["inst_type"].ravel()
    count = len(np.unique(instance))
    if len(types) != count:
        raise ValueError(f"{mat}: inst_type has {len(types)} values for {count} nuclei of inst_map")
    foreign = sorted(set(types.tolist()) - set(NUMBERS))
    if foreign:
        raise ValueError(f"{mat}: unknown inst_type {foreign[0]}; known are 1-7")
    size = np.bincount(instance, minlength=count)
    xy = np.stack([np.bincount(instance, axis, count) / size for axis in (x, y)], axis=1)
    given = found.get("inst_centroid")
    if given is not None:
        reach = np.sqrt(size / np.pi) * 4 + 2  # px; a long nucleus' box reaches about so far
        if given.shape != xy.shape or (np.abs(given - xy).max(axis=1) > reach).any():
            raise ValueError(
                f"{mat}: inst_centroid {given.shape} are not the middles of inst_map's nuclei; "
                "(x, y) of each, in the order of their numbers, are needed"
            )
        xy = given.astype(float)
    labels = np.array([NUMBERS[int(kind)] for kind in types], np.str_)
    return Field(mat.stem, pixels, xy, labels, MPP)
