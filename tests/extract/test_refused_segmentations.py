"""Outlines that are mended, and files that are no segmentation and are called what they are."""

import json
import zipfile
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from evaluate.slides.qupath import write_qupath
from extract.segment.detections import Outlines
from extract.segment.imported import gather
from extract.segment.mend import _is_star, mend
from extract.segment.nuclei_file import open_nuclei
from tests.extract.odd_nuclei import (
    BOWTIE,
    LINE,
    A,
    B,
    K,
    collection,
    crossing,
    feature,
    read,
    ring,
    shape,
)

# ---- outlines ------------------------------------------------------------------------------------


def test_an_outline_that_crosses_itself_is_mended(tmp_path):
    found, _, remarks = read(tmp_path, [feature(shape(crossing(100))), feature(B), feature(BOWTIE)])
    assert remarks == ["outlines that crossed themselves and were mended: 2"]
    areas = shapely.area(found.polygons[:])
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    assert areas[2] == pytest.approx(256, rel=0.01)  # one lobe
    assert np.abs(found.xy[0] - (100, 100)).max() < 0.5
    assert (found.polygons.take(np.array([1])).points == np.array(ring(200), np.float32)).all()


def test_mending_leaves_only_valid_outlines_and_the_others_alone():
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 200_000, (400, 1, 2))
    points = centres + rng.normal(0, 12, (400, 9, 2))  # most cross themselves
    outlines = Outlines.pack_rings(points.reshape(-1, 2), np.full(400, 9))
    valid = shapely.is_valid(outlines[:])
    star = _is_star(outlines, slice(0, 400), outlines.centres())
    assert not (star & ~valid).any()
    mended, xy, count = mend(outlines, outlines.centres())
    assert count == (~valid).sum() > 300
    assert shapely.is_valid(mended[:]).all()
    assert mended.present.all()
    for i in np.flatnonzero(valid):
        assert shapely.equals(mended[i : i + 1], outlines[i : i + 1]).all()
    assert np.abs(shapely.get_coordinates(shapely.centroid(mended[:])) - xy).max() < 0.01


def test_most_nuclei_need_no_exact_test():
    rings = np.concatenate([ring(50 * i) for i in range(1, 40)])
    outlines = Outlines.pack_rings(rings, np.full(39, K + 1))
    assert _is_star(outlines, slice(0, 39), outlines.centres()).all()


def test_what_goes_out_for_qupath_is_valid(tmp_path):
    notch = [[0, 0], [20, 0], [20, 20], [10.004, 0.004], [9.996, 0.004], [0, 20]]
    sliver = [[1, 1], [1.001, 1], [1.001, 1.001]]
    shapes = [shapely.Polygon(r) for r in (notch, BOWTIE["coordinates"][0], sliver, ring(99))]
    wkb = np.array([*shapely.to_wkb(shapes), None], object)
    out = tmp_path / "q.geojson"
    keys = [f"s_{i}" for i in range(5)]
    write_qupath(out, keys, iter([wkb]), np.ones((5, 2)), np.full(5, ""), {})
    geometries = [item["geometry"] for item in json.loads(out.read_text())["features"]]
    assert [g["type"] for g in geometries] == ["Polygon", "Polygon", "Point", "Polygon", "Point"]
    assert all(shapely.from_geojson(json.dumps(g)).is_valid for g in geometries)
    assert geometries[3]["coordinates"] == [ring(99)]


# ---- GeoParquet and CellViT ----------------------------------------------------------------------


def test_every_geometry_of_geoparquet_is_a_nucleus_or_counted(tmp_path):
    box = shapely.box(0, 0, 9, 9)
    far = shapely.box(50, 50, 60, 60)
    line = shapely.LineString([[0, 0], [1, 1]])
    shapes = [
        box,
        shapely.MultiPolygon([far, shapely.box(70, 50, 71, 51)]),
        shapely.GeometryCollection([line, shapely.box(100, 0, 109, 9)]),
        shapely.Point(200, 200),
        shapely.Polygon(BOWTIE["coordinates"][0]),
        line,
        shapely.Polygon(),
        shapely.GeometryCollection([line]),
        shapely.MultiPoint([[1, 1], [2, 2]]),
        shapely.Polygon([[0, 0], [1, 777.5], [1, 1]]),
    ]
    wkb = shapely.to_wkb(shapes).tolist()
    wkb[-1] = wkb[-1].replace(np.float64(777.5).tobytes(), np.float64(np.nan).tobytes())
    table = pa.table({"geometry": [*wkb, None]})
    pq.write_table(table, tmp_path / "s.parquet")
    file = open_nuclei(tmp_path / "s.parquet")
    found = gather(file, 1.0, (0, 0), 0.25)
    assert len(found.xy) == 5
    assert shapely.is_valid(found.polygons[:][found.polygons.present]).all()
    assert +file.left_out == Counter(
        {
            "smaller parts of nuclei": 2,
            "Linestrings": 1,
            "empty geometries": 1,
            "collections without a polygon": 1,
            "Multipoints": 1,
            "geometries whose coordinates are no numbers": 1,
            "rows without a geometry": 1,
        }
    )


