"""Anyone's own benchmark: a folder with `cells.csv` and the images or slides it names.

    image,x,y,label[,group][,mpp]
    images/a.png,120,88.5,lymphocyte,patient 1,0.25

Positions are window centres in px of the image, for a slide in level-0 px. The first column may
be called `slide` as well. Columns `patient`, `hospital` and `scanner`, where there are such, are
kept as further groupings; without a `group`, groups are the images. Without a `cells.csv` the
labels are those drawn in QuPath or napari (evaluate/benchmarks/drawn.py).
"""

import re
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks import drawn
from evaluate.benchmarks.checks import (
    Places,
    check_classes,
    counted,
    find_twins,
    listed,
    look_alikes,
    no_class,
)
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.picture import Picture, fingerprint, open_picture, strays
from shards.location import located
from shards.scale import check_mpp
from shards.schema import MPP, MPP_40X, MPP_TOLERANCE

LAYOUT = (
    "cells.csv (image or slide, x, y, label[, group][, mpp]), images or slides relative to it; or "
    "images, each beside a .geojson of QuPath or a .csv of napari's points of its name"
)

CURE = "give the true one in the mpp column of cells.csv (40X is 0.25)"
KINDS = ("patient", "hospital", "scanner")  # further groupings that a table may have


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "cells.csv").is_file() or bool(drawn.files(path))


def load(
    path: Path, view_px: int = 40, mpp: float | None = None, predicted: str = "drop"
) -> list[Benchmark]:
    """Cut every labelled nucleus whose whole window lies in its image.

    Args:
        path: the folder; its name names the benchmark.
        mpp: scale of images that no column gives one, µm/px; None: what they say themselves.
        predicted: `drop` or `keep`, of QuPath's objects: what a classifier said, unchanged.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: a column is absent, an image does not open or has no scale, an image has two
            values of mpp, more than a few nuclei lie outside their image, one has two labels, or
            nothing is left.
    """
    table, said = _table(path, predicted)
    source = str(path / "cells.csv" if (path / "cells.csv").is_file() else path)
    if mpp is not None:
        table["mpp"] = np.where(np.isfinite(table["mpp"]), table["mpp"], mpp)
    named = "image" if table["image"].any() else "slide"
    if not table[named].all():
        raise ValueError(f"{source}: no column 'image' (or 'slide'), or a row without one")
    pictures, labels = table[named], table["label"]
    labels, none = no_class(labels)
    xy = np.stack([table["x"], table["y"]], axis=1)  # (N, 2)
    check_classes(source, pictures, xy, labels)
    crops = np.zeros((len(xy), view_px, view_px, 3), np.uint8)
    whole = np.zeros(len(xy), bool)
    identity = np.empty(len(xy), object)  # (N,) str, equal for one image of two names
    places, seen, resampled = Places(source), {}, 0
    for name in dict.fromkeys(pictures.tolist()):
        rows = np.flatnonzero((pictures == name) & (labels != ""))
        if not len(rows):
            continue
        file = located(path / "cells.csv", name, source)
        if "\\" in name and not file.exists():
            raise FileNotFoundError(
                f"{source}: {name} is not there; folders are separated by / here"
            )
        with open_picture(file, source) as picture:
            scale = _mpp(file, table["mpp"][rows], picture)
            places.look(name, xy[rows], *picture.size)
            found, windows = picture.cut(xy[rows], scale, view_px)
        crops[rows[found]] = windows
        whole[rows[found]] = True
        identity[rows] = seen.setdefault(fingerprint(file), name)
        resampled += abs(scale / MPP - 1) > MPP_TOLERANCE
    notes, cut = [*said], int((~whole & (labels != "")).sum())
    if cut:
        notes.append(
            f"{cut} of {len(whole)} nuclei dropped: "
            f"their {view_px}x{view_px}-px window leaves the image"
        )
    left_out = {f"whose {view_px}-px window leaves the image": cut}
    if none:
        words = f" ({counted(none)})" if set(none) != {"empty"} else ""
        notes.append(f"{none.total()} of {len(whole)} rows passed over: no label{words}")
        left_out["without a label"] = none.total()
    notes += places.notes()
    if not whole.any():
        raise ValueError(f"{source}: no nucleus left ({'; '.join(notes)})")
    identity = identity[whole].astype(np.str_)
    twins, said = find_twins(source, identity, xy[whole], labels[whole])
    notes += said + look_alikes(labels[whole])
    again = sorted({n for n in pictures[whole].tolist()} - set(seen.values()))
    if again:
        notes.append(
            f"{len(again)} images are copies of others under another name: {listed(again)}"
        )
    notes += strays(located(path / "cells.csv", name, source) for name in set(pictures.tolist()))
    if resampled:
        notes.append(f"{resampled} images resampled to {MPP} µm/px")
    table["group"], ungrouped = _groups(table["group"], pictures)
    if ungrouped:
        notes.append(f"{ungrouped} of {len(whole)} rows have no group: their image is taken for it")
    given = ("group", "image", "slide", *KINDS)
    batch_variables = {kind: table[kind][whole] for kind in given if table[kind].any()}
    return [
        Benchmark(
            name=re.sub(r"[^\w+=@-]", "_", path.resolve().name) or "folder",
            crops=crops[whole],
            labels=labels[whole],
            classes=tuple(sorted(set(labels[whole].tolist()))),
            groups=batch_variables.get("group", identity),  # an image of two names is one
            group_kind="group" if "group" in batch_variables else named,
            notes=tuple(notes),
            batch_variables=batch_variables,
            left_out=left_out,
            twins=twins,
        )
    ]


