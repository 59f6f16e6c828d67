"""CoNSeP (Graham et al. 2019, HoVer-Net): 41 colorectal fields at 40X, four kinds of nuclei."""

from pathlib import Path

import numpy as np
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.columns import read_columns
from shards.crop import cut, inside
from shards.schema import MPP

LAYOUT = "images/*.jpg or *.png, nuclei.csv (image, label, x, y)"
CLASSES = ("epithelial", "spindle", "inflammatory", "other")


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "nuclei.csv").is_file() and (path / "images").is_dir()


def load(path: Path, view_px: int = 40) -> list[Benchmark]:
    """Cut every nucleus whose whole window lies in its field; groups are the fields.

    Paper leaves open: CoNSeP is not in it. Here: windows beyond a border are dropped rather than
    filled, since a filled margin tells a nucleus' place; the count is in `notes`. The publisher's
    train/test split is not used, as the protocol is cross-validation.

    Args:
        path: images/ at 0.25 µm/px and nuclei.csv.
        view_px: side of a window, px at 0.25 µm/px.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: a column is absent or a label is foreign.
    """
    table = read_columns(path / "nuclei.csv", ("image", "label"), ("x", "y"))
    xy = np.stack([table["x"], table["y"]], axis=1)  # (N, 2)
    crops = np.zeros((len(xy), view_px, view_px, 3), np.uint8)
    whole = np.zeros(len(xy), bool)
    for name in dict.fromkeys(table["image"].tolist()):
        image = _image(path / "images", name)
        rows = np.flatnonzero(table["image"] == name)
        rows = rows[inside(xy[rows], image.shape[1], image.shape[0], MPP, view_px)]
        crops[rows] = cut(image, xy[rows], MPP, view_px)
        whole[rows] = True
    return [
        Benchmark(
            name="consep",
            crops=crops[whole],
            labels=table["label"][whole],
            classes=CLASSES,
            groups=table["image"][whole],
            group_kind="field",
            notes=(
                f"{(~whole).sum()} of {len(whole)} nuclei dropped: "
                f"their {view_px}x{view_px}-px window leaves the field",
            ),
            origins={"field": table["image"][whole]},
        )
    ]


def _image(folder: Path, name: str) -> np.ndarray:
    """Return a field, (H, W, 3) uint8 RGB."""
    for suffix in (".jpg", ".png"):
        if (folder / (name + suffix)).is_file():
            with Image.open(folder / (name + suffix)) as image:
                return np.asarray(image.convert("RGB"))
    raise FileNotFoundError(f"nuclei.csv names {name}, but {folder} has no {name}.jpg or .png")
