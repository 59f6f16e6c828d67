"""Which file, which row and which object is a slide's: its own by full name, or none."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from extract.segment.masks import find_mask
from extract.segment.matching import find_file, find_files, own_file, with_files
from extract.segment.naming import belongs
from extract.segment.nuclei_file import open_nuclei
from extract.segment.options import Import
from extract.slides import Entry

DX1, DX10 = "TCGA-06-0129-01Z-00-DX1", "TCGA-06-0129-01Z-00-DX10"


def entries(*names: str) -> list[Entry]:
    """Return slides by their files' names, or by id=name."""
    pairs = [name.split("=") if "=" in name else (name.split(".")[0], name) for name in names]
    return [Entry(slide, Path("/slides", file)) for slide, file in pairs]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


# file -> of which slides
FILES = [
    ("P07_2.geojson", ["P07.svs", "P07_2.svs"], "P07_2"),
    ("P07_2.geojson", ["P07.svs"], None),
    ("P07-2.geojson", ["P07.svs"], None),
    ("P07.2.geojson", ["P07.svs"], None),
    ("P07 2.geojson", ["P07.svs"], None),
    ("P070.geojson", ["P07.svs"], None),
    ("S1_A_HE.json.gz", ["S1_A.svs", "S1_A_HE.svs"], "S1_A_HE"),
    ("P07.geojson", ["P07.svs", "P07_2.svs"], "P07"),
    ("P07.svs.geojson", ["P07.svs"], "P07"),
    ("P07.ome.tif.geojson", ["P07.ome.tif"], "P07"),
    ("P07_cells.json.snappy", ["P07.svs", "P07_2.svs"], "P07"),
    ("P07_cells.json", ["P07.svs", "P07_cells.svs"], "P07_cells"),
    ("P07_cellvit_seg.geojson.zip", ["P07.tif"], "P07"),
    ("P07/cells.json", ["P07.svs", "P07_2.svs"], "P07"),
    ("P07/round/cells.json", ["P07.svs"], "P07"),
    ("P07/P07_2.json", ["P07.svs", "P07_2.svs"], "P07_2"),
    ("P07/P07_2/cells.json", ["P07.svs", "P07_2.svs"], "P07_2"),
    ("P07.svs/P07.svs_mask_use.png", ["P07.svs"], "P07"),
    ("one.json", ["one=S12.3.svs", "two=S12.4.svs"], "one"),
    ("S12.3.json", ["one=S12.3.svs", "two=S12.4.svs"], "one"),
    ("S12.json", ["one=S12.3.svs", "two=S12.4.svs"], None),
    (f"{DX1}.json", [f"{DX1}.aaaa-1.svs", f"{DX10}.aaaa-2.svs"], DX1),
    (f"{DX10}.json", [f"{DX1}.aaaa-1.svs"], None),
    (f"{DX1.lower()}.other-uuid.csv", [f"a={DX1}.aaaa-1.svs"], "a"),
    (f"{DX1}_B.json", [f"{DX1}_A.svs"], None),
    (f"{DX1}.aaaa-1.json", [f"a={DX1}.aaaa-1.svs", f"b={DX1}.aaaa-2.svs"], "a"),
    ("._P07.geojson", ["P07.svs"], None),
]


@pytest.mark.parametrize(("file", "slides", "owner"), FILES, ids=[f"{f[0]}-{f[2]}" for f in FILES])
def test_a_file_is_its_own_slides_only(tmp_path, file, slides, owner):
    touch(tmp_path, file, "readme.md")
    found = find_files(tmp_path, entries(*slides), "--from")
    taken = {slide for slide, path in found.items() if isinstance(path, Path)}
    assert taken == ({owner} if owner else set())
    for fault in found.values():
        assert isinstance(fault, Path) or "no file there belongs to slide" in str(fault)


@pytest.mark.parametrize(
    ("file", "slides"),
    [
        (f"{DX1}.json", [f"a={DX1}.aaaa-1.svs", f"b={DX1}.aaaa-2.svs"]),
        ("P07.json", ["P07=x.svs", "other=P07.svs"]),
        ("P07/cells.json", ["P07=x.svs", "other=P07.svs"]),
    ],
)
def test_a_file_of_two_slides_is_an_error_before_work(tmp_path, file, slides):
    touch(tmp_path, file)
    with pytest.raises(ValueError, match=r"belongs to 2 slides, .* but a file is one slide's"):
        with_files(entries(*slides), None, Import(str(tmp_path)))


