"""Labels drawn in other programs: QuPath's GeoJSON, napari's points, each beside its image.

    a.svs  a.geojson     classed detections, cells and points of QuPath (File > Export objects)
    a.png  a.csv         napari's points (axis-0 is y, axis-1 x), with a column `label` or `class`

What a classifier of ours said and nobody changed is no label: a detection whose class is the
likeliest of its own `probability …` measurements is passed over and counted, so that a user who
corrects some cells of a slide fits on those. `predicted="keep"` takes them, too.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import orjson
import shapely
from shapely.geometry.base import BaseGeometry

from evaluate.benchmarks.picture import IMAGES
from evaluate.slides.qupath import scanned_part
from shards.class_name import class_name
from shards.filetype import check_file
from shards.folder import visible
from shards.table import read_table

LARGEST_PX2 = 40_000  # of an annotated area that may be a nucleus: 50 µm across at 0.25 µm/px
SAID = "probability "  # a measurement of our own files, before a class


def files(path: Path) -> list[tuple[Path, Path]]:
    """Return the label files of a folder, each with its image."""
    images: dict[str, Path] = {}
    for image in visible(path.iterdir()):
        if image.suffix.lower() in IMAGES:
            images.setdefault(image.name.partition(".")[0], image)
    labels = [*path.glob("*.geojson"), *path.glob("*.csv")]
    return [(p, images[p.stem]) for p in visible(labels) if p.stem in images]


def read(path: Path, predicted: str = "drop") -> tuple[dict[str, np.ndarray], list[str]]:
    """Read the labels of a folder as the columns of a `cells.csv`: image, x, y, label.

    Args:
        predicted: `drop` or `keep`, of what a classifier said and nobody changed.

    Raises:
        ValueError: a file is no GeoJSON or table of points, or there is no label.
    """
    if predicted not in ("drop", "keep"):
        raise ValueError(f"--predicted {predicted}: drop or keep")
    rows: list[tuple[str, float, float, str]] = []
    left_out: Counter[str] = Counter()
    for file, image in files(path):
        check_file(file)
        if file.suffix == ".csv":
            rows += [(image.name, *row) for row in _points(file)]
            continue
        x0, y0 = scanned_part(str(image))  # QuPath counts from there
        for x, y, label in _objects(file, predicted == "keep", left_out):
            rows.append((image.name, x + x0, y + y0, label))
    notes = [f"{n} objects of QuPath passed over: {why}" for why, n in left_out.items()]
    if not rows:
        raise ValueError(f"{path}: no label in its GeoJSON or CSV ({'; '.join(notes) or 'empty'})")
    names, x, y, labels = zip(*rows, strict=True)
    columns = {"image": np.array(names, np.str_), "label": np.array(labels, np.str_)}
    return columns | {"x": np.array(x, float), "y": np.array(y, float)}, notes


def _points(file: Path) -> list[tuple[float, float, str]]:
    """Return napari's points: (x, y, label)."""
    table = read_table(file, ("axis-0", "axis-1"), ("label", "class"))
    words = table.words("label" if "label" in table.columns else "class", ())
    y, x = (table.numbers(axis).tolist() for axis in ("axis-0", "axis-1"))
    return list(zip(x, y, words, strict=True))


def _objects(file: Path, keep: bool, left_out: Counter[str]) -> list[tuple[float, float, str]]:
    """Return QuPath's classed nuclei: (x, y, label) in its own frame, in the order of the file."""
    shapes: list[BaseGeometry] = []
    labels: list[str] = []
    try:
        text = file.read_bytes()
        try:
            whole = orjson.loads(text)
        except orjson.JSONDecodeError:  # QuPath writes NaN for what it could not measure
            whole = json.loads(text)
        features = whole["features"] if isinstance(whole, dict) else whole
        for feature in features:
            known = feature.get("properties") or {}
            label = class_name(known.get("classification"))
            if not label:
                left_out["no class"] += 1
            elif not keep and label == _likeliest(known.get("measurements")):
                left_out["as a classifier said, unchanged (--predicted keep takes them)"] += 1
            else:
                shape = feature.get("nucleusGeometry") or feature["geometry"]
                shape = shapely.from_geojson(orjson.dumps(shape))
                if shape.is_empty:
                    left_out["no outline"] += 1
                elif known.get("objectType") == "annotation" and shape.area > LARGEST_PX2:
                    left_out["a region, larger than a nucleus: class its detections"] += 1
                else:
                    many = shape.geom_type == "MultiPoint"
                    parts = shapely.get_parts(shape).tolist() if many else [shape]
                    shapes += parts
                    labels += [label] * len(parts)
    except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"{file} is no GeoJSON of QuPath: {error!r}") from error
    repeated = _repeated(file, shapes, labels)
    if repeated:
        left_out["a point in an outline of its class, the same nucleus"] += len(repeated)
    return [
        (shape.centroid.x, shape.centroid.y, label)
        for row, (shape, label) in enumerate(zip(shapes, labels, strict=True))
        if row not in repeated
    ]


def _repeated(file: Path, shapes: list[BaseGeometry], labels: list[str]) -> set[int]:
    """Return the rows of points in an outline: a nucleus drawn and pointed at counts once."""
    points = [row for row, shape in enumerate(shapes) if shape.geom_type == "Point"]
    outlines = [row for row, shape in enumerate(shapes) if shape.geom_type != "Point"]
    tree = shapely.STRtree([shapes[row] for row in outlines])
    asked = np.array([shapes[row] for row in points], object)
    found = tree.query(asked, predicate="intersects")
    repeated = set()
    for point, outline in zip(*found.tolist(), strict=True):
        row, around = points[point], outlines[outline]
        if labels[row] != labels[around]:
            x, y = shapes[row].x, shapes[row].y
            raise ValueError(
                f"{file}: the point at {x:g}, {y:g} is {labels[row]!r}, the outline around it "
                f"{labels[around]!r}: delete one of them in QuPath, and export again"
            )
        repeated.add(row)
    return repeated


def _likeliest(measured: dict | None) -> str | None:
    """Return the class that our own measurements find likeliest, None where there are none."""
    own = {k.removeprefix(SAID): v for k, v in (measured or {}).items() if k.startswith(SAID)}
    return max(own, key=lambda name: own[name]) if own else None
