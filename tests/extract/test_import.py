"""Segmentations that are there already: every publisher's layout, in the slide's frame."""

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from extract.segment.imported import segment
from extract.segment.options import Import
from extract.slide import Slide
from extract.slides import Entry

CENTRES = np.array([(x, y) for y in range(60, 480, 70) for x in range(60, 600, 70)], float)
CLASSES = np.array(["Neoplastic", "Inflammatory"])[np.arange(len(CENTRES)) % 2]
TYPES = {"Neoplastic": 1, "Inflammatory": 2}
TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
AREA = shapely.area(shapely.polygons(10 * np.stack([np.cos(TURN), np.sin(TURN)], 1)))


def ring(centre: np.ndarray, radius: float = 10, closed: bool = True) -> list[list[float]]:
    """Return a circle's corners."""
    points = centre + radius * np.stack([np.cos(TURN), np.sin(TURN)], 1)
    return np.round(points[[*range(20), 0]] if closed else points, 2).tolist()


def feature(i: int, kind: str = "cell", **more) -> dict:
    """Return a nucleus as QuPath writes it."""
    return {
        "type": "Feature",
        "id": f"{i:08d}-0000",
        "geometry": {"type": "Polygon", "coordinates": [ring(CENTRES[i])]},
        "properties": {
            "objectType": kind,
            "classification": {"name": str(CLASSES[i]), "color": [200, 0, 0]},
            "isLocked": False,
            "measurements": {'Nucleus: "OD", {max}]': 0.5, "Cell: Area µm^2": 1e-3, "a\\": None},
        },
        **more,
    }


def write(path: Path, data: object, **options) -> None:
    path.write_text(json.dumps(data, **options))


# ---- the layouts ---------------------------------------------------------------------------------


def hoverfast(path: Path) -> None:
    """HoverFast: a bare array, gzip, a feature a line, floats, an integer centroid."""
    lines = []
    for c in CENTRES:
        points = [[float(round(x)), float(round(y))] for x, y in ring(c)]
        shape = {"type": "Polygon", "coordinates": [points], "centroid": c.astype(int).tolist()}
        named = {"name": "Nuclei", "colorRGB": -65536}
        more = {"object_type": "cell", "classification": named, "isLocked": False}
        item = {"geometry": shape, "properties": more, "type": "Feature"}
        lines.append(json.dumps(item, separators=(",", ":")))
    (path / "s.json.gz").write_bytes(gzip.compress(("[\n" + ",\n".join(lines) + "\n]").encode()))


def qupath_collection(path: Path) -> None:
    """QuPath: a FeatureCollection, indented; measurements whose names hold any sign."""
    features = [feature(i) for i in range(len(CENTRES))]
    write(path / "s.geojson", {"type": "FeatureCollection", "features": features}, indent=2)


def qupath_zip(path: Path) -> None:
    """QuPath: an array in a zip; cells around their nuclei."""
    features = []
    for i, centre in enumerate(CENTRES):
        nucleus = {"type": "Polygon", "coordinates": [ring(centre)]}
        item = feature(i, nucleusGeometry=nucleus)
        item["geometry"] = {"type": "Polygon", "coordinates": [ring(centre + 3, 25)]}
        features.append(item)
    with zipfile.ZipFile(path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._s.geojson", b"x")
        archive.writestr("s.geojson", json.dumps(features))


def qupath_parts(path: Path) -> None:
    """QuPath, StarDist: detections in several parts and with holes; with a region among them."""
    features = []
    for i, centre in enumerate(CENTRES):
        item = feature(i, "detection")
        parts = [[ring(centre + 14, 2)], [ring(centre), ring(centre, 2)], [ring(centre - 14, 2)]]
        item["geometry"] = {"type": "MultiPolygon", "coordinates": parts}
        features.append(item)
    line = {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}
    ruler = {"type": "Feature", "geometry": line, "properties": {"objectType": "annotation"}}
    text = json.dumps([ruler, *features], ensure_ascii=False)
    (path / "s.geojson").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))


