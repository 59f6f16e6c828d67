"""Segmentations as people's programs leave them: read, repaired and counted, or refused by name."""

import json

import numpy as np
import pytest

from extract.segment import items
from extract.segment.items import read_items
from extract.segment.nuclei_file import open_nuclei
from tests.extract.odd_nuclei import (
    BOWTIE,
    LINE,
    WHOLE,
    A,
    B,
    collection,
    crossing,
    feature,
    read,
    ring,
    shape,
)

# name -> features, nuclei, nuclei with outlines, what is left out
FEATURES = {
    "null geometry": ([feature(A), feature(None)], 1, 1, {"objects without a geometry": 1}),
    "null geometry first": ([feature(None), feature(A)], 1, 1, {"objects without a geometry": 1}),
    "nothing but null": ([feature(None)] * 2, 0, 0, {"objects without a geometry": 2}),
    "no geometry at all": (
        [feature(A), {"type": "Feature", "properties": {}}],
        1,
        1,
        {"objects without a geometry": 1},
    ),
    "null properties": ([{"type": "Feature", "geometry": A, "properties": None}], 1, 1, {}),
    "no coordinates": ([feature(A), feature({"type": "Polygon"})], 1, 1, {"empty geometries": 1}),
    "null coordinates": (
        [feature(A), feature({"type": "Polygon", "coordinates": None})],
        1,
        1,
        {"empty geometries": 1},
    ),
    "empty polygon": ([feature(shape()), feature(A)], 1, 1, {"empty geometries": 1}),
    "empty ring": ([feature(A), feature(shape([]))], 1, 1, {"empty geometries": 1}),
    "all empty": ([feature(shape(kind="MultiPolygon"))], 0, 0, {"empty geometries": 1}),
    "line": ([feature(A), feature(LINE)], 1, 1, {"LineStrings": 1}),
    "collection": (
        [feature(collection(LINE, A), "detection"), feature(collection(B))],
        2,
        2,
        {"lines and points in collections": 1},
    ),
    "collection of parts": (
        [
            feature(
                collection(shape(ring(190, r=4)), B, shape([ring(300, r=3)], kind="MultiPolygon"))
            )
        ],
        1,
        1,
        {"smaller parts of nuclei": 2},
    ),
    "collection in a collection": ([feature(collection(collection(collection(A))))], 1, 1, {}),
    "collection of lines": (
        [feature(A), feature(collection(LINE, WHOLE))],
        1,
        1,
        {"GeometryCollections without a polygon": 1},
    ),
    "empty collection": (
        [feature(A), feature(collection())],
        1,
        1,
        {"GeometryCollections without a polygon": 1},
    ),
    "collection of an empty polygon": (
        [feature(collection(shape()))],
        0,
        0,
        {"empty geometries": 1},
    ),
    "crossing": ([feature(shape(crossing(100))), feature(B)], 2, 2, {}),
    "bow tie": ([feature(A), feature(BOWTIE)], 2, 2, {}),
    "two turns": ([feature(shape(ring(100)[:-1] + ring(100)))], 1, 1, {}),
    "clockwise": ([feature(shape(ring(100)[::-1]))], 1, 1, {}),
    "not closed": ([feature(shape(ring(100)[:-1]))], 1, 1, {}),
    "corners twice": ([feature(shape([p for p in ring(100) for _ in "ab"]))], 1, 1, {}),
    "spike": ([feature(shape([*ring(100)[:-1], [160, 100], [116, 100]]))], 1, 1, {}),
    "one place thrice": ([feature(A), feature(shape([[200, 100]] * 3))], 2, 1, {}),
    "two corners": ([feature(A), feature(shape([[300, 9], [310, 110], [300, 9]]))], 2, 1, {}),
    "a line as a ring": (
        [feature(A), feature(shape([[300, 9], [310, 9], [320, 9], [305, 9], [300, 9]]))],
        2,
        1,
        {},
    ),
    "third coordinate": ([feature(shape([[*p, 0] for p in ring(100)]))], 1, 1, {}),
    "tiles": ([feature(A, "tile"), feature(B, "detection")], 1, 1, {"tiles": 1}),
    "regions": (
        [
            feature(shape(ring(150, r=99)), "annotation"),
            feature(A, "detection"),
            feature(B, "cell"),
        ],
        2,
        2,
        {"annotations among detections": 1},
    ),
    "annotations alone": ([feature(A, "annotation"), feature(B, "annotation")], 2, 2, {}),
    "points": ([feature(WHOLE, "detection"), feature(A, "detection")], 2, 1, {}),
    "cell without a nucleus": (
        [
            feature(shape(ring(100, r=25)), "cell") | {"nucleusGeometry": A},
            feature(shape(ring(200, r=25)), "cell"),
        ],
        1,
        1,
        {"cells without a nucleus": 1},
    ),
    "core": (
        [feature(shape(ring(150, r=99)), "tmaCore", isMissing=False), feature(A, "detection")],
        1,
        1,
        {"TMA cores": 1},
    ),
    "version 0.2": (
        [
            feature(shape(ring(150, r=99))) | {"id": "PathAnnotationObject"},
            feature(A) | {"id": "PathDetectionObject"},
            feature(B) | {"id": "PathTileObject"},
        ],
        1,
        1,
        {"annotations among detections": 1, "tiles": 1},
    ),
    "children": (
        [
            feature(
                shape(ring(150, r=99)),
                "annotation",
                childObjects=[
                    feature(A, "detection"),
                    feature(B, "cell", children=[feature(shape(ring(200, r=2)), "tile")]),
                ],
            )
        ],
        2,
        2,
        {"annotations among detections": 1, "tiles": 1},
    ),
    "detections of parts": (
        [feature(shape([ring(100)], [ring(130, r=3)], kind="MultiPolygon"), "detection")],
        1,
        1,
        {"smaller parts of nuclei": 1},
    ),
    "ellipse on a plane": (
        [feature(A | {"isEllipse": True, "plane": {"c": -1, "z": 0, "t": 0}}, "detection")],
        1,
        1,
        {},
    ),
}


