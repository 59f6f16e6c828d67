"""Benchmarks of fields: small folders in the publishers' layouts, and what is wrong with some."""

import json

import numpy as np
import pytest
import scipy.io
import tifffile
from PIL import Image

from evaluate.benchmarks.find import find_benchmark, find_name

SIDE = 200  # of a field, px


def pixels(seed: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)


@pytest.fixture
def ocelot(tmp_path):
    """Two fields at 0.25 µm/px of two slides, and one without a cell."""
    facts = {}
    for number, (subset, slide) in enumerate((("train", "A"), ("train", "B"), ("test", "B")), 1):
        for kind in ("images", "annotations"):
            (tmp_path / kind / subset / "cell").mkdir(parents=True, exist_ok=True)
        name = f"{number:03d}"
        Image.fromarray(pixels(number)).save(tmp_path / f"images/{subset}/cell/{name}.jpg")
        text = "" if number == 3 else "60,80,1\n100,90,2\n120,40,2\n3,100,2\n"
        (tmp_path / f"annotations/{subset}/cell/{name}.csv").write_text(text)
        cell = {"resized_mpp_x": 0.25, "resized_mpp_y": 0.25}
        facts[name] = {"cell": cell, "slide_name": f"TCGA-{slide}", "organ": "kidney"}
    (tmp_path / "metadata.json").write_text(json.dumps({"sample_pairs": facts}))
    return tmp_path


def test_ocelot(ocelot):
    assert find_name(ocelot) == "ocelot"
    found = find_benchmark(ocelot)
    assert found.counts() == {"tumor": 4, "other": 2} and found.positive == "tumor"
    assert found.group_kind == "slide" and set(found.groups.tolist()) == {"TCGA-A", "TCGA-B"}
    assert found.left_out == {"whose window leaves the field": 2}
    assert "1 fields without a cell: 003" in found.notes
    assert found.notes[0].startswith("3 fields, 8 nuclei; images at 0.25")
    with Image.open(ocelot / "images/train/cell/001.jpg") as image:
        np.testing.assert_array_equal(found.crops[0], np.asarray(image)[60:100, 40:80])


def rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", "90,2", "90,3"), "line 2: '100,9"),
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", ",1", ""), "line 1: '60,80'"),
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", "0,", "00,"), "lie outside"),
        (lambda p: (p / "images/train/cell/002.jpg").unlink(), r"not there: .*002\.jpg"),
        (lambda p: (p / "metadata.json").unlink(), r"metadata\.json is not there"),
        (lambda p: (p / "metadata.json").write_text("[]"), "no JSON with sample_pairs"),
        (lambda p: rewrite(p / "metadata.json", '"002"', '"9"'), "knows no sample '002'"),
        (lambda p: rewrite(p / "metadata.json", "slide_name", "slide"), "lacks 'slide_name'"),
        (lambda p: rewrite(p / "metadata.json", "0.25", "0"), "no microscope is"),
        (lambda p: rewrite(p / "metadata.json", '"TCGA-A"', "null"), "001 lacks 'slide_name'"),
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", "90,2", "90,1.7"), "line 2: "),
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", "90,2", "90,inf"), "line 2: "),
        (lambda p: rewrite(p / "annotations/train/cell/001.csv", "60,", "nan,"), "line 1: 'nan,80"),
        (
            lambda p: (p / "annotations/train/cell/001.csv").write_bytes(
                "60,80,1 µ".encode("cp1252")
            ),
            r"001\.csv, line 1 is no UTF-8",
        ),
    ],
)
def test_a_damaged_ocelot_is_named(ocelot, damage, said):
    damage(ocelot)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        find_benchmark(ocelot)


def test_images_of_ocelot_without_cells_are_said(ocelot):
    (ocelot / "annotations/train/cell/002.csv").unlink()
    found = find_benchmark(ocelot)
    assert "1 images beside them have no labels, hence are not used: 002.jpg" in found.notes


def region(x: float, y: float, half: float = 6) -> str:
    corners = [
        (x - half, y - half),
        (x + half, y - half),
        (x + half, y + half),
        (x - half, y + half),
    ]
    ring = "".join(f'<Vertex X="{a}" Y="{b}" Z="0"/>' for a, b in corners)
    return f"<Region><Vertices>{ring}</Vertices></Region>"


def layer(name: str, regions: str) -> str:
    return (
        f'<Annotation Id="1"><Attributes><Attribute Name="{name}" Id="0" Value=""/></Attributes>'
        f"<Regions>{regions}</Regions></Annotation>"
    )


