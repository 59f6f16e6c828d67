"""`slide --out my.zarr`: what spatialdata, the library, reads back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from evaluate.classes.calls import Calls
from evaluate.classes.classifier import Classifier
from evaluate.encoders import open_encoders
from evaluate.slides.extraction import find, open_nuclei
from evaluate.slides.outputs import Detail, check_writable, write_file
from evaluate.slides.spatial_data import check_store
from shards.scans.scan import open_scan

PAINTED = "PAINTED-0001"
KINDS = {"small": "#0072b2", "large": "#d55e00", "never": "#009e73"}


@pytest.fixture(scope="module")
def nuclei(cells):
    return open_nuclei(cells, find(cells, PAINTED))


@pytest.fixture(scope="module")
def made(nuclei, tmp_path_factory):
    """Write a slide with classes, of which none is called `never`, and every pixel."""
    pytest.importorskip("spatialdata", reason="the extra `spatialdata` is not installed")
    patch = pytest.MonkeyPatch()
    patch.setattr("evaluate.slides.spatial_data.TILE_PX", 200)  # several, the last one narrower
    patch.setattr("evaluate.slides.spatial_data.SMALLEST_PX", 200)
    path = tmp_path_factory.mktemp("zarr") / "my.zarr"
    probabilities = np.zeros((len(nuclei), 3), np.float32)
    probabilities[:, 0] = np.linspace(0, 1, len(nuclei))
    probabilities[:, 1] = 1 - probabilities[:, 0]
    facts = {
        "colours": KINDS,
        "training": {"benchmark": "b"},
        "encoder_sha256": "0",
        "window_px": 40,
    }
    one = np.ones(1)
    classifier = Classifier("c", tuple(KINDS), one, one, one, one, 1.0, facts)
    calls = Calls(classifier, probabilities, 0.6)
    (encoder,) = open_encoders(["morphology"])
    embeddings = encoder.embed(nuclei.crops(np.arange(len(nuclei)), 40))
    write_file(path, encoder, nuclei, embeddings, calls, Detail(whole_image=True))
    patch.undo()
    return path, embeddings, calls


def test_the_table_annotates_the_outlines(made, nuclei):
    import spatialdata

    path, embeddings, calls = made
    store = spatialdata.read_zarr(path)
    table = store["table"]
    np.testing.assert_array_equal(table.X, embeddings)
    assert table.obs_names.tolist() == nuclei.keys()
    assert table.obs["class"].cat.categories.tolist() == list(KINDS)
    assert list(table.uns["class_colors"]) == list(KINDS.values())
    np.testing.assert_array_equal(table.obs["class"].isna(), calls.labels == "")
    assert table.uns["lemon"]["encoder"]["name"] == "morphology"
    assert store.attrs["lemon"]["slide"] == PAINTED
    shapes, joined = spatialdata.join_spatialelement_table(store, "nuclei", table_name="table")
    assert len(joined) == len(nuclei) == len(shapes["nuclei"])
    np.testing.assert_array_equal(joined.obs["nucleus"], shapes["nuclei"].index)
    stored = pq.read_table(nuclei.folder / f"{PAINTED}.parquet", filters=[("fate", "=", "kept")])
    outlines = shapely.from_wkb(stored["polygon"].to_pylist())
    assert shapely.equals_exact(store["nuclei"].geometry.to_numpy(), outlines).all()
    assert store["nuclei"]["outlined"].all()
    called = store.filter_by_coordinate_system("um")
    assert set(called.shapes) == {"nuclei"} and set(called.images) == {"image"}


def test_the_picture_lies_under_the_outlines_at_every_level(made, nuclei):
    import spatialdata

    path, *_ = made
    store = spatialdata.read_zarr(path)
    slide = open_scan(Path(nuclei.record["path"]))
    whole = slide.region(0, 0, slide.width, slide.height)
    pixels = spatialdata.get_pyramid_levels(store["image"], n=0)
    np.testing.assert_array_equal(pixels.transpose("y", "x", "c").to_numpy(), whole)
    assert len(store["image"]) == 3  # 640, 320, 160 px
    for system, size in (("global", 1.0), ("um", nuclei.record["mpp"])):
        moved = spatialdata.get_extent(store["image"], coordinate_system=system)
        np.testing.assert_allclose(moved["x"], np.array([-0.5, 639.5]) * size)
        np.testing.assert_allclose(moved["y"], np.array([-0.5, 511.5]) * size)
        shapes = spatialdata.transform(store["nuclei"], to_coordinate_system=system)
        centres = shapely.get_coordinates(shapely.centroid(shapes.geometry.to_numpy())) / size
        assert np.abs(centres - store["table"].obsm["spatial"]).max() < 4


def test_a_small_picture_is_the_default_and_what_has_no_outline_is_a_circle(
    nuclei, tmp_path, monkeypatch
):
    spatialdata = pytest.importorskip("spatialdata")
    monkeypatch.setattr("evaluate.slides.spatial_data.THUMBNAIL_PX", 100)
    parts = [part.copy() for part in nuclei.outlines()]
    parts[0][:2] = None
    monkeypatch.setattr(type(nuclei), "outlines", lambda self: iter(parts))
    (encoder,) = open_encoders(["morphology"])
    path = tmp_path / "my.zarr"
    write_file(path, encoder, nuclei, np.ones((len(nuclei), 2), np.float32))
    store = spatialdata.read_zarr(path)
    assert store["image"].shape == (3, 80, 100)
    assert store["nuclei"]["outlined"].tolist()[:3] == [False, False, True]
    circle = store["nuclei"].geometry.iloc[0]
    np.testing.assert_allclose(
        circle.centroid.coords[0], store["table"].obsm["spatial"][0], atol=1e-3
    )
    assert circle.bounds[2] - circle.bounds[0] == pytest.approx(8 / nuclei.record["mpp"])
    # a rerun replaces it, and leaves nothing beside it
    monkeypatch.setitem(nuclei.record, "path", str(tmp_path / "gone.tiff"))
    write_file(path, encoder, nuclei, np.zeros((len(nuclei), 2), np.float32))
    again = spatialdata.read_zarr(path)
    assert not again["table"].X.any() and not again.images
    assert [entry.name for entry in tmp_path.iterdir()] == ["my.zarr"]


@pytest.fixture
def installed(monkeypatch):
    """Let the checks of what is there run where the library is not."""
    monkeypatch.setattr("evaluate.slides.spatial_data.find_spec", lambda name: object())


def ours(path, *groups):
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps({"attributes": {"lemon": {"slide": "S"}}}))
    for group in groups:
        (path / group).mkdir(parents=True)
    return path


def test_a_store_of_ours_is_replaced(installed, tmp_path):
    check_store(ours(tmp_path / "my.zarr", "images/image", "shapes/nuclei", "tables/table"))
    check_store(tmp_path / "other.zarr")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: (path / "zarr.json").write_text("{}"), "not written by this program"),
        (lambda path: (path / "zarr.json").write_text("[]"), "not written by this program"),
        (lambda path: (path / "zarr.json").write_text("{"), "not written by this program"),
        (lambda path: (path / "zarr.json").unlink(), "not written by this program"),
        (lambda path: (path / "shapes/tumour").mkdir(), "shapes/tumour, which would be lost"),
        (lambda path: (path / "labels/mine").mkdir(parents=True), "labels/mine, which would be"),
        (lambda path: (shutil.rmtree(path), path.write_text("x")), "not written by this program"),
    ],
)
def test_what_is_not_ours_is_not_touched(installed, tmp_path, damage, said):
    path = ours(tmp_path / "my.zarr", "shapes/nuclei")
    damage(path)
    before = sorted(path.rglob("*"))
    with pytest.raises(FileExistsError, match=said):
        check_writable(path, calls=False)
    assert sorted(path.rglob("*")) == before


def test_without_the_library_the_cure_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluate.slides.spatial_data.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[spatialdata\]'"):
        check_writable(tmp_path / "my.zarr", calls=False)


def test_a_failure_leaves_what_was_there(nuclei, tmp_path, monkeypatch):
    spatialdata = pytest.importorskip("spatialdata")
    path = ours(tmp_path / "my.zarr")

    def fail(self, folder, **_):
        folder.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spatialdata.SpatialData, "write", fail)
    (encoder,) = open_encoders(["morphology"])
    with pytest.raises(OSError, match="no room in"):
        write_file(path, encoder, nuclei, np.ones((len(nuclei), 2), np.float32))
    assert [entry.name for entry in tmp_path.iterdir()] == ["my.zarr"] and (
        path / "zarr.json"
    ).exists()