def cells(key: str = "contour") -> dict:
    """CellViT's cells: boxes (row, column), contours (x, y) that are not closed."""
    items = []
    for centre, name in zip(CENTRES, CLASSES, strict=True):
        (x, y), points = centre, ring(centre, closed=False)
        item = {"bbox": [[y - 10, x - 10], [y + 10, x + 10]], "centroid": [x, y]}
        item |= {"contour": points} if key == "contour" else {}
        item |= {"type_prob": 0.9, "type": TYPES[name], "patch_coordinates": [0, 0]}
        items.append(item | {"cell_status": 0, "offset_global": [0, 0], "edge_position": False})
    about = {"base_mpp": 0.25, "target_patch_mpp": 0.25, "note": 'a "cells": [ in a string'}
    types = {"0": "Background", "1": "Neoplastic", "2": "Inflammatory"}
    return {"wsi_metadata": about, "type_map": types, "cells": items}


def cellvit(path: Path) -> None:
    (path / "s").mkdir()
    write(path / "s" / "cells.json", cells())


def cellvit_old(path: Path) -> None:
    """An older CellViT's, which does not name its types."""
    write(path / "s_cells.json", {k: v for k, v in cells().items() if k != "type_map"})


def cellvit_snappy(path: Path) -> None:
    text = json.dumps(cells()).encode()
    compressed = pa.Codec("snappy").compress(text, asbytes=True)
    (path / "s_cells.json.snappy").write_bytes(compressed)


def cellvit_places(path: Path) -> None:
    write(path / "s_cell_detection.json", cells("centroid"))


def multi(kind: str, coordinates, **properties) -> list[dict]:
    """One Feature a class, as CellViT's and HEST's GeoJSON have it."""
    return [
        {
            "type": "Feature",
            "id": f"{kind}-{name}",
            "geometry": {"type": kind, "coordinates": coordinates(CENTRES[name == CLASSES])},
            "properties": {
                "objectType": "annotation",
                "classification": {"name": properties.get("name", name), "color": [1, 2, 3]},
            },
        }
        for name in TYPES
    ]


def cellvit_geojson(path: Path) -> None:
    write(path / "s_cells.geojson", multi("MultiPolygon", lambda xy: [[ring(c)] for c in xy]))


def cellvit_points(path: Path) -> None:
    write(path / "s.geojson", multi("MultiPoint", lambda xy: xy.tolist()))


def hest_geojson(path: Path) -> None:
    """HEST's: chunks of many cells, four blanks of indent, a name that is no class."""
    chunks = multi("MultiPolygon", lambda xy: [[ring(c)] for c in xy], name="cell_chunked")
    write(path / "s_xenium_nucleus_seg.geojson", chunks, indent=4)


def hest_parquet(path: Path) -> None:
    """HEST's cellvit_seg: GeoParquet with a class column."""
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": {}}}
    shapes = shapely.polygons([ring(c) for c in CENTRES])
    shapes[0] = shapely.multipolygons([shapes[0], shapely.box(0, 0, 2, 2)])
    columns = {"cell_id": np.arange(len(CENTRES)), "geometry": shapely.to_wkb(shapes).tolist()}
    table = pa.table(columns | {"class": pa.array(CLASSES.tolist()).dictionary_encode()})
    table = table.replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, path / "s_cellvit_seg.parquet")


def csv(path: Path) -> None:
    rows = [f"{x},{y},{name}" for (x, y), name in zip(CENTRES, CLASSES, strict=True)]
    (path / "s.csv").write_text("\ufeffx,y,label\n" + "\n".join(rows))


def csv_um(path: Path) -> None:
    """QuPath's table of measurements, in µm."""
    rows = [f"s\t{n}\t{x / 4}\t{y / 4}" for (x, y), n in zip(CENTRES, CLASSES, strict=True)]
    (path / "s.tsv").write_text("Image\tClass\tCentroid X µm\tCentroid Y µm\n" + "\n".join(rows))


def parquet(path: Path) -> None:
    columns = {"x": CENTRES[:, 0].astype(int), "y": CENTRES[:, 1], "Label": CLASSES.tolist()}
    pq.write_table(pa.table(columns), path / "s.parquet")


OUTLINED = [hoverfast, qupath_collection, qupath_zip, qupath_parts, cellvit, cellvit_old]
OUTLINED += [cellvit_snappy, cellvit_geojson, hest_geojson, hest_parquet]
PLACES = [cellvit_places, cellvit_points, csv, csv_um, parquet]
NO_LABELS = (hoverfast, hest_geojson)


@pytest.fixture
def slide(painted) -> Slide:
    return Slide(painted / "PAINTED-0001.tiff")


@pytest.fixture
def take(slide, tmp_path):
    """Import from the test's folder, as slide `s`."""

    def go(**asked):
        source = str(asked.pop("source", tmp_path))
        return segment(slide, Entry("s", slide.path), Import(source, **asked))

    return go


