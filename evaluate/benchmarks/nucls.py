"""NuCLS (Amgad et al. 2022), the corrected single-rater set: breast, TCGA, three tasks."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from evaluate.benchmark import Benchmark
from evaluate.benchmarks import fields
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.fields import middle
from evaluate.benchmarks.picture import read_size
from evaluate.benchmarks.rule import Rule
from shards.folder import visible

LAYOUT = "rgb/ or rgbs/*.png and csv/*.csv of the same stems, one per field of view"
TASKS = {  # task: its column, its classes in the order of Table 3, what it leaves out
    "super": (
        "super_classification",
        ("tumor_any", "sTIL", "nonTIL_stromal"),
        ("AMBIGUOUS", "other_nucleus"),
    ),
    "main": (
        "main_classification",
        (
            "tumor_nonMitotic",
            "lymphocyte",
            "nonTILnonMQ_stromal",
            "plasma_cell",
            "macrophage",
            "tumor_mitotic",
        ),
        ("AMBIGUOUS", "other_nucleus"),
    ),
    "raw": (
        "raw_classification",
        (
            "tumor",
            "lymphocyte",
            "fibroblast",
            "plasma_cell",
            "macrophage",
            "ductal_epithelium",
            "vascular_endothelium",
            "apoptotic_body",
            "mitotic_figure",
            "neutrophil",
            "myoepithelium",
            "eosinophil",
        ),
        ("unlabeled",),
    ),
}
RAW_FIRST: tuple[str, ...] = ("raw", "main", "super")  # without a raw class a nucleus is in no task
# The four numbers are px of the slide's base level, in this order; the image itself is at 0.2.
STEM = re.compile(
    r"(?P<slide>TCGA-(?P<hospital>\w\w)-\w{4}[^_]*)_id-[0-9a-f]+"
    r"_left-\d+_top-\d+_bottom-\d+_right-\d+"
)
CORRECTION = "correction_"  # the authors' database puts it before some raw classes


@dataclass(frozen=True)
class View:
    """One field of view and its nuclei."""

    image: Path
    size: tuple[int, int]  # width, height, px
    table: dict[str, np.ndarray]  # the csv's columns

    def centres(self, kind: str) -> np.ndarray:
        """Return (N, 2) float: middles of the boxes, or centroids of outlines where there are."""
        low, high = (
            np.stack([self.table[f"x{end}"], self.table[f"y{end}"]], axis=1)
            for end in ("min", "max")
        )
        if (turned := np.flatnonzero((low > high).any(axis=1))).size:
            raise ValueError(
                f"{self.image.stem}.csv: the box of nucleus {turned[0] + 1} ends before it begins "
                "(xmin above xmax, or ymin above ymax)"
            )
        if (wide := np.flatnonzero((high - low > self.size).any(axis=1))).size:
            (x0, y0), (x1, y1) = low[wide[0]], high[wide[0]]
            raise ValueError(
                f"{self.image.stem}.csv: the box of nucleus {wide[0] + 1}, from {x0:g}, {y0:g} to "
                f"{x1:g}, {y1:g}, is larger than its field of {self.size[0]}x{self.size[1]} px; "
                "correct it"
            )
        box = (low + high) / 2
        if kind == "box":
            return box
        for i in np.flatnonzero(self.table["type"] == "polyline"):
            x, y = (self.table[f"coords_{axis}"][i].split(",") for axis in "xy")
            if len(x) >= 4 and len(x) == len(y):
                try:
                    ring = np.array([x, y], float).T
                    if not np.isfinite(ring).all():
                        raise ValueError("nan or infinite")
                except ValueError as error:
                    raise ValueError(
                        f"{self.image.stem}.csv: coords of nucleus {i + 1} are no numbers: {error}"
                    ) from error
                shape = shapely.Polygon(ring)
                place = shape.centroid if shape.is_valid else None
                found = (place.x, place.y) if place else middle(shape)[0]
                box[i] = box[i] if found is None else found
        return box


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return _images(path) is not None and (path / "csv").is_dir()


def load(
    path: Path, view_px: int = 40, mpp: float = 0.2, window: str = "60", centre: str = "box"
) -> list[Benchmark]:
    """Cut every labelled nucleus whose window lies in its field; the tasks super, main and raw.

    Paper leaves open: which nuclei of the 59,485 Table 3 counts (it has three quarters of each
    class), and the scale of the crops. Here: those whose 60-px window at 0.25 µm/px, around the
    middle of their box, is within the field, as A.1 says of PanNuke; crops are resampled from
    0.2 to 0.25 µm/px. `tried` counts the other rules.

    Args:
        path: the folder with the images' and the csv's folders.
        mpp: scale of the images, µm/px; 0.25 cuts native pixels.
        centre: `box` or `centroid` (of the outline; boxes without one keep theirs).

    Returns:
        nucls-super, nucls-main and nucls-raw, which share their nuclei.

    Raises:
        FileNotFoundError: a csv without its image.
        ValueError: a file name, a column or a class that is not the publisher's.
    """
    notes, left_out = [], Counter[str]()
    whole, labels = fields.build(
        "nucls", "csv/*.csv", _fields(path, mpp, centre, notes, left_out), view_px,
        ("slide", "patient", "hospital", "field"), notes, left_out, window, centre=centre,
    )  # fmt: skip
    named = dict(zip(RAW_FIRST, labels.T, strict=True))
    return [whole.task(task, named[task], classes) for task, (_, classes, _) in TASKS.items()]


def read(path: Path) -> Iterator[View]:
    """Yield the fields in order of their names, without their pixels.

    Raises:
        FileNotFoundError: a csv without its image.
        ValueError: a name that is not the publisher's, or a column that is absent.
    """
    folder = _images(path) or path / "rgb"
    for file in visible((path / "csv").glob("*.csv")):
        if file.name == "all_fov_locations.csv":  # the intended fields, which boxes may leave
            continue
        if not STEM.fullmatch(file.stem):
            raise ValueError(
                f"{file.name} is no NuCLS field: expected "
                "TCGA-XX-XXXX-DX1_id-…_left-…_top-…_bottom-…_right-….csv"
            )
        image = folder / f"{file.stem}.png"
        if not image.is_file():
            raise FileNotFoundError(f"{file} has no image {image}")
        words = tuple(column for column, _, _ in TASKS.values())
        words += ("type", "coords_x", "coords_y")
        numbers = ("xmin", "ymin", "xmax", "ymax")
        table = read_columns(file, words, numbers, may_be_empty=True)
        yield View(image, read_size(image, file.name), table)


def task_labels(view: View) -> dict[str, np.ndarray]:
    """Return the labels of each task, (N,) str; '' for what the task leaves out.

    Raises:
        ValueError: a class that is not in the vocabulary.
    """
    named = {}
    for task, (column, classes, left_out) in TASKS.items():
        words = [word.removeprefix(CORRECTION) for word in view.table[column].tolist()]
        foreign = sorted(set(words) - {*classes, *left_out, ""})
        if foreign:
            raise ValueError(f"{view.image.stem}.csv: unknown {column} {foreign[0]!r}")
        named[task] = np.array([word if word in classes else "" for word in words], np.str_)
    return named


def tried(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return, for each rule that the paper may have used, the counts per task and class."""
    rules = [
        Rule(0.2, window, centre, 1)
        for window in ("60@0.2", "75", "60", "50", "40", "40@0.2")
        for centre in ("box", "centroid")
    ]
    counts = {str(rule): {f"nucls-{task}": Counter[str]() for task in TASKS} for rule in rules}
    for field in read(path):
        named = task_labels(field)
        xy = {centre: field.centres(centre) for centre in ("box", "centroid")}
        for rule in rules:
            kept = rule.keep(xy[rule.centre], *field.size)
            for task, words in named.items():
                counts[str(rule)][f"nucls-{task}"].update(words[kept & (words != "")].tolist())
    return {rule: dict(of_task) for rule, of_task in counts.items()}