@pytest.fixture
def monusac(tmp_path):
    """Two fields of a slide and one of another, a nucleus of each class in each."""
    names = ("TCGA-AA-0001-01Z-00-DX1_1", "TCGA-AA-0001-01Z-00-DX1_2", "TCGA-BB-0002-01Z-00-DX1_1")
    empty = '<Region><Vertices><Vertex X="1" Y="1"/></Vertices></Region>'
    for number, name in enumerate(names):
        folder = tmp_path / "MoNuSAC_images_and_annotations" / name[:-2]
        folder.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(folder / f"{name}.tif", pixels(number), photometric="rgb")
        layers = [layer("Epithelial", region(60, 80) + region(4, 50) + empty)]
        layers += [layer("Lymphocyte", region(100, 80)), layer("Neutrophil", region(140, 80))]
        layers += [layer("Macrophage", region(60, 140)), layer("Ambiguous", region(100, 140, 20))]
        text = "".join(layers)
        (folder / f"{name}.xml").write_text(
            f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.2500">{text}</Annotations>'
        )
    return tmp_path


def test_monusac(monusac):
    assert find_name(monusac) == "monusac"
    found = find_benchmark(monusac)
    assert set(found.counts().values()) == {3} and len(found) == 12
    assert set(found.groups.tolist()) == {"TCGA-AA-0001", "TCGA-BB-0002"}
    assert len(set(found.batch_variables["field"].tolist())) == 3
    assert found.left_out == {
        "whose window leaves the field": 3, "without an outline": 3, "ambiguous": 3,
    }  # fmt: skip
    np.testing.assert_array_equal(found.crops[0], pixels(0)[60:100, 40:80])
    assert len(find_benchmark(next((monusac / "MoNuSAC_images_and_annotations").iterdir()))) > 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Epithelial", "Epithelium", "unknown class 'Epithelium'"),
        ("MicronsPerPixel", "Scale", "give --mpp"),
        ("</Annotations>", "", "is no XML"),
        ("Annotations", "Notes", "holds <Notes>"),
        ('X="54', 'W="54', "Vertex without X or Y"),
        ('X="54', 'X="a54', "could not convert"),
        ('X="54', 'X="nan" W="', "nan or infinite"),
        ('"0.2500"', '"nan"', "no microscope is"),
        ("?><", '?><!DOCTYPE a [<!ENTITY b "c">]><', "declares entities"),
        ('Y="', 'Y="9', "lie outside their image"),
    ],
)
def test_a_damaged_monusac_is_named(monusac, old, new, said):
    rewrite(sorted(monusac.rglob("*.xml"))[0], old, new)
    with pytest.raises(ValueError, match=said):
        find_benchmark(monusac)


def test_a_field_of_monusac_without_its_image(monusac):
    sorted(monusac.rglob("*.tif"))[1].unlink()
    with pytest.raises(FileNotFoundError, match=r"DX1_2\.tif or \.svs"):
        find_benchmark(monusac)


def maps(places, side: int = SIDE) -> np.ndarray:
    """Number squares of 9 px around places, from 1."""
    ids = np.zeros((side, side), np.int32)
    for number, (x, y) in enumerate(places, 1):
        ids[y - 4 : y + 5, x - 4 : x + 5] = number
    return ids


PLACES = [(60, 80), (100, 80), (140, 80), (60, 140), (100, 140), (140, 140), (5, 100)]


@pytest.fixture
def lizard(tmp_path):
    """Two fields with a nucleus of each class, ids in another order, and one at the border."""
    images, labels = tmp_path / "lizard_images1/Lizard_Images1", tmp_path / "Lizard_Labels/Labels"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    order = np.array([3, 1, 2, 0, 4, 6, 5])
    for number, name in enumerate(("consep_1", "glas_2")):
        Image.fromarray(pixels(number)).save(images / f"{name}.png")
        kinds = np.array([1, 2, 3, 4, 5, 6, 1], np.uint8)
        found = {"id": (order + 1)[:, None], "class": kinds[order][:, None]}
        found |= {"centroid": np.array(PLACES, float)[order], "inst_map": maps(PLACES)}
        scipy.io.savemat(labels / f"{name}.mat", found)
    return tmp_path