def test_one_mask_for_many_slides_is_an_error(tmp_path):
    touch(tmp_path, "P07.png", "P07.json")
    for masks, imported in (("P07.png", None), (None, Import(str(tmp_path / "P07.json")))):
        with pytest.raises(ValueError, match=r"is one file, but there are many slides \(2\)"):
            with_files(entries("P07.svs", "Q.svs"), masks and str(tmp_path / masks), imported)
    (one,) = with_files(entries("Q.svs"), str(tmp_path / "P07.png"), None)
    assert one.mask == tmp_path / "P07.png"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "is a Git LFS pointer"),
        (b"<html><title>Login</title></html>", "is a web page"),
        (b"", "is empty"),
        (b"x,y\n1,2\n", "no image that can be read as a mask, but text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "no image that can be read as a mask, but a PNG image"),
    ],
)
def test_a_mask_that_is_none_is_called_what_it_is(tmp_path, content, message):
    (tmp_path / "P07.png").write_bytes(content)
    (slide,) = entries("P07.svs")
    with pytest.raises(ValueError, match=message):
        find_mask(str(tmp_path), None, slide)


def test_a_pattern_says_an_ending(tmp_path):
    touch(tmp_path, "P07_v2.json", "P07_2_v2.json", "Q_v2.json")
    slides = entries("P07.svs", "P07_2.svs", "R.svs")
    with pytest.raises(FileNotFoundError, match=r"P07_2_v2.json only begins like it: .*\*_2_v2"):
        find_file(tmp_path, slides[0], "--from")
    found = find_files(tmp_path / "*_v2.json", slides, "--from")
    assert [found[s].name for s in ("P07", "P07_2")] == ["P07_v2.json", "P07_2_v2.json"]
    assert isinstance(found["R"], FileNotFoundError)


def test_a_slide_without_a_file_fails_and_the_rest_goes_on(tmp_path):
    touch(tmp_path, "P07_2/P07_2.json")
    without, its = with_files(entries("P07.svs", "P07_2.svs"), None, Import(str(tmp_path)))
    assert own_file(its.nuclei, str(tmp_path), its, "--from").name == "P07_2.json"
    with pytest.raises(FileNotFoundError, match="no file there belongs to slide P07"):
        own_file(without.nuclei, str(tmp_path), without, "--from")


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("P07", True),
        ("P07.svs", True),
        ("P07.vsi - 20x_01", True),
        (r"C:\scans\P07.svs", True),
        ("/data/P07.ome.tiff", True),
        ("P07_2.svs", False),
        ("P07 - copy", False),
        ("p07", False),
        ("P07_cells", False),
        ("", False),
    ],
)
def test_names_of_images_in_tables(name, is_own):
    assert belongs(name, Entry("P07", Path("/s/P07.svs"))) == is_own


# ---- rows ----------------------------------------------------------------------------------------


def rows(path: Path, slide: str = "P07") -> tuple[list[list[float]], Counter, list[str]]:
    """Return a slide's places in a file, what was left out, and what was remarked."""
    file = open_nuclei(path, Entry(slide, Path(f"/s/{slide}.svs")))
    xy = [point for rings in file.nuclei for point in rings.points.tolist()]
    return xy, +file.left_out, file.remarks


WHOSE = [
    "Image,x,y\n{0}.svs,1,2\n{1}.svs,3,4\n",
    "Filename;x;y\n{0};1;2\n{1};3;4\n",
    "slide_id\tx\ty\n{0}\t1\t2\n{1}\t3\t4\n",
    "x,y,Sample\n1,2,{0}\n3,4,{1}\n",
    "slide,case,fov,x,y\n{0},A,1,1,2\n{1},A,2,3,4\n",
    "FOV,x,y\n{0},1,2\n{1},3,4\n",
    "Image,Object type,x,y\n{0},Cell,1,2\n{1},Cell,3,4\n{0},Tile,5,6\n{0},Image,,\n",
]


@pytest.mark.parametrize("text", WHOSE)
def test_a_column_that_names_slides_is_honoured(tmp_path, text):
    path = tmp_path / "all.csv"
    path.write_text(text.format("P07", "P07_2"))
    for slide, place in (("P07", [1, 2]), ("P07_2", [3, 4])):
        xy, left_out, remarks = rows(path, slide)
        assert xy == [place]
        whole = 1 if "Object type" in text and slide == "P07" else 0
        assert left_out["tiles"] == left_out["rows of whole images"] == whole
        assert left_out["rows of other slides"] == len(text.splitlines()) - 2 - 2 * whole
        assert "rows are other slides' by column" in remarks[0]
    both = with_files(entries("P07.svs", "P07_2.svs"), None, Import(str(path)))
    assert {entry.nuclei for entry in both} == {path}
    with pytest.raises(ValueError, match=r"none of its .* rows is of slide Q .*P07"):
        rows(path, "Q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Image,x,y\nQ.svs,1,2\nR.svs,3,4\n", "column image names Q.svs, R.svs; give the slide's"),
        ("fov,x,y\n1,1,2\n2,3,4\n", "column fov names 1, 2; that does not say which slide's"),
        ("fov,x,y\n1,1,2\n1,3,4\n", "column fov names 1; that does not say which slide's"),
        ("case,x,y\nA,1,2\nB,3,4\n", "column case names A, B; that does not say which slide's"),
        ("slide,image,x,y\nP07,f1.png,1,2\nP07,f2.png,3,4\n", "name 2 images in column image"),
        ("image,x,y\nP07.vsi - 20x,1,2\nP07.vsi - 40x,3,4\n", "names 2 images of this slide"),
    ],
)
def test_a_column_that_does_not_tell_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        rows(tmp_path / "t.csv")