def _fields(
    path: Path, mpp: float, centre: str, notes: list[str], left_out: Counter[str]
) -> Iterator[fields.Field]:
    seen = Counter[str]()
    for view in read(path):
        named, xy, stem = task_labels(view), view.centres(centre), view.image.stem
        raw = view.table["raw_classification"].tolist()
        seen["all"] += len(raw)
        seen["correction"] += sum(word.startswith(CORRECTION) for word in raw)
        left_out["unlabeled"] += int((named["raw"] == "").sum())
        labels = np.stack([named[task] for task in RAW_FIRST], axis=1)
        yield fields.Field(stem, view.image, xy, labels, mpp, _origin(stem))
    notes.append(f"{left_out['unlabeled']} of {seen['all']} nuclei passed over: unlabeled")
    if seen["correction"]:
        notes.append(f"{seen['correction']} raw classes read without their prefix {CORRECTION}")


def _images(path: Path) -> Path | None:
    return next((path / name for name in ("rgb", "rgbs") if (path / name).is_dir()), None)


def _origin(stem: str) -> dict[str, str]:
    """Return where a field is from; the second part of a TCGA barcode is the hospital."""
    found = STEM.fullmatch(stem)
    assert found, f"{stem}: read() has let pass what is no field's name"
    slide, hospital = found.group("slide", "hospital")
    patient = "-".join(slide.split("-")[:3])
    return {"slide": slide, "patient": patient, "hospital": hospital, "field": stem}