def test_lizard(lizard):
    assert find_name(lizard) == "lizard"
    found = find_benchmark(lizard)
    assert set(found.counts().values()) == {2} and found.group_kind == "field"
    assert set(found.batch_variables["source"].tolist()) == {"consep", "glas"}
    assert found.labels[:2].tolist() == ["plasma", "epithelial"]  # as the ids say
    assert "0.5 µm/px" in found.notes[0]
    assert found.left_out == {"whose window leaves the field": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class": np.full((7, 1), 7)}, "unknown class 7"),
        ({"class": np.ones((6, 1))}, "7 id, 6 class"),
        ({"centroid": np.full((7, 2), np.nan)}, "a centroid is nan or infinite"),
        ({"inst_map": maps(PLACES, 2 * SIDE)}, r"inst_map is \(400, 400\), its image glas_2.png"),
        ({"inst_map": np.zeros((2, 200, 200))}, r"inst_map is \(2, 200, 200\)"),
        ({"centroid": np.ones((7, 3))}, "centroid of"),
        ({"centroid": np.array(PLACES, float)[:, ::-1] + 9}, "of 7 centroids lie in another"),
        ({"inst_map": None}, "no 'inst_map'"),
    ],
)
def test_a_damaged_lizard_is_named(lizard, change, said):
    file = lizard / "Lizard_Labels/Labels/glas_2.mat"
    found = scipy.io.loadmat(file) | change
    scipy.io.savemat(file, {k: v for k, v in found.items() if v is not None and k[0] != "_"})
    with pytest.raises(ValueError, match=said):
        find_benchmark(lizard)
    (lizard / "lizard_images1/Lizard_Images1/consep_1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no image consep_1\.png"):
        find_benchmark(lizard)


def test_nuclei_of_lizard_without_a_class_are_counted(lizard):
    file = lizard / "Lizard_Labels/Labels/glas_2.mat"
    found = {k: v for k, v in scipy.io.loadmat(file).items() if k[0] != "_"}
    for name in ("id", "class", "centroid"):
        found[name] = found[name][2:]
    scipy.io.savemat(file, found)
    Image.fromarray(pixels(3)).save(lizard / "lizard_images1/Lizard_Images1/crag_3.png")
    benchmark = find_benchmark(lizard)
    assert benchmark.left_out["in inst_map without a class"] == 2
    assert benchmark.notes[-1].endswith("have no labels, hence are not used: crag_3.png")


@pytest.fixture
def conic(tmp_path):
    """Three patches of two fields."""
    ids = maps(PLACES)
    kinds = np.array([0, 1, 2, 3, 4, 5, 6, 1])[ids]
    labels = np.stack([np.stack([ids, kinds], axis=2)] * 3).astype(np.uint16)
    np.save(tmp_path / "images.npy", np.stack([pixels(i) for i in range(3)]))
    np.save(tmp_path / "labels.npy", labels)
    names = "patch_info\nconsep_1-0000\nconsep_1-0001\ndpath_12-0000\n"
    (tmp_path / "patch_info.csv").write_text(names)
    return tmp_path


def test_conic(conic):
    assert find_name(conic) == "lizard"
    found = find_benchmark(conic)
    assert found.name == "conic" and set(found.counts().values()) == {3}
    assert set(found.groups.tolist()) == {"consep_1", "dpath_12"} and found.group_kind == "field"
    assert found.twins is None
    assert found.left_out == {"whose window leaves the patch": 3}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: np.save(p / "labels.npy", np.zeros((3, 200, 200), int)), "has the shape"),
        (lambda p: np.save(p / "labels.npy", np.zeros((2, 200, 200, 2), int)), "has the shape"),
        (lambda p: np.save(p / "labels.npy", np.full((3, 200, 200, 2), 9)), "unknown class 9"),
        (lambda p: np.save(p / "labels.npy", np.zeros((3, 200, 200, 2), int)), "no nucleus left"),
        (lambda p: np.save(p / "images.npy", np.zeros((3, 200, 200, 3))), "expected uint8"),
        (lambda p: rewrite(p / "patch_info.csv", "dpath_12-0000\n", ""), "2 rows of patch_info"),
        (lambda p: rewrite(p / "patch_info.csv", "patch_info", "name"), "patch_info"),
    ],
)
def test_a_damaged_conic_is_named(conic, damage, said):
    damage(conic)
    with pytest.raises(ValueError, match=said):
        find_benchmark(conic)


def test_a_table_of_ones_own_beside_xml_is_taken_first(monusac):
    folder = next((monusac / "MoNuSAC_images_and_annotations").iterdir())
    image = next(folder.glob("*.tif")).name
    (folder / "cells.csv").write_text(f"image,x,y,label,mpp\n{image},60,80,a,0.25\n")
    assert find_name(folder) == "folder"