@pytest.mark.parametrize("layout", OUTLINED + PLACES, ids=lambda f: f.__name__)
def test_a_layout_gives_its_nuclei(take, tmp_path, layout):
    layout(tmp_path)
    found, about = take()
    order = np.lexsort(found.xy.round().T)
    assert np.abs(found.xy[order] - CENTRES).max() < (0.6 if layout == hoverfast else 0.01)
    assert not found.duplicate.any()
    assert found.polygons.present.all() == (layout in OUTLINED)
    assert found.polygons.present.any() == (layout in OUTLINED)
    if layout in OUTLINED:
        assert np.allclose(shapely.area(found.polygons), AREA, rtol=0.06)
        assert shapely.is_valid(found.polygons[:]).all()
    if layout in NO_LABELS:
        assert found.labels is None
    else:
        assert np.array(found.labels)[order].tolist() == CLASSES.tolist()
    assert about["version"]
    assert about["file"].startswith(str(tmp_path))


def test_xenium_boundaries_need_their_scale(take, tmp_path):
    corners = np.concatenate([ring(c) for c in CENTRES]) * 0.25
    ids = np.repeat([f"aaa{i}-1" for i in range(len(CENTRES))], 21)
    columns = {"cell_id": ids, "vertex_x": corners[:, 0], "vertex_y": corners[:, 1]}
    pq.write_table(pa.table(columns), tmp_path / "s_nucleus_boundaries.parquet")
    with pytest.raises(ValueError, match="Xenium bundle, whose µm count in the DAPI image"):
        take()
    found, about = take(mpp=1.0)
    assert np.abs(found.xy - CENTRES).max() < 0.01
    assert "coordinates taken as units of 1 µm" in about["remarks"]


# ---- frame and units -----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [hest_parquet, csv])
def test_coordinates_of_another_scale_are_seen(take, tmp_path, layout, monkeypatch):
    monkeypatch.setattr(f"{__name__}.CENTRES", CENTRES * 0.25)
    monkeypatch.setattr(f"{__name__}.TURN", TURN)
    real = ring
    monkeypatch.setattr(f"{__name__}.ring", lambda c, r=10, closed=True: real(c, r / 4, closed))
    if layout is csv:  # the painted centres are too far apart to be doubted
        monkeypatch.setattr(f"{__name__}.CENTRES", CENTRES * 0.15)
    layout(tmp_path)
    with pytest.raises(
        ValueError, match="coordinates are hardly px of level 0; say with --from-mpp"
    ):
        take()
    found, about = take(mpp=0.25)  # insisted upon
    assert len(found.xy) == len(CLASSES)
    assert any("at the median" in remark for remark in about["remarks"])


def test_another_slides_file_is_seen(take, tmp_path):
    (tmp_path / "s.csv").write_text("x,y\n" + "".join(f"{x},{x}\n" for x in range(0, 9000, 50)))
    with pytest.raises(ValueError, match=r"169 of 180 nuclei lie outside the slide \(640x512 px"):
        take()


def test_bounds_are_asked_for_where_they_matter(take, tmp_path, slide):
    slide.properties |= {"openslide.bounds-x": "30", "openslide.bounds-y": "20"}
    qupath_collection(tmp_path)
    with pytest.raises(ValueError, match="--from-origin slide or --from-origin bounds"):
        take()
    assert np.abs(take(origin="slide")[0].xy - CENTRES).max() < 0.01
    assert np.abs(take(origin="bounds")[0].xy - CENTRES - (30, 20)).max() < 0.01
    (tmp_path / "s.geojson").unlink()
    hoverfast(tmp_path)  # whose frame is known
    assert np.abs(take()[0].xy - CENTRES - (30, 20)).max() < 0.6


# ---- which file ----------------------------------------------------------------------------------


