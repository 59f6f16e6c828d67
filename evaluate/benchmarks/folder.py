"""Anyone's own benchmark: a folder with `cells.csv` and the images or slides it names.

    image,x,y,label[,group][,mpp]
    images/a.png,120,88.5,lymphocyte,patient 1,0.25

Positions are window centres in px of the image, for a slide in level-0 px. The first column may
be called `slide` as well. Columns `patient`, `hospital` and `scanner`, where there are such, are
kept as further groupings; without a `group`, groups are the images.
"""

import re
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.picture import Picture, open_picture
from shards.scale import check_mpp
from shards.schema import MPP, MPP_40X, MPP_TOLERANCE

LAYOUT = "cells.csv (image or slide, x, y, label[, group][, mpp]), images or slides relative to it"

CURE = "give the true one in the mpp column of cells.csv (40X is 0.25)"
KINDS = ("patient", "hospital", "scanner")  # further groupings that a table may have


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "cells.csv").is_file()


def load(path: Path, view_px: int = 40) -> list[Benchmark]:
    """Cut every labelled nucleus whose whole window lies in its image.

    Args:
        path: the folder; its name names the benchmark.
        view_px: side of a window, px at 0.25 µm/px.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: a column is absent, an image does not open or has no scale, an image has two
            values of mpp, or nothing is left.
    """
    optional = ("image", "slide", "group", "mpp", *KINDS)
    table = read_columns(path / "cells.csv", ("label",), ("x", "y"), optional)
    named = "image" if table["image"].any() else "slide"
    if not table[named].all():
        raise ValueError(
            f"{path / 'cells.csv'}: no column 'image' (or 'slide'), or a row without one"
        )
    pictures = table[named]
    xy = np.stack([table["x"], table["y"]], axis=1)  # (N, 2)
    crops = np.zeros((len(xy), view_px, view_px, 3), np.uint8)
    whole = np.zeros(len(xy), bool)
    resampled = 0
    for name in dict.fromkeys(pictures.tolist()):
        rows = np.flatnonzero((pictures == name) & (table["label"] != ""))
        if not len(rows):
            continue
        with open_picture(path / name) as picture:
            mpp = _mpp(name, table["mpp"][rows], picture)
            found, windows = picture.cut(xy[rows], mpp, view_px)
        crops[rows[found]] = windows
        whole[rows[found]] = True
        resampled += abs(mpp / MPP - 1) > MPP_TOLERANCE
    given = ("group", "image", "slide", *KINDS)
    origins = {kind: table[kind][whole] for kind in given if table[kind].any()}
    unlabelled = table["label"] == ""
    notes = [
        f"{(~whole & ~unlabelled).sum()} of {len(whole)} nuclei dropped: "
        f"their {view_px}x{view_px}-px window leaves the image"
    ]
    if unlabelled.any():
        notes.append(f"{unlabelled.sum()} of {len(whole)} rows passed over: no label")
    if resampled:
        notes.append(f"{resampled} images resampled to {MPP} µm/px")
    return [
        Benchmark(
            name=re.sub(r"[^\w+=@-]", "_", path.resolve().name) or "folder",
            crops=crops[whole],
            labels=table["label"][whole],
            classes=tuple(sorted(set(table["label"][whole].tolist()))),
            groups=origins.get("group", origins[named]),
            group_kind="group" if "group" in origins else named,
            notes=tuple(notes),
            origins=origins,
        )
    ]


def _mpp(name: str, column: np.ndarray, picture: Picture) -> float:
    """Return an image's scale: the column's where given, else its own, never a guess."""
    given = set(column.tolist()) - {""}
    if len(given) > 1:
        raise ValueError(f"cells.csv gives {name} {len(given)} values of mpp: {sorted(given)}")
    if given:
        word = given.pop()
        try:
            mpp = float(word)
        except ValueError:
            raise ValueError(f"cells.csv gives {name} an mpp of {word!r}, no number") from None
        return check_mpp(mpp, f"{name} (by the mpp column of cells.csv)", CURE)
    own = picture.mpp
    if own is None:
        raise ValueError(f"{name} has no scale of its own; add an `mpp` column to cells.csv")
    check_mpp(own, f"{name} (by its own word)", CURE)
    if not MPP_40X[0] <= own <= MPP_40X[1]:
        raise ValueError(
            f"{name} is at {own:.3f} µm/px, not 40X (0.2-0.3); to resample it all the same, "
            "say so in an `mpp` column of cells.csv"
        )
    return own