def test_cells_with_odd_parts(tmp_path):
    cells = [
        {"contour": ring(100)[:-1], "centroid": [1, 1], "type": 1},
        {"contour": [], "centroid": [150, 100], "type": "2"},
        {"contour": None, "centroid": [200, 100], "type": None},
        {"contour": [], "type": 1},
        {"contour": crossing(300), "type": "Mitosis"},
    ]
    found, left_out, _ = read(tmp_path, {"cells": cells})
    assert np.abs(found.xy - [(x, 100) for x in (100, 150, 200, 300)]).max() < 0.5
    assert found.labels == ["Neoplastic", "Inflammatory", None, "Mitosis"]
    assert left_out == {"cells with an empty contour": 1}


# ---- what is no segmentation ---------------------------------------------------------------------


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


TEXT = json.dumps([feature(A), feature(B)])
GEO = parquet(geometry=[shapely.to_wkb(shapely.box(0, 0, 9, 9))] * 50)
REFUSED = {
    "empty": (b"", "is empty"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 99\n",
        "a Git LFS pointer to 99 bytes, not the data; run `git lfs pull`",
    ),
    "annex": (b"../.git/annex/objects/x1/MD5E-s9--a.json\n", "a git-annex pointer"),
    "login page": (b"<!DOCTYPE html><title>Sign in</title>", "a web page .'Sign in'."),
    "store's error": (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
    "zeros": (bytes(5000), "begins with zeros"),
    "cut": (TEXT[: len(TEXT) // 2].encode(), "in the middle of its objects"),
    "cut within a number": (TEXT[:80].encode(), "in the middle of its objects"),
    "cut single": (json.dumps(feature(A))[:-20].encode(), "in the middle|no JSON"),
    "cut before objects": (b'{"type": "FeatureCollection", ', "no JSON array of objects"),
    "two arrays": (TEXT.encode() * 2, "no JSON after its objects"),
    "NaN places": (TEXT.replace("116.0", "NaN", 1).encode(), "no JSON in its coordinates"),
    "places beyond all slides": (
        TEXT.replace("116.0", "1e300", 1).encode(),
        "a nucleus lies at 1e[+]300, where no slide reaches",
    ),
    "null places": (TEXT.replace("116.0", "null", 1).encode(), "not all pairs of numbers"),
    "four coordinates": (
        json.dumps([feature(shape([[1, 2, 3, 4]] * 4))]).encode(),
        "4 coordinates",
    ),
    "null in the array": (json.dumps([feature(A), None]).encode(), "something other than objects"),
    "strings": (b'["a", "b"]', "something other than objects"),
    "other JSON": (b'{"a": {"b": [[1, 2]]}}', "no JSON array of objects.* .it has a, b"),
    "COCO": (
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.png"}],
                "annotations": [{"image_id": 1, "segmentation": [[1, 2, 3, 4, 5, 6]]}],
                "categories": [{"id": 1, "name": "nucleus"}],
            }
        ).encode(),
        "COCO's JSON.*write them as GeoJSON, a file a slide",
    ),
    "HoVer-Net cut": (b'{"mag": 40, "nuc": {"1": {"contour": [[1, 2], [3, 4]', "in the middle"),
    "HoVer-Net of another power": (
        b'{"mag": "40x", "nuc": {"1": {"contour": [[1, 2], [3, 4]], "type": 1}}}',
        "its mag is '40x', no objective's power",
    ),
    "text for places": (
        TEXT.replace("116.0", '"116"', 1).encode(),
        "coordinates hold text where numbers belong",
    ),
    "decimal commas": (TEXT.replace("116.0", '"116,5"').encode(), "hold text where numbers"),
    "WKT for coordinates": (
        json.dumps([feature({"type": "Polygon", "coordinates": "((1 1, 2 2))"})]).encode(),
        "hold text where numbers belong: ..1 1",
    ),
    "lines cut": ("\n".join(json.dumps(feature(A)) for _ in "ab")[:-30].encode(), "in the middle"),
    "properties a string": (
        json.dumps([{"type": "Feature", "geometry": A, "properties": "x"}]).encode(),
        "no GeoJSON Feature",
    ),
    "geometry a string": (json.dumps([feature("POLYGON")]).encode(), "no GeoJSON Feature"),
    "other objects": (json.dumps([feature(A), {"a": 1}]).encode(), "no GeoJSON Feature"),
    "WKT": (b"POLYGON ((0 0, 1 1, 1 0, 0 0))\n", "no columns of places|under"),
    "boxes": (b"x,y,w,h,label\n9,9,5,5,a\n", "x and y are a corner; give the nuclei's centres"),
    "boxes in words": (b"X;Y;Width;Height\n9;9;5;5\n", "x and y are a corner"),
    "boxes in Parquet": (parquet(X=[9.0], Y=[9.0], W=[5.0], H=[5.0]), "x and y are a corner"),
    "ImageScope": (
        b'<Annotations MicronsPerPixel="0.25"><Annotation Id="1" LineColor="65280"><Regions>',
        "it is ImageScope's XML, which is not read; write them as GeoJSON",
    ),
    "ASAP": (
        b'<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations><Annotation Name="a" />',
        "it is ASAP's XML",
    ),
    "CVAT": (
        b'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n <version>1.1</version>\n',
        "it is CVAT's XML",
    ),
    "NDP.view": (b'<?xml version="1.0"?><annotations><ndpviewstate id="1">', "NDP.view's XML"),
    "Pascal VOC": (
        b"<annotation><filename>a.png</filename><object><bndbox><xmin>1</xmin>",
        "it is Pascal VOC's XML",
    ),
    "other XML": (b'<?xml version="1.0"?><nuclei/>', "it is XML of a program that is not known"),
    "labelme": (
        b'{"version": "5.0.1", "flags": {}, "shapes": [{"label": "n", "points": [[1, 2], [3, 4]], '
        b'"shape_type": "polygon"}], "imagePath": "a.png", "imageData": null}',
        "it is labelme's JSON; write them as GeoJSON",
    ),
    "VIA": (
        b'{"a.png99": {"filename": "a.png", "size": 99, "regions": [{"shape_attributes": '
        b'{"name": "polygon", "all_points_x": [1, 2]}}], "file_attributes": {}}}',
        "it is VIA's JSON",
    ),
    "VIA's project": (
        b'{"_via_settings": {"ui": {}}, "_via_img_metadata": {"a.png9": {"regions": []}}}',
        "it is VIA's JSON",
    ),
    "VIA's table": (
        b"filename,file_size,file_attributes,region_count,region_id,region_shape_attributes\n"
        b'a.png,9,{},1,0,"{""name"":""rect"",""x"":1,""y"":2}"\n',
        "it is VIA's table",
    ),
    "Label Studio": (
        b'[{"id": 1, "annotations": [{"result": [{"value": {"points": [[1, 2]]}}]}], "data": {}}]',
        "it is Label Studio's JSON",
    ),
    "COCO's results": (
        b'[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
        "it is COCO's JSON of results",
    ),
    "YOLO's boxes": (b"0 0.512 0.25 0.01 0.0125\n3 0.1 0.2 0.01 0.02\n", "it is YOLO's text"),
    "YOLO's outlines": (b"0 0.51 0.25 0.52 0.25 0.52 0.26\r\n", "it is YOLO's text"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG image"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5 file"),
    "a pickle": (b"\x80\x04\x95" + bytes(50), "pickle"),
    "cut parquet": (GEO[: len(GEO) // 2], "a Parquet file cut short"),
    "damaged parquet": (GEO[:20] + bytes(60) + GEO[80:], "damaged|no WKB"),
    "parquet without places": (parquet(a=[1]), "no columns of places or outlines .it has a"),
    "parquet, geometry as text": (parquet(geometry=["POLYGON"]), "kept as string; only WKB"),
    "parquet, no WKB": (parquet(geometry=[b"\x01\x03"]), "no WKB"),
    "parquet, text places": (parquet(x=["1"], y=["2"]), "column x holds string, not numbers"),
    "parquet, no place": (parquet(x=[1.0, None], y=[1.0, 2.0]), "column x is empty in row 2"),
    "parquet, corners alone": (parquet(vertex_x=[1.0], vertex_y=[1.0]), "no cell_id"),
    "cell without a place": (json.dumps([{"contour": ring(9)}, {"a": 1}]).encode(), "neither"),
    "centroid of three": (json.dumps({"cells": [{"centroid": [1, 2, 3]}]}).encode(), "no pair"),
    "centroid of text": (json.dumps({"cells": [{"centroid": ["a", 2]}]}).encode(), "no pair"),
    "damaged gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "gzip"),
    "cut zip": (b"PK\x03\x04" + bytes(40), "a zip archive cut short"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_segmentation_is_called_what_it_is(tmp_path, case):
    content, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, content)
    assert str(error.value).count("s.geojson") == 1


@pytest.mark.parametrize("names", [[], ["a.json", "b.json"]])
def test_a_zip_holds_one_file(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    with pytest.raises(ValueError, match=f"holds {len(names)} files, not one|an empty zip"):
        open_nuclei(tmp_path / "s.zip")


def test_the_order_of_the_text_is_that_of_the_nuclei(tmp_path):
    parts = [feature(shape(ring(40 * i + 40)), "detection") for i in range(9)]
    parts[3]["geometry"] = collection(LINE, parts[3]["geometry"])
    xy = read(tmp_path, parts)[0].xy[:, 0]
    assert all(a < b for a, b in pairwise(xy))