def test_files_are_found_by_id_stem_and_barcode(slide, tmp_path):
    csv(tmp_path)
    text = (tmp_path / "s.csv").read_bytes()
    (tmp_path / "s.csv").unlink()
    barcode = "TCGA-06-0129-01Z-00-DX1"
    path = Path(f"/x/{barcode}.B7BDDF7D-AAAA.svs")
    entry = Entry("case-one", path)
    for name in ("case-one.csv", "case-one_cells.csv", f"{path.stem}.csv", f"{barcode}_seg.csv"):
        (tmp_path / name).write_bytes(text)
        (tmp_path / "case-one-2.csv").touch()
        (tmp_path / "TCGA-06-0129-01Z-00-DX10.csv").touch()
        _, about = segment(slide, entry, Import(str(tmp_path)))
        assert Path(about["file"]).name == name
        (tmp_path / name).unlink()
    other = f"{barcode.lower()}.other-uuid.csv"
    (tmp_path / other).write_bytes(text)
    _, about = segment(slide, entry, Import(str(tmp_path)))
    assert Path(about["file"]).name == other
    with pytest.raises(FileNotFoundError, match="no file there belongs to slide two"):
        segment(slide, Entry("two", Path("/x/two.svs")), Import(str(tmp_path)))
    with pytest.raises(FileNotFoundError, match="no such folder, or no files in it"):
        segment(slide, entry, Import(str(tmp_path / "nowhere")))


def test_several_files_are_an_error_and_a_pattern_its_cure(take, tmp_path):
    cellvit(tmp_path)
    write(tmp_path / "s" / "cell_detection.json", cells("centroid"))
    with pytest.raises(ValueError, match=r"--from .*: 2 files belong to slide s: .*by a pattern"):
        take()
    found, _ = take(source=tmp_path / "*/cells.json")
    assert found.polygons.present.all()


# ---- what is no segmentation ---------------------------------------------------------------------


def test_damaged_files_are_named(take, tmp_path):
    hoverfast(tmp_path)
    whole = (tmp_path / "s.json.gz").read_bytes()
    text = gzip.decompress(whole)
    bad = {
        whole[: len(whole) // 2]: "gzip does not read to its end",
        text[: len(text) // 2]: "in the middle of its objects",
        text[:-2]: "in the middle of its objects",
        text + b"]": "no JSON after its objects",
        text.replace(b"},\n{", b"}\n{", 1): "no JSON in its objects",
        text.replace(b"]]]", b"],[1]]]", 1): "not all pairs of numbers",
        b"[1, 2]": "something other than objects",
        b'{"type": "Topology"}': "no JSON array of objects",
        b'[{"a": 1}]': "neither GeoJSON Features nor CellViT's cells",
        b"\x00\x01\x02\x03": "line 1 holds a NUL byte",
        b"": "is empty",
        b"a,b\n1,2\n": "no columns of places or outlines .it has a, b",
        b"x,y\n1,\n": "line 2: no y",
        b"x,y\n1,one\n": "line 2: y is 'one', not a number",
    }
    for content, message in bad.items():
        (tmp_path / "s.json.gz").write_bytes(content)
        with pytest.raises(ValueError, match=rf"s\.json\.gz.* ({message})"):
            take()
    with zipfile.ZipFile(tmp_path / "s.json.gz", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(ValueError, match="pickled by torch"):
        take()


# ---- downstream ----------------------------------------------------------------------------------


def test_places_go_through_to_the_shards(run_stage, painted, tmp_path):
    source = tmp_path / "places"
    source.mkdir()
    csv(source)
    (source / "s.csv").rename(source / "PAINTED-0001.csv")
    (source / "PAINTED-0002.csv").write_text("x,y\n100,100\n100.5,100\n300,200\n639,3\n")
    flags = ["--segmenter", "import", "--from", source, "--out", tmp_path / "cells"]
    done = run_stage("extract/main.py", painted / "slides.csv", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pq.read_table(tmp_path / "cells/PAINTED-0001.parquet")
    assert table["polygon"].null_count == len(CENTRES) == len(table)
    assert np.isnan(table["area_um2"].to_numpy()).all()
    assert table["label"].to_pylist() == CLASSES.tolist()
    assert set(table["fate"].to_pylist()) <= {"kept", "blank", "blur"}
    record = json.loads((tmp_path / "cells/PAINTED-0002.json").read_text())
    assert record["fates"]["duplicate"] == record["fates"]["edge"] == 1
    assert "4 nuclei are places without outlines" in record["segmentation"]["remarks"][0]
    out = tmp_path / "shards"
    done = run_stage("shards/main.py", "mix", tmp_path / "cells", "--out", out)
    assert done.returncode == 0, done.stderr
    index = pq.read_table(out / "index.parquet")
    assert len(index) > 30
    assert set(index["label"].to_pylist()) == {*TYPES, None}
    one = run_stage("extract/main.py", painted, *flags, "--from", source / "PAINTED-0002.csv")
    assert one.returncode == 2
    assert "is one file, but there are many slides" in one.stderr
