"""PUMA (Schuiveling et al. 2025): melanoma, outlined nuclei of ten classes, or of three.

Tested on four of the publisher's GeoJSON files (labels without images), and on small folders in the
publisher's layout.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import listed
from evaluate.benchmarks.fields import Field, build, middle
from evaluate.benchmarks.picture import IMAGES
from shards.filetype import check_file
from shards.folder import visible

LAYOUT = "01_training_dataset_tif_ROIs/*.tif, 01_training_dataset_geojson_nuclei/*_nuclei.geojson"
NUCLEI = "_nuclei.geojson"
CLASSES = (
    "tumor", "lymphocyte", "plasma_cell", "histiocyte", "melanophage", "neutrophil", "stroma",
    "endothelium", "epithelium", "apoptosis",
)  # fmt: skip
TRACK_1 = {"tumor": "tumor", "lymphocyte": "lymphocyte", "plasma_cell": "lymphocyte"}  # else other


@dataclass(frozen=True)
class Region:
    """The nuclei of one region of interest."""

    name: str
    xy: np.ndarray  # (N, 2) float, centroids, px
    labels: np.ndarray  # (N,) str
    bare: int  # Features without an outline
    parted: int  # outlines of several parts, of which the largest counts


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return bool(_files(path))


def load(path: Path, view_px: int = 40, mpp: float = 0.23, window: str = "40") -> list[Benchmark]:
    """Cut every nucleus whose window lies in its region; the tasks track1 and track2.

    Paper leaves open: PUMA is not in it. Here: the centroid of the outline. The scale is
    Hamamatsu's at 40X, 0.23 µm/px, which the images do not say themselves. Track 1 has lymphocytes
    and plasma cells as one class, and what is neither these nor tumour as `other`. Groups are the
    regions: whose they are is not published.

    Args:
        path: holds the publisher's two folders.

    Raises:
        FileNotFoundError: a region without its image.
        ValueError: a file does not open, a class is unknown, or nuclei lie outside their image.
    """
    images = {p.stem: p for p in _images(path)}
    regions = list(read(path))
    absent = [region.name for region in regions if region.name not in images]
    if absent:
        raise FileNotFoundError(
            f"{path}: {len(absent)} of {len(regions)} regions have no image: {listed(absent)}.tif"
        )
    notes, bare = [], sum(region.bare for region in regions)
    if bare:
        notes.append(f"{bare} Features without an outline passed over")
    if parted := sum(region.parted for region in regions):
        notes.append(f"{parted} outlines of several parts: the largest is taken")
    fields = (
        Field(r.name, images[r.name], r.xy, r.labels, mpp, {
            "stage": "primary" if "primary" in r.name else "metastatic"})
        for r in regions
    )  # fmt: skip
    whole, named = build(
        "puma", f"*{NUCLEI}", fields, view_px, ("region", "stage"), notes,
        Counter({"without an outline": bare}), window, "region",
    )  # fmt: skip
    broad = np.array([TRACK_1.get(label, "other") for label in named.tolist()], np.str_)
    return [
        whole.task("track1", broad, ("tumor", "lymphocyte", "other")),
        whole.task("track2", named, CLASSES),
    ]


def read(path: Path) -> Iterator[Region]:
    """Yield the regions by name; errors as of `load`."""
    for file in _files(path):
        yield _region(file)


def held(path: Path) -> list[str]:
    """Say how many nuclei of each class the labels hold, without an image; errors as of `load`."""
    lines, total = [], Counter[str]()
    for region in read(path):
        counts = Counter(region.labels.tolist())
        total.update(counts)
        lines.append(f"{region.name}: {len(region.labels):,} nuclei ({_listed(counts)})")
    return [*lines, f"{len(lines)} regions: {total.total():,} nuclei ({_listed(total)})"]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {counts[name]:,}" for name in CLASSES if counts[name])


def _region(file: Path) -> Region:
    check_file(file)
    try:
        features = json.loads(file.read_text(encoding="utf-8-sig"))["features"]
        words = [feature["properties"]["classification"]["name"] for feature in features]
        shapes = [
            shapely.geometry.shape(feature["geometry"]) if feature["geometry"] else None
            for feature in features
        ]
    except (
        ValueError, KeyError, TypeError, AttributeError, IndexError, shapely.errors.ShapelyError
    ) as error:  # fmt: skip
        raise ValueError(
            f"{file} is no GeoJSON of nuclei with a classification: {error!r}"
        ) from error
    xy, labels, parted = [], [], 0
    for word, shape in zip(words, shapes, strict=True):
        label = str(word).removeprefix("nuclei_")
        if label not in CLASSES:
            raise ValueError(f"{file}: unknown class {word!r}; known are {', '.join(CLASSES)}")
        place, parts = middle(shape)
        if place is None:
            continue
        parted += parts > 1
        xy.append(place)
        labels.append(label)
    name = file.name.removesuffix(NUCLEI)
    places = np.array(xy, float).reshape(-1, 2)
    return Region(name, places, np.array(labels, np.str_), len(words) - len(labels), parted)


def _files(path: Path) -> list[Path]:
    """Return the files of nuclei, in the folder, its own, or one within of the same name."""
    return visible([*path.glob(f"*{NUCLEI}"), *path.glob(f"*nuclei*/*{NUCLEI}")]) or visible(
        path.glob(f"*nuclei*/*/*{NUCLEI}")
    )


def _images(path: Path) -> list[Path]:
    found = [*path.glob("*"), *path.glob("*ROIs*/*"), *path.glob("*ROIs*/*/*")]
    images = [p for p in visible(found) if p.suffix.lower() in IMAGES]
    return [p for p in images if not p.stem.endswith("_context")]
