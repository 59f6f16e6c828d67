"""Nuclei in the coordinates of programs for maps: told, where they do not fit the slide."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import shapely

from extract.segment.imported import segment
from extract.segment.options import Import
from extract.slides import Entry

SLIDE = SimpleNamespace(width=600, height=500, mpp=0.25, properties={})
CENTRES = np.array([(x, y) for y in range(60, 480, 70) for x in range(60, 590, 70)], float)
CRS = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
PARIS, SANTIAGO = (2.35, 48.85), (-70.65, -33.45)


def circles(xy: np.ndarray, radius: float) -> np.ndarray:
    return shapely.buffer(shapely.points(xy), radius)


def take(tmp_path, shapes: np.ndarray):
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
        for shape in shapes
    ]
    whole = {"type": "FeatureCollection", "crs": CRS, "features": features}
    (tmp_path / "s.geojson").write_text(json.dumps(whole))
    return segment(SLIDE, Entry("s", tmp_path / "s.svs"), Import(str(tmp_path)))[0]


MAPS = {
    "degrees": (circles(CENTRES * 1e-5 + PARIS, 1e-4), "degrees of longitude and latitude"),
    "degrees of places": (shapely.points(CENTRES * 1e-5 + PARIS), "degrees of longitude"),
    "degrees, south and west": (circles(CENTRES * 1e-5 + SANTIAGO, 1e-4), "degrees of longitude"),
    "upwards": (circles(CENTRES * (1, -1), 10), "its y are negative, counted upwards"),
    "upwards, places": (shapely.points(CENTRES * (1, -1)), "its y are negative"),
    "metres of a map": (circles(np.add(CENTRES, (261_000, 6_250_000)), 10), "another slide's file"),
}


@pytest.mark.parametrize("case", MAPS)
def test_places_of_maps_are_told(tmp_path, case):
    shapes, said = MAPS[case]
    with pytest.raises(ValueError, match=said):
        take(tmp_path, shapes)


def test_px_that_geopandas_calls_degrees_are_px(tmp_path):
    """It takes every GeoJSON for degrees, and says so of what it writes again."""
    assert len(take(tmp_path, circles(CENTRES, 10)).xy) == len(CENTRES)
