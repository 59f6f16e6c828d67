"""Nuclei as people's programs write them in GeoJSON, and a file of them read and checked."""

import json
import math

import numpy as np
import shapely

from extract.job import _measure
from extract.segment.detections import Detections
from extract.segment.imported import gather
from extract.segment.nuclei_file import open_nuclei

K = 24  # corners


def ring(x: float, y: float = 100, r: float = 16) -> list[list[float]]:
    """Return a closed circle."""
    turn = [2 * math.pi * i / K for i in range(K)]
    points = [[round(x + r * math.cos(t), 2), round(y + r * math.sin(t), 2)] for t in turn]
    return [*points, points[0]]


def crossing(x: float) -> list[list[float]]:
    """Return a circle whose outline crosses itself."""
    points = ring(x)
    points[5], points[6] = points[6], points[5]
    return points


def shape(*rings: list, kind: str = "Polygon", **more) -> dict:
    return {"type": kind, "coordinates": list(rings), **more}


def feature(geometry: dict | None, of: str | None = None, **properties) -> dict:
    properties = ({"objectType": of} if of else {}) | properties
    return {"type": "Feature", "geometry": geometry, "properties": properties}


A, B = shape(ring(100)), shape(ring(200))
BOWTIE = shape([[200, 100], [232, 132], [232, 100], [200, 132], [200, 100]])
LINE = {"type": "LineString", "coordinates": [[1, 1], [2, 2]]}
WHOLE = {"type": "Point", "coordinates": [300, 100]}


def collection(*geometries: dict) -> dict:
    return {"type": "GeometryCollection", "geometries": list(geometries)}


def read(tmp_path, data, name: str = "s.geojson") -> tuple[Detections, dict[str, int], list[str]]:
    """Return the nuclei in a file, what was left out, and the remarks."""
    text = data if isinstance(data, bytes | str) else json.dumps(data)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    file = open_nuclei(tmp_path / name)
    found = gather(file, 1.0, (0, 0), 0.25)
    outlined = found.polygons[:][found.polygons.present]
    assert shapely.is_valid(outlined).all()
    wkb = shapely.from_wkb(found.polygons.wkb(slice(0, len(found.xy))).to_pylist())
    assert shapely.is_valid(wkb[found.polygons.present]).all()
    measured = _measure(found.polygons, 0.25)["area_um2"]
    assert (measured[found.polygons.present] > 0).all()
    assert np.isfinite(found.xy).all()
    return found, dict(+file.left_out), file.remarks
