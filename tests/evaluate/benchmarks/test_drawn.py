"""Labels drawn in QuPath or napari become a benchmark: placed, counted, or refused by name."""

import json

import numpy as np
import pytest
from PIL import Image

from evaluate.benchmarks import drawn, folder
from evaluate.benchmarks.find import find_benchmark


def feature(geometry, kind="detection", label=None, **known):
    properties = {"objectType": kind, **known}
    if label:
        properties["classification"] = label
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def box(x, y, half):
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [(x + half * right, y + half * down) for right, down in signs]
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


@pytest.fixture
def qupath(tmp_path):
    """An image and the objects a user has classed in QuPath, after a classifier's first try."""
    pixels = np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    measured = {"probability A": 0.9, "probability B": 0.1, "area": 3}
    cell = feature(box(300, 300, 20), "cell", {"name": "B"}) | {"nucleusGeometry": box(302, 302, 4)}
    features = [
        feature(box(100, 120, 6), label={"name": "A"}),
        feature({"type": "MultiPoint", "coordinates": [[50, 60], [70, 80]]}, "annotation",
                {"name": "B"}),
        cell,
        feature(box(200, 100, 5), label={"name": "A"}, measurements=measured),  # unchanged
        feature(box(220, 100, 5), label={"name": "B"}, measurements=measured),  # corrected
        feature(box(200, 200, 150), "annotation", {"name": "A"}),  # a region
        feature(box(90, 90, 5)),
        feature({"type": "Polygon", "coordinates": []}, label={"name": "A"}),
        feature(box(150, 150, 5), label={"names": ["B", "Positive"]}),
    ]  # fmt: skip
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (tmp_path / "a.geojson").write_text(text)
    return tmp_path


def test_classed_objects_are_placed_and_the_rest_is_counted(qupath):
    columns, notes = drawn.read(qupath)
    places = list(zip(columns["x"], columns["y"], columns["label"], strict=True))
    assert places == [
        (100, 120, "A"), (50, 60, "B"), (70, 80, "B"), (302, 302, "B"), (220, 100, "B"),
        (150, 150, "B: Positive"),
    ]  # fmt: skip
    assert (
        sorted(note.partition(":")[0] for note in notes) == ["1 objects of QuPath passed over"] * 4
    )
    assert "unchanged" in "".join(notes) and "region" in "".join(notes)
    kept, _ = drawn.read(qupath, "keep")
    assert len(kept["label"]) == 7


def test_the_folder_is_a_benchmark_of_the_pixels_there(qupath):
    (own,) = folder.load(qupath, 40, mpp=0.25)
    assert own.counts() == {"A": 1, "B": 4, "B: Positive": 1}
    pixels = np.asarray(Image.open(qupath / "a.png"))
    np.testing.assert_array_equal(own.crops[0], pixels[100:140, 80:120])
    assert set(own.groups.tolist()) == {own.groups[0]}
    with pytest.raises(ValueError, match="no scale of its own"):
        find_benchmark(qupath)


def test_a_nucleus_that_is_pointed_at_and_corrected_counts_once(qupath):
    whole = json.loads((qupath / "a.geojson").read_text())
    spot = {"type": "Point", "coordinates": [222, 99]}  # in the outline that was corrected to B
    whole["features"].append(feature(spot, "annotation", {"name": "B"}))
    on_unchanged = {"type": "Point", "coordinates": [200, 101]}  # the user's word, not a repeat
    whole["features"].append(feature(on_unchanged, "annotation", {"name": "B"}))
    (qupath / "a.geojson").write_text(json.dumps(whole))
    columns, notes = drawn.read(qupath)
    assert len(columns["label"]) == 7 and (200, 101) in zip(columns["x"], columns["y"], strict=True)
    assert any(
        note.endswith("a point in an outline of its class, the same nucleus") for note in notes
    )
    whole["features"][-2]["properties"]["classification"] = {"name": "A"}
    (qupath / "a.geojson").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="point at 222, 99 is 'A', the outline around it 'B'"):
        drawn.read(qupath)


def test_a_measurement_that_is_no_number_is_read(qupath):
    file = qupath / "a.geojson"
    before = drawn.read(qupath)[0]
    file.write_text(file.read_text().replace('"area": 3', '"area": NaN'))
    for name, column in drawn.read(qupath)[0].items():
        np.testing.assert_array_equal(column, before[name])


def test_naparis_points_have_y_first(tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "b.png")
    (tmp_path / "b.csv").write_text("index,axis-0,axis-1,label\n0,50,120,T\n1,60,220,U\n")
    columns, _ = drawn.read(tmp_path)
    assert columns["x"].tolist() == [120, 220] and columns["y"].tolist() == [50, 60]
    assert columns["label"].tolist() == ["T", "U"] and columns["image"].tolist() == ["b.png"] * 2


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.geojson", "{", "is no GeoJSON of QuPath"),
        ("a.geojson", '{"features": [3]}', "is no GeoJSON of QuPath"),
        ("a.geojson", '{"features": []}', "no label in its GeoJSON or CSV"),
        ("a.csv", "x,y,label\n1,2,A\n", "axis-0"),
        ("a.csv", "index,axis-0,axis-1,label\n0,one,2,A\n", "line 2"),
    ],
)
def test_what_is_no_label_file_is_named(name, text, said, tmp_path):
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        folder.load(tmp_path)
