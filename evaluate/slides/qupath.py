"""Write nuclei as GeoJSON for QuPath: detections with outlines, classes and measurements."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import shapely

from evaluate.maps.colouring import hues, rgb
from shards.write import atomic

DECIMALS = 2  # of an outline's corners, px
DIGITS = 5  # of a measurement


def write_qupath(
    path: Path,
    keys: list[str],
    outlines: Iterator[np.ndarray],
    xy: np.ndarray,
    labels: np.ndarray,
    measurements: dict[str, np.ndarray],
    origin: tuple[float, float] = (0, 0),
    colours: dict[str, str] | None = None,
) -> None:
    """Write a FeatureCollection, a Feature a line, some thousands in memory at a time.

    A Feature is a detection: name (the cell's key), a stable id, a Polygon (a Point where there is
    no outline), classification {name, color} where there is a label, measurements {name: value}
    without those that are unknown. Source: QuPath's documentation, "Exporting annotations"; files
    of this shape are read by extract's own `--segmenter import`.

    Args:
        keys: N.
        outlines: WKB or None, in parts that add up to N.
        xy: (N, 2) centres, px.
        labels: (N,) str, '' for none.
        measurements: name -> (N,).
        origin: of QuPath's frame, px; subtracted.
        colours: class -> #rrggbb; None: by the classes' alphabet.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    names = sorted(set(labels.tolist()) - {""})
    colours = colours or dict(zip(names, hues(names), strict=True))
    classes = {name: {"name": name, "color": list(rgb(colours[name]))} for name in names}
    first = 0
    with atomic(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for part in outlines:
            rows = slice(first, first + len(part))
            values = {name: _rounded(column[rows]) for name, column in measurements.items()}
            texts = []
            for i, geometry in enumerate(_geometries(part, xy[rows], origin)):
                row = first + i
                properties: dict[str, Any] = {"objectType": "detection", "name": keys[row]}
                if labels[row]:
                    properties["classification"] = classes[labels[row]]
                properties["measurements"] = {
                    name: column[i] for name, column in values.items() if column[i] == column[i]
                }
                feature = {
                    "type": "Feature",
                    "id": str(uuid.uuid5(uuid.NAMESPACE_URL, keys[row])),
                    "geometry": geometry,
                    "properties": properties,
                }
                texts.append(orjson.dumps(feature))
            if texts:
                file.write((b",\n" if first else b"\n") + b",\n".join(texts))
            first += len(part)
        file.write(b"\n]}\n")
    assert first == len(keys), (first, len(keys))


def scanned_part(slide: str | None) -> tuple[int, int]:
    """Return the corner of the part of a slide that was scanned, level-0 px, where QuPath counts.

    QuPath crops a slide to OpenSlide's bounds; slides without bounds count from (0, 0).

    Args:
        slide: its path; where it is no longer there, (0, 0).
    """
    from shards.scans.scan import open_scan

    if slide is None or not Path(slide).is_file():
        return 0, 0
    properties = open_scan(Path(slide)).properties
    x, y = (properties.get(f"openslide.bounds-{axis}", 0) for axis in "xy")
    return int(x), int(y)


def _geometries(wkb: np.ndarray, xy: np.ndarray, origin: tuple[float, float]) -> list[dict]:
    """Return the geometries of M nuclei; every polygon is valid, for QuPath refuses others."""
    rings = shapely.get_exterior_ring(shapely.from_wkb(wkb))
    rings = shapely.transform(rings, lambda points: (points - origin).round(DECIMALS))
    polygons: Any = shapely.polygons(rings)
    bad = np.flatnonzero(~shapely.is_valid(polygons) & ~shapely.is_missing(polygons))
    if len(bad):
        polygons[bad] = [_mended(polygon) for polygon in polygons[bad]]
    points, owner = shapely.get_coordinates(shapely.get_exterior_ring(polygons), return_index=True)
    points = points.round(DECIMALS).tolist()
    ends = np.searchsorted(owner, np.arange(len(wkb) + 1)).tolist()
    places = (xy.astype(np.float64) - origin).round(DECIMALS).tolist()
    return [
        {"type": "Polygon", "coordinates": [points[a:b]]}
        if b > a
        else {"type": "Point", "coordinates": place}
        for a, b, place in zip(ends[:-1], ends[1:], places, strict=True)
    ]


def _mended(polygon: shapely.Polygon) -> shapely.Polygon | None:
    """Return the largest polygon in one whose rounded corners make it cross itself."""
    shape = shapely.set_precision(shapely.make_valid(polygon), 10.0**-DECIMALS)
    parts = [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    largest = max(parts, key=lambda part: part.area, default=None)
    return None if largest is None else shapely.Polygon(largest.exterior)


def _rounded(values: np.ndarray) -> list[float]:
    """Return numbers to DIGITS significant digits, as Python's."""
    return [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
