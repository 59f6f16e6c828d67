"""What a classifier says of nuclei whose class is known: `cells.csv` against the detected ones."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluate.benchmarks.checks import check_classes, listed, no_class
from evaluate.benchmarks.columns import read_columns
from evaluate.classes.calls import NONE, Calls
from evaluate.slides.annotations import xy
from evaluate.slides.extraction import Nuclei

RADIUS_UM = 4.0  # within which a detected nucleus is the annotated one
ABSENT = "not found"  # annotated, but no kept nucleus lies there


@dataclass(frozen=True, eq=False)
class Truth:
    """Annotated nuclei of some slides."""

    path: Path
    slides: np.ndarray  # (N,) str, ids
    xy: np.ndarray  # (N, 2) float, level-0 px
    labels: np.ndarray  # (N,) str


def read_truth(path: Path) -> Truth:
    """Read annotated nuclei: columns `image` or `slide`, x, y, label; slide ids or file names.

    Args:
        path: of the CSV, or of a folder with `cells.csv`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such table, or no row bears a label.
    """
    path = Path(path)
    path = path / "cells.csv" if path.is_dir() else path
    table = read_columns(path, ("label",), ("x", "y"), ("image", "slide"), as_written=("label",))
    names = np.where(table["slide"] != "", table["slide"], table["image"])
    labels, _ = no_class(table["label"])
    rows = np.flatnonzero(labels != "")
    if not len(rows):
        raise ValueError(f"{path}: no row bears a label")
    check_classes(str(path), names, np.stack([table["x"], table["y"]], axis=1), labels)
    stems = [Path(name).name.partition(".")[0] for name in names[rows].tolist()]
    places = np.stack([table["x"], table["y"]], axis=1)[rows]
    return Truth(path, np.array(stems, np.str_), places, labels[rows])


def confusion(truth: Truth, nuclei: Nuclei, calls: Calls) -> dict[tuple[str, str], int]:
    """Count a slide's annotated nuclei by what they are and what they are called.

    An annotated nucleus is the detected one nearest to it within RADIUS_UM, if it is the nearest to
    that one, too.

    Returns:
        (class, class or `unclassified` or `not found`) -> how many; {} if none is of the slide.
    """
    from scipy.spatial import KDTree

    rows = np.flatnonzero(truth.slides == nuclei.slide)
    if not len(rows):
        return {}
    detected, annotated = xy(nuclei).astype(np.float64), truth.xy[rows]
    distance, nearest = map(np.asarray, KDTree(detected).query(annotated))
    back = np.asarray(KDTree(annotated).query(detected)[1])
    same = (distance * nuclei.record["mpp"] <= RADIUS_UM) & (back[nearest] == np.arange(len(rows)))
    called = np.where(calls.labels == "", NONE, calls.labels)[nearest]
    called = np.where(same, called, ABSENT)
    return Counter(zip(truth.labels[rows].tolist(), called.tolist(), strict=True))


def remarks(
    truth: Truth, slides: set[str], classes: tuple[str, ...], pairs: dict[tuple[str, str], int]
) -> list[str]:
    """Say what of the annotated nuclei is compared with nothing.

    Args:
        slides: the ids of those that are classified.
        classes: the classifier's.
        pairs: of `confusion`, of all slides.

    Raises:
        ValueError: none of its slides is there.
    """
    absent = sorted(set(truth.slides.tolist()) - slides)
    rows = int(np.isin(truth.slides, absent).sum())
    said = []
    if rows == len(truth.slides):
        raise ValueError(
            f"--truth {truth.path}: none of its slides ({listed(absent)}) is there, which are "
            f"{listed(sorted(slides))}; give their ids"
        )
    if rows:
        said.append(f"{rows} of {len(truth.slides)} nuclei are of no slide here: {listed(absent)}")
    if foreign := sorted({true for true, _ in pairs} - set(classes)):
        said.append(
            f"{listed(foreign)}: no class of the classifier, which has {', '.join(classes)}; such "
            "nuclei count as wrong, whatever class they are given"
        )
    lost, total = sum(n for (_, word), n in pairs.items() if word == ABSENT), sum(pairs.values())
    if lost > total / 2:
        said.append(
            f"{lost} of {total} nuclei are not found within {RADIUS_UM:g} µm: are x and y px of "
            "level 0, and of these slides?"
        )
    return said


def agreement(pairs: dict[tuple[str, str], int]) -> tuple[float, int, int]:
    """Return the balanced accuracy of the called nuclei, how many these are, and all annotated."""
    right, called = Counter[str](), Counter[str]()
    for (true, said), number in pairs.items():
        if said not in (NONE, ABSENT):
            called[true] += number
            right[true] += number * (true == said)
    recalls = [right[true] / number for true, number in called.items()]
    mean = float(np.mean(recalls)) if recalls else float("nan")
    return mean, sum(called.values()), sum(pairs.values())
