"""The extract stage: which slides, at what scale, and what becomes of each."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from skimage.measure import regionprops_table

from demo.paint import paint, write_slide
from extract.crops import BLANK, BLUR, KEPT, NOT_SAMPLED, assign_fates, draw, write_crops
from extract.morphology import outlines, shape, stain_density
from extract.slide import Slide
from extract.slides import Entry, list_slides
from shards.scale import scale
from shards.stain import REFERENCE, REFERENCE_MAX, Stain, concentrations, lab_statistics

# ---- lists of slides -----------------------------------------------------------------------------


def test_a_folder_is_searched_in_depth_and_sorted(tmp_path):
    for name in ("b.svs", "deep/er/TCGA-A1.0b5e.svs", "notes.txt", "c.TIFF"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [e.slide for e in list_slides(tmp_path)] == ["TCGA-A1", "b", "c"]


def test_a_csv_gives_ids_projects_and_scales(tmp_path):
    (tmp_path / "s").mkdir()
    for name in ("1.svs", "2.svs"):
        (tmp_path / "s" / name).touch()
    csv = tmp_path / "slides.csv"
    csv.write_text("path,slide_id,project,mpp\ns/2.svs,two,TCGA-BRCA,0.2325\ns/1.svs,,,\n")
    one, two = list_slides(csv, mpp=0.5)
    assert two == Entry("two", tmp_path / "s/2.svs", "TCGA-BRCA", 0.2325)
    assert one == Entry("1", tmp_path / "s/1.svs", None, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide\nx.svs\n", "no column 'path'; found slide; needed are path"),
        ("path\n", "lists no slides"),
        ("path\nnone.svs\n", r"none of its 1 slides is there, the first .*none\.svs"),
        ("path,mpp\nx.svs,fine\n", "line 2: mpp is 'fine', not a number"),
        ("path,slide_id\nx.svs,a.b\n", "slide id 'a.b' cannot be used"),
        ("path,slide_id\nx.svs,a\ny.svs,a\n", r"have the id a: .*x\.svs .*line 2.* and .*y\.svs"),
    ],
)
def test_a_bad_csv_is_named(tmp_path, text, message):
    for name in ("x.svs", "y.svs"):
        (tmp_path / name).touch()
    (tmp_path / "slides.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list_slides(tmp_path / "slides.csv")


def test_bad_paths_and_ids_end_with_a_word_before_any_work(run_stage, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("a/same.svs", "b/same.tiff"):
        (tmp_path / "twice" / name).parent.mkdir(parents=True)
        (tmp_path / "twice" / name).touch()
    out = tmp_path / "cells"
    for source, message in [
        ("none", "no such folder, CSV, manifest or slide"),
        ("empty", "no slides ("),
        ("twice", "two slides have the id same"),
    ]:
        done = run_stage("extract/main.py", tmp_path / source, "--out", out)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not out.exists()
    done = run_stage("extract/main.py", tmp_path, "--out", out, "--part", 2, "--parts", 2)
    assert done.returncode == 2


# ---- scale ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"openslide.mpp-x": "0.2527", "openslide.objective-power": "20"}, 0.2527),
        ({"aperio.MPP": "0.2498"}, 0.2498),
        ({"openslide.objective-power": "40"}, 0.25),
        ({"openslide.mpp-x": "0", "aperio.AppMag": "40.000000"}, 0.25),
        ({"openslide.mpp-x": "nan", "openslide.objective-power": "20"}, 0.5),
    ],
)
def test_scale_is_what_the_slide_says(properties, expected):
    assert scale(Path("x.svs"), properties)[0] == expected


def test_no_scale_is_never_guessed():
    with pytest.raises(ValueError, match=r"x\.svs has no mpp and no objective power; add an `mpp`"):
        scale(Path("x.svs"), {"openslide.vendor": "generic-tiff"})


# ---- outlines and fates --------------------------------------------------------------------------


def ellipses(seed: int) -> np.ndarray:
    """Return labels of 100 ellipses that do not touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((500, 500), np.int32)
    y, x = np.mgrid[:500, :500]
    for i in range(100):
        cx, cy = 25 + 50 * (i % 10), 25 + 50 * (i // 10)
        a, b, t = rng.uniform(9, 22), rng.uniform(5, 9), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(t) + (y - cy) * np.sin(t)
        v = (y - cy) * np.cos(t) - (x - cx) * np.sin(t)
        labels[(u / a) ** 2 + (v / b) ** 2 <= 1] = i + 1
    return labels


def test_shapes_agree_with_scikit_image():
    labels, mpp = ellipses(0), 0.25
    polygons = outlines(labels)
    ours = shape(polygons, mpp)
    names = ["area", "eccentricity", "solidity", "major_axis_length", "minor_axis_length"]
    theirs = regionprops_table(labels, properties=[*names, "orientation", "centroid"])
    centres = shapely.get_coordinates(shapely.centroid(polygons))
    assert np.abs(centres[:, 0] - theirs["centroid-1"]).max() < 0.1
    assert np.abs(centres[:, 1] - theirs["centroid-0"]).max() < 0.1
    assert np.allclose(ours["area_um2"], theirs["area"] * mpp**2, rtol=0.03)
    assert np.allclose(ours["major_um"], theirs["major_axis_length"] * mpp, rtol=0.03)
    assert np.allclose(ours["minor_um"], theirs["minor_axis_length"] * mpp, rtol=0.03)
    assert np.allclose(ours["eccentricity"], theirs["eccentricity"], atol=0.03)
    assert np.allclose(ours["solidity"], theirs["solidity"], atol=0.06)
    turn = ours["orientation"] - theirs["orientation"]
    turn = (turn + np.pi / 2) % np.pi - np.pi / 2
    assert np.abs(turn[theirs["eccentricity"] > 0.7]).max() < 0.05


def test_outlines_of_single_pixels_lines_and_gaps_in_the_labels():
    labels = np.zeros((20, 20), np.int32)
    labels[2, 3] = 1
    labels[5, 5:9] = 4
    labels[9:13, 9:13] = 7
    polygons = outlines(labels)
    assert len(polygons) == 3
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) > 0).all()
    assert shapely.area(polygons[2]) == 16
    assert len(outlines(np.zeros((5, 5), np.int32))) == 0