@pytest.mark.parametrize("case", FEATURES)
@pytest.mark.parametrize("wrap", ["array", "collection", "pretty"])
def test_every_object_is_a_valid_nucleus_or_counted(tmp_path, case, wrap):
    features, nuclei, outlined, left_out = FEATURES[case]
    root = features if wrap == "array" else {"type": "FeatureCollection", "features": features}
    text = json.dumps(root, indent=2 if wrap == "pretty" else None)
    found, counted, _ = read(tmp_path, text)
    assert (len(found.xy), int(found.polygons.present.sum()), counted) == (
        nuclei,
        outlined,
        left_out,
    )


@pytest.mark.parametrize(
    ("classification", "label"),
    [
        (None, None),
        ({}, None),
        ({"name": None}, None),
        ("Tumor", "Tumor"),
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"name": "Tumor", "color": [200, 0, 0, 128]}, "Tumor"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive"),
        ({"names": ["Tumor"], "color": [1, 2, 3]}, "Tumor"),
        ({"name": "Positive", "colorRGB": -1, "parentClass": {"name": "Tumor"}}, "Tumor: Positive"),
        ({"name": "Nuclei", "colorRGB": -65536}, None),
        ({"name": "", "color": [1, 2, 3]}, None),
        ({"name": 3}, "3"),
        (["Tumor"], "Tumor"),
        (["Tumor", "Positive"], "Tumor: Positive"),
        ([{"name": "Tumor"}], "Tumor"),
        ([], None),
    ],
)
def test_classes_as_qupath_writes_them(tmp_path, classification, label):
    features = [feature(A, "detection", classification=classification), feature(B, "detection")]
    found, _, _ = read(tmp_path, features)
    assert (found.labels or [None, None]) == [label, None]