def test_columns_of_parquet_and_geoparquet_are_honoured(tmp_path):
    shapes = shapely.to_wkb(shapely.box([0, 9, 20], 0, [4, 15, 21], 5)).tolist()
    numbers = pa.array([7.0, 8.0, 7.0])  # as pandas writes whole numbers beside an absent one
    table = pa.table({"geometry": shapes, "slide_id": numbers, "class": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "g.parquet")
    file = open_nuclei(tmp_path / "g.parquet", Entry("7", Path("/s/7.svs")))
    assert [rings.labels for rings in file.nuclei] == [["a", "c"]]
    places = pa.table({"x": [1, 3], "y": [2, 4], "WSI": pa.array(["P07", None])})
    pq.write_table(places, tmp_path / "p.parquet")
    xy, left_out, (remark,) = rows(tmp_path / "p.parquet")
    assert xy == [[1, 2]]
    assert left_out == {"rows of other slides": 1}
    assert remark == "1 of 2 rows are other slides' by column wsi ((none)) and were passed over"


def test_one_patients_table_is_taken_by_its_name(tmp_path):
    (tmp_path / "P07.csv").write_text("patient,x,y\nA,1,2\nA,3,4\n")
    assert rows(tmp_path / "P07.csv")[0] == [[1, 2], [3, 4]]


# ---- cells of several nuclei ---------------------------------------------------------------------


def corners(*centres: tuple[float, float], radius: float = 4) -> np.ndarray:
    """Return closed rings' corners, (13 K, 2)."""
    turn = np.append(np.linspace(0, 2 * np.pi, 12, endpoint=False), 0)
    unit = radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    return np.concatenate([np.add(unit, c) for c in centres])


@pytest.mark.parametrize("ids", ["label", "cell", "cell, text"])
@pytest.mark.parametrize("padding", [0, 3])
def test_a_cell_of_several_nuclei_has_several(tmp_path, ids, padding):
    centres = [(60, 60), (100, 60), (125, 60), (150, 60), (160, 160)]
    points = corners(*centres).reshape(5, 13, 2)
    points = np.concatenate([points, np.repeat(points[:, -1:], padding, axis=1)], axis=1)
    size = 13 + padding
    columns = {"cell_id": np.repeat(["a", "b", "b", "b", "c"], size)}
    if ids == "label":
        columns["label_id"] = np.repeat(np.arange(1, 6, dtype=np.uint32), size)
    x, y = points.reshape(-1, 2).astype(np.float32).T
    table = pa.table(columns | {"vertex_x": x, "vertex_y": y})
    path = tmp_path / "nucleus_boundaries"
    if ids == "cell, text":
        text = [",".join(map(str, row.values())) for row in table.to_pylist()]
        path.write_text("\n".join([",".join(table.schema.names), *text]))
    else:
        pq.write_table(table, path)
    (rings,) = open_nuclei(path).nuclei
    outlines, xy = rings.outlines(1)
    assert np.abs(xy - centres).max() < 0.01
    assert shapely.is_valid(outlines[:]).all()
    assert np.allclose(shapely.area(outlines[:]), 48, atol=0.01)


def test_an_open_ring_of_a_cell_is_one_nucleus(tmp_path):
    ring = corners((60, 60))[:-1]
    table = pa.table({"cell_id": ["a"] * 12, "vertex_x": ring[:, 0], "vertex_y": ring[:, 1]})
    pq.write_table(table, tmp_path / "b.parquet")
    (rings,) = open_nuclei(tmp_path / "b.parquet").nuclei
    assert rings.lengths.tolist() == [12]


def test_rows_of_other_slides_stand_on_the_screen(run_stage, painted, tmp_path):
    text = "Image,Object type,x,y\n"
    text += "".join(f"PAINTED-000{n}.tiff,Cell,{x},200\n" for n in (1, 2) for x in (99, 200, 300))
    (tmp_path / "all.csv").write_text(text + "PAINTED-0001.tiff,Tile,9,9\n")
    flags = ["--segmenter", "import", "--from", tmp_path / "all.csv", "--out", tmp_path / "cells"]
    done = run_stage("extract/main.py", painted / "slides.csv", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    said = "passed over in the segmentations of 2 slides: 7 rows of other slides, 1 tiles"
    assert said in done.stdout
    record = json.loads((tmp_path / "cells/PAINTED-0001.json").read_text())
    assert record["detected"] == 3
    assert record["segmentation"]["left_out"] == {"rows of other slides": 3, "tiles": 1}