def _table(path: Path, predicted: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the columns of cells.csv, or of labels that other programs wrote, and notes."""
    optional = ("image", "slide", "group", *KINDS)
    if not (path / "cells.csv").is_file():
        columns, notes = drawn.read(path, predicted)
        blank = np.full(len(columns["label"]), "", np.str_)
        absent = {name: blank for name in optional if name not in columns}
        return columns | absent | {"mpp": np.full(len(blank), np.nan)}, notes
    table = read_columns(
        path / "cells.csv", ("label",), ("x", "y"), optional, say_unknown=True,
        as_written=("label",), perhaps=("mpp",),
    )  # fmt: skip
    return table, []


def _groups(groups: np.ndarray, pictures: np.ndarray) -> tuple[np.ndarray, int]:
    """Return groups, the image where a row has none, and how often that was; or '' throughout."""
    groups = no_class(groups)[0]
    absent = groups == ""
    if absent.all():
        return groups, 0
    return np.where(absent, pictures, groups), int(absent.sum())


def _mpp(name: Path, column: np.ndarray, picture: Picture) -> float:
    """Return an image's scale: the column's where given, else its own, never a guess."""
    given = np.unique(column[np.isfinite(column)])
    if len(given) > 1:
        raise ValueError(
            f"cells.csv gives {name} {len(given)} values of mpp: {', '.join(map(str, given))}"
        )
    if len(given):
        return check_mpp(float(given[0]), f"{name} (by the mpp column of cells.csv)", CURE)
    own = picture.mpp
    if own is None:
        raise ValueError(
            f"{name} has no scale of its own; add a column `mpp` to cells.csv (0.25 at 40X), or "
            "write the folder with one: evaluate/main.py prepare folder --raw DIR --mpp 0.25 "
            "--out B, and name B"
        )
    check_mpp(own, f"{name} (by its own word)", CURE)
    if not MPP_40X[0] <= own <= MPP_40X[1]:
        raise ValueError(
            f"{name} is at {own:.3f} µm/px, not 40X (0.2-0.3); to resample it all the same, "
            "say so in an `mpp` column of cells.csv"
        )
    return own