@pytest.mark.parametrize("before", ["\x1e", ""], ids=["RFC 8142", "lines"])
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_features_one_a_line_or_a_record(tmp_path, monkeypatch, before, step):
    monkeypatch.setattr("extract.segment.stream.CHUNK", 1 << 20)
    features = [feature(A, "detection", name="} {"), feature(LINE), {"id": 3, **feature(B)}]
    text = "".join(f"{before}{json.dumps(f)}\r\n" for f in features)
    found, left_out, _ = read(tmp_path, text)
    assert (len(found.xy), left_out) == (2, {"LineStrings": 1})
    data = text.encode()
    blocks = list(read_items(data[i : i + step] for i in range(0, len(data), step)))
    assert sum(len(block.items) for block in blocks) == 3


def test_types_in_another_case_are_read(tmp_path):
    lower = feature({"type": "polygon", "coordinates": A["coordinates"]}) | {"type": "feature"}
    upper = feature({"type": "POLYGON", "coordinates": B["coordinates"]})
    inside = {"type": "geometrycollection", "geometries": [{**LINE, "type": "linestring"}, A]}
    found, left_out, _ = read(tmp_path, [lower, upper, feature(inside)])
    assert (len(found.xy), left_out) == (3, {"lines and points in collections": 1})
    found, _, _ = read(tmp_path, lower["geometry"])
    assert len(found.xy) == 1


NOT_NUMBERS = '"measurements":{"a \\"NaN": NaN, "b": Infinity, "c":-Infinity}'


@pytest.mark.parametrize(
    "measurements",
    [NOT_NUMBERS, '"measurements":[{"name":"a","value":NaN}]', '"measurements":{"a":1e-3}'],
)
def test_measurements_may_be_no_numbers(tmp_path, measurements):
    text = json.dumps([feature(A, "detection", name="NaN, [Infinity]"), feature(B, "detection")])
    found, left_out, _ = read(tmp_path, text.replace('"name"', measurements + ', "name"', 1))
    assert (len(found.xy), left_out) == (2, {})


ROOTS = {
    "a single Feature": feature(A, "detection"),
    "a single polygon": A,
    "polygons": [A, B],
    "a collection of polygons": collection(A, B),
    "a hierarchy": {
        "root": feature(None, "root", childObjects=[feature(A, "detection"), feature(B, "cell")])
    },
    "an empty collection": {"type": "FeatureCollection", "features": []},
    "an empty array": [],
}


@pytest.mark.parametrize("case", ROOTS)
@pytest.mark.parametrize("indent", [None, 1])
def test_roots_of_other_kinds(tmp_path, case, indent):
    found, left_out, _ = read(tmp_path, json.dumps(ROOTS[case], indent=indent))
    assert len(found.xy) == (0 if "empty" in case else 1 if "single" in case else 2)
    assert left_out == ({"root objects": 1} if case == "a hierarchy" else {})


@pytest.mark.parametrize("deep", [False, True])
def test_the_children_of_one_object_are_streamed(monkeypatch, tmp_path, deep):
    monkeypatch.setattr(items, "CHILD_BYTES", 2000)
    children = [feature(shape(ring(40 * i + 40)), "cell", name="x" * (i % 9)) for i in range(60)]
    parent = feature(shape(ring(500, r=400)), "annotation", childObjects=children)
    if deep:
        parent = {"root": feature(None, "root", childObjects=[parent, feature(A, "tile")])}
    text = json.dumps(parent).encode()
    blocks = list(read_items(text[i : i + 300] for i in range(0, len(text), 300)))
    assert len(blocks) >= 5
    assert max(len(block.items) for block in blocks) < 30
    (tmp_path / "s.json").write_bytes(text)
    monkeypatch.setattr("extract.segment.stream.CHUNK", 300)
    file = open_nuclei(tmp_path / "s.json")
    xy = np.concatenate([rings.outlines(1)[1][rings.kinds > 1] for rings in file.nuclei])
    assert np.abs(xy - [(40 * i + 40, 100) for i in range(60)]).max() < 0.01
    assert file.left_out["tiles"] == deep