def test_the_draw_is_uniform_and_a_function_of_seed_and_slide():
    def first(name: str, seed: int) -> np.ndarray:
        fate = np.zeros(1000, np.int8)
        fate[::10] = BLUR
        order = draw(fate, name, seed)
        assert np.array_equal(np.sort(order), np.flatnonzero(fate == KEPT))
        return order[:200]

    assert np.array_equal(first("a", 0), first("a", 0))
    assert not np.array_equal(first("a", 0), first("b", 0))
    assert not np.array_equal(first("a", 0), first("a", 1))
    assert abs(np.concatenate([first("a", s) for s in range(50)]).mean() - 500) < 20


def test_as_many_as_asked_for_are_kept_though_some_are_blank(tmp_path):
    rgb, nuclei = paint(512, 384, 3)
    rgb[:, :256] = 243
    write_slide(tmp_path / "s.tiff", rgb, 0.25)
    slide = Slide(tmp_path / "s.tiff")
    xy = np.stack([nuclei["x"], nuclei["y"]], 1).astype(float)
    none = np.zeros(len(xy), bool)
    kept = {}
    for cells in (None, 5, 1000):
        fate = assign_fates(slide, xy, np.full(len(xy), 50.0), none)
        with open(tmp_path / "s.tar", "wb") as file:
            write_crops(slide, "s", xy, fate, "png", file, cells=cells)
        kept[cells] = np.flatnonzero(fate == KEPT)
        assert (fate == NOT_SAMPLED).any() == (cells == 5)
    assert len(kept[None]) > 20
    assert np.array_equal(kept[None], kept[1000])
    assert len(kept[5]) == 5 and set(kept[5]) < set(kept[None])


def test_blank_and_blurred_crops_are_dropped(tmp_path):
    rgb, nuclei = paint(512, 384, 3)
    rgb[:128, :128] = 243
    rgb[:128, 256:384] = rgb[:128, 256:384].mean((0, 1)).astype(np.uint8)
    write_slide(tmp_path / "s.tiff", rgb, 0.25)
    slide = Slide(tmp_path / "s.tiff")
    xy = np.array([[64.0, 64.0], [320.0, 64.0], [nuclei["x"][0], nuclei["y"][0]], [256.0, 300.0]])
    fate = assign_fates(slide, xy, np.full(4, 50.0), np.zeros(4, bool))
    with open(tmp_path / "s.tar", "wb") as file:
        crops = write_crops(slide, "s", xy, fate, "png", file)
    assert fate[:2].tolist() == [BLANK, BLUR]
    assert ((crops.offset >= 0) == (fate == KEPT)).all()
    assert ((crops.size > 0) == (fate == KEPT)).all()


def test_densities_are_those_of_the_pixels_inside(tmp_path):
    """Against a plain loop over pixels and shapely's own test of what lies inside."""
    rng = np.random.default_rng(0)
    image = rng.integers(40, 240, (80, 90, 3), dtype=np.uint8)
    stain = Stain(REFERENCE, REFERENCE_MAX, fallback=True)
    circle = shapely.buffer(shapely.Point(530.3, 240.6), 9.7)
    star = shapely.Polygon([(501.2, 205.5), (560.7, 212.1), (520.4, 221.9), (548.8, 268.3)])
    beyond = shapely.buffer(shapely.Point(498.5, 201.5), 6.2)  # partly off the image
    nothing = shapely.buffer(shapely.Point(520.5, 230.5), 0.1)  # between pixel centres
    polygons = np.array([circle, None, star, beyond, nothing], object)
    found = stain_density(image, polygons, (500, 200), stain)
    values = concentrations(image, stain)
    y, x = np.mgrid[:80, :90]
    for polygon, row in zip(polygons, found, strict=True):
        if polygon in (None, nothing):
            assert np.isnan(row).all()
            continue
        inside = values[shapely.contains_xy(polygon, x + 500, y + 200)].astype(np.float64)
        assert np.allclose(row[0::2], inside.mean(0), atol=1e-5)
        assert np.allclose(row[1::2], inside.std(0), atol=1e-5)


def test_lab_is_cie_lab():
    from skimage.color import rgb2lab

    pixels = np.random.default_rng(0).integers(0, 200, (5000, 3), dtype=np.uint8)
    glass = np.full((5000, 3), 243, np.uint8)
    mean, sd = lab_statistics(np.concatenate([pixels, glass]))
    theirs = rgb2lab(pixels)  # OpenCV interpolates in a table
    assert np.allclose(mean, theirs.mean(0), atol=0.1)
    assert np.allclose(sd, theirs.std(0), atol=0.1)
