"""PUMA: regions written as its publisher writes them, and the publisher's own labels."""

import json
import re

import numpy as np
import pytest
import shapely
import tifffile

from evaluate.benchmarks.find import find_benchmark, find_benchmarks, find_name
from evaluate.benchmarks.puma import CLASSES, held, load, read

IMAGES, NUCLEI = "01_training_dataset_tif_ROIs", "01_training_dataset_geojson_nuclei"
NAMES = ("training_set_primary_roi_001", "training_set_metastatic_roi_002")


def feature(shape, word: str) -> dict:
    return {
        "type": "Feature",
        "id": "x",
        "geometry": None if shape is None else shapely.geometry.mapping(shape),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": f"nuclei_{word}", "color": [200, 0, 0]},
        },
    }


def square(x: float, y: float, half: float = 6):
    return shapely.box(x - half, y - half, x + half, y + half)


@pytest.fixture
def puma(tmp_path):
    """Two regions of 300x200 px: a nucleus of each class, one at the border, odd outlines."""
    (tmp_path / IMAGES).mkdir()
    (tmp_path / NUCLEI).mkdir()
    for number, name in enumerate(NAMES):
        pixels = np.random.default_rng(number).integers(0, 255, (200, 300, 4), np.uint8)
        tifffile.imwrite(
            tmp_path / IMAGES / f"{name}.tif",
            pixels,
            photometric="rgb",
            extrasamples=["unassalpha"],
        )
        found = [feature(square(40 + 24 * i, 80), word) for i, word in enumerate(CLASSES)]
        found.append(feature(square(4, 100), "tumor"))  # its window leaves the region
        two = shapely.MultiPolygon([square(60, 140), square(80, 140, 2)])
        found.append(feature(two, "stroma"))
        found.append(feature(None, "tumor"))
        tie = shapely.Polygon([(150, 130), (170, 150), (170, 130), (150, 150)])  # crosses itself
        found.append(feature(tie, "apoptosis"))
        text = json.dumps({"type": "FeatureCollection", "features": found})
        (tmp_path / NUCLEI / f"{name}_nuclei.geojson").write_text(text)
    return tmp_path


def test_both_tracks(puma):
    assert find_name(puma) == "puma"
    broad, fine = find_benchmarks(puma)
    assert (broad.name, fine.name) == ("puma-track1", "puma-track2")
    assert broad.counts() == {"tumor": 2, "lymphocyte": 4, "other": 18}
    assert fine.counts() == dict.fromkeys(CLASSES, 2) | {"stroma": 4, "apoptosis": 4}
    assert set(fine.batch_variables["stage"].tolist()) == {"primary", "metastatic"}
    assert fine.notes[1:] == (
        "2 of 26 nuclei dropped: their window leaves the region",
        "2 Features without an outline passed over",
        "4 outlines of several parts: the largest is taken",
    )
    assert find_benchmark(f"{puma}:track1").group_kind == "region"


def test_crops_are_around_the_centroid(puma):
    found = load(puma, mpp=0.25)[1]
    pixels = tifffile.imread(puma / IMAGES / f"{NAMES[1]}.tif")[:, :, :3]
    first = found.take(np.flatnonzero(found.groups == NAMES[1]))
    np.testing.assert_array_equal(first.crops[0], pixels[60:100, 20:60])  # around (40, 80)
    odd = first.crops[first.labels == "stroma"][1]
    np.testing.assert_array_equal(odd, pixels[120:160, 40:80])  # the larger part, (60, 140)


def test_labels_are_counted_without_images(puma):
    for file in (puma / IMAGES).iterdir():
        file.unlink()
    *regions, all_of_them = held(puma)
    each = "tumor 2, lymphocyte 1, plasma_cell 1, histiocyte 1, melanophage 1, neutrophil 1, "
    each += "stroma 2, endothelium 1, epithelium 1, apoptosis 2"
    assert regions == [f"{name}: 13 nuclei ({each})" for name in sorted(NAMES)]
    assert all_of_them.startswith("2 regions: 26 nuclei (tumor 4, lymphocyte 2, ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("nuclei_tumor", "nuclei_tumour"), "unknown class 'nuclei_tumour'"),
        (lambda t: t[:500], "is no GeoJSON of nuclei"),
        (lambda t: "[]", "is no GeoJSON of nuclei"),
        (lambda t: t.replace("classification", "class"), "is no GeoJSON of nuclei"),
        (lambda t: t.replace('"Polygon"', '"Circle"'), "is no GeoJSON of nuclei"),
        (lambda t: "<!DOCTYPE html><title>x</title>", "is a web page"),
        (lambda t: "", "is empty"),
        (lambda t: re.sub(r"(\d+)\.0", r"\g<1>00", t), "of 26 nuclei lie outside"),
    ],
)
def test_bad_labels_say_why(puma, change, words):
    file = puma / NUCLEI / f"{NAMES[0]}_nuclei.geojson"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=re.escape(words)):
        load(puma)


def test_a_region_without_its_image_is_named(puma):
    (puma / IMAGES / f"{NAMES[0]}.tif").rename(puma / IMAGES / "other.tif")
    with pytest.raises(FileNotFoundError, match=rf"1 of 2 regions have no image: {NAMES[0]}"):
        load(puma)
    (puma / NUCLEI / f"{NAMES[0]}_nuclei.geojson").unlink()
    said = "1 images beside them have no labels, hence are not used: other.tif"
    assert said in load(puma)[0].notes


def test_images_may_end_in_capitals(puma):
    before = load(puma)[1]
    for name in NAMES:
        (puma / IMAGES / f"{name}.tif").rename(puma / IMAGES / f"{name}.TIF")
    assert load(puma)[1].sha256 == before.sha256


def test_outlines_of_no_numbers_are_counted(puma):
    file = puma / NUCLEI / f"{NAMES[0]}_nuclei.geojson"
    file.write_text(file.read_text().replace("[46.0, 74.0]", "[Infinity, 74.0]"))
    assert load(puma)[1].left_out["without an outline"] == 3


def test_the_publishers_own_labels(data):
    if not list((data / "exports").glob("*_nuclei.geojson")):
        pytest.skip(f"no PUMA labels in {data}")
    regions = {r.name.removeprefix("training_set_"): r for r in read(data / "exports")}
    assert {name: len(region.xy) for name, region in regions.items()} == {
        "metastatic_roi_049": 361, "metastatic_roi_102": 302, "primary_roi_052": 697,
        "primary_roi_100": 433,
    }  # fmt: skip
    labels = np.concatenate([region.labels for region in regions.values()])
    assert set(labels.tolist()) == set(CLASSES)
    assert ((labels == "tumor").sum(), (labels == "melanophage").sum()) == (837, 7)
    xy = np.concatenate([region.xy for region in regions.values()])
    assert xy.min() > 0
    assert xy.max() < 1024
    assert held(data / "exports")[-1].startswith("4 regions: 1,793 nuclei (tumor 837, ")
