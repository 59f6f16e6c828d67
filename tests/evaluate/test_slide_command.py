"""`slide`: nuclei -> crops -> embeddings -> AnnData, Parquet and QuPath, read back by others."""

import json
import os
import time

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from sklearn.decomposition import PCA

from evaluate.encoders import open_encoders
from evaluate.main import main
from evaluate.principal import components
from evaluate.slides.extraction import MORPHOLOGY, find, open_nuclei
from evaluate.slides.h5ad import write_h5ad
from evaluate.slides.nuclei_embeddings import embed_slide
from evaluate.slides.qupath import write_qupath
from shards.crop import decode
from shards.schema import key

PAINTED = "PAINTED-0001"


@pytest.fixture(scope="module")
def made(run_stage, painted, tmp_path_factory):
    """The three files of a painted slide, from its file on, and what the command said."""
    folder = tmp_path_factory.mktemp("made")
    files = [folder / f"my{suffix}" for suffix in (".h5ad", ".parquet", ".geojson")]
    slide = painted / f"{PAINTED}.tiff"
    words = ["--encoder", "untrained", "--components", 3, "--out", *files, "--batch", 64]
    words += ["--extract", "--workers", 1, "--codec", "png"]
    done = run_stage("evaluate/main.py", "slide", slide, *words)
    assert done.returncode == 0, done.stderr
    return folder, words, done


def kept(folder):
    table = pq.read_table(folder / "my.work" / "cells" / f"{PAINTED}.parquet")
    table = table.filter(np.array(table["fate"].to_pylist()) == "kept")
    return table, [key(PAINTED, n) for n in table["nucleus"].to_pylist()]


def reference(folder, table, rows):
    """Embed some nuclei the plain way: the bytes in the tar, the middle of the crop, in order."""
    tar = (folder / "my.work" / "cells" / f"{PAINTED}.tar").read_bytes()
    spans = zip(table["offset"].to_pylist(), table["size"].to_pylist(), strict=True)
    crops = np.stack([decode(tar[o : o + s])[10:50, 10:50] for o, s in spans])
    (encoder,) = open_encoders(["untrained"], 0, 64, "fp32")
    return encoder.embed(crops[rows])


def test_anndata_reads_the_file_and_every_cell_is_its_own(made):
    folder, _, _ = made
    adata = anndata.read_h5ad(folder / "my.h5ad")
    table, keys = kept(folder)
    assert adata.obs_names.tolist() == keys and len(keys) > 50
    assert adata.X.dtype == np.float32
    rows = np.random.default_rng(0).permutation(len(keys))[:70]
    np.testing.assert_allclose(adata.X[rows], reference(folder, table, rows), atol=2e-5)
    np.testing.assert_array_equal(adata.obsm["spatial"], np.stack([table["x"], table["y"]], axis=1))
    for name in MORPHOLOGY:
        np.testing.assert_array_equal(adata.obs[name], table[name].to_numpy())
    about = adata.uns["lemon"]
    assert about["slide"] == PAINTED and about["mpp"] == 0.25
    assert about["encoder"]["kind"] == "random initialisation"
    assert about["encoder"]["config"]["input_px"] == 40
    assert about["versions"].keys() >= {"torch", "timm"}
    assert set(adata.obs["slide"]) == {PAINTED}
    assert adata.obs["label"].isna().all()  # the built-in segmenter knows no classes
    picture = adata.uns["spatial"][PAINTED]
    height, width, _ = picture["images"]["hires"].shape
    scaled = adata.obsm["spatial"] * picture["scalefactors"]["tissue_hires_scalef"]
    assert (scaled < (width, height)).all() and scaled.max() > 0.8 * width


def test_anndata_writes_what_it_has_read_and_opens_it_backed(made, tmp_path):
    folder, _, _ = made
    adata = anndata.read_h5ad(folder / "my.h5ad")
    adata.write_h5ad(tmp_path / "again.h5ad")
    again = anndata.read_h5ad(tmp_path / "again.h5ad")
    np.testing.assert_array_equal(again.X, adata.X)
    assert again.obs.equals(adata.obs)
    backed = anndata.read_h5ad(folder / "my.h5ad", backed="r")
    np.testing.assert_array_equal(backed.X[3:5], adata.X[3:5])
    backed.file.close()


def test_parquet_holds_the_same(made):
    folder, _, _ = made
    adata = anndata.read_h5ad(folder / "my.h5ad")
    table = pq.read_table(folder / "my.parquet")
    assert table["key"].to_pylist() == adata.obs_names.tolist()
    vectors = np.stack(table["embedding"].to_numpy())
    np.testing.assert_array_equal(vectors, adata.X)
    np.testing.assert_array_equal(table["x"], adata.obsm["spatial"][:, 0])
    about = json.loads(table.schema.metadata[b"lemon"])
    assert about["encoder"]["name"] == "untrained"
    assert about["nuclei"]["detected"] >= about["nuclei"]["kept"] == len(table)


def test_qupaths_file_is_a_feature_collection_that_measures(made):
    folder, _, _ = made
    collection = json.loads((folder / "my.geojson").read_text())
    table, keys = kept(folder)
    assert collection["type"] == "FeatureCollection"
    features = collection["features"]
    assert [f["properties"]["name"] for f in features] == keys
    assert len({f["id"] for f in features}) == len(keys)
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    outlines = shapely.from_wkb(table["polygon"].to_pylist())
    written = [shapely.from_geojson(json.dumps(f["geometry"])) for f in features]
    assert all(
        a.is_valid and shapely.hausdorff_distance(a, b) < 0.01
        for a, b in zip(written, outlines, strict=True)
    )
    measured = [f["properties"]["measurements"] for f in features]
    np.testing.assert_allclose(
        [m["area_um2"] for m in measured], table["area_um2"].to_numpy(), rtol=1e-4
    )
    scores = np.array([[m[f"PC{i} untrained"] for i in (1, 2, 3)] for m in measured])
    vectors = np.stack(pq.read_table(folder / "my.parquet")["embedding"].to_numpy())
    expected = PCA(3, svd_solver="full").fit_transform(vectors.astype(np.float64))
    expected *= np.sign((scores * expected).sum(axis=0))
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3 * expected.std())


def test_extract_reads_our_qupath_file_back(made, run_stage, painted, tmp_path):
    folder, _, _ = made
    words = ["--segmenter", "import", "--from", folder / "my.geojson", "--workers", 1]
    slide = painted / f"{PAINTED}.tiff"
    done = run_stage("extract/main.py", slide, "--out", tmp_path / "back", *words)
    assert done.returncode == 0, done.stderr
    back = pq.read_table(tmp_path / "back" / f"{PAINTED}.parquet")
    table, _ = kept(folder)
    assert len(back) == len(table)
    np.testing.assert_allclose(back["area_um2"], table["area_um2"], rtol=5e-3)


def test_a_rerun_takes_cells_and_embeddings_from_the_work_folder(made, run_stage, painted):
    folder, words, first = made
    work = folder / "my.work"
    before = {p: p.stat().st_mtime_ns for p in work.rglob("[!.]*") if p.is_file()}
    assert len(before) == 5
    again = run_stage("evaluate/main.py", "slide", painted / f"{PAINTED}.tiff", *words)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in work.rglob("[!.]*") if p.is_file()} == before
    assert again.stdout == first.stdout


def test_cells_there_already_and_the_size_of_a_block_do_not_matter(cells, tmp_path, monkeypatch):
    nuclei = open_nuclei(cells, find(cells, PAINTED))
    (encoder,) = open_encoders(["morphology"])
    whole = np.array(embed_slide(encoder, nuclei, tmp_path / "a"))
    assert os.listdir(tmp_path / "a/embeddings/morphology") and whole.std() > 0
    monkeypatch.setattr("evaluate.embeddings.PIECE", 17)
    np.testing.assert_allclose(embed_slide(encoder, nuclei, tmp_path / "b"), whole, rtol=1e-6)


def test_embeddings_of_another_encoder_or_tar_are_not_taken(cells, tmp_path):
    nuclei = open_nuclei(cells, find(cells, PAINTED))
    one, other = (next(open_encoders(["untrained"], seed)) for seed in (0, 1))
    first = np.array(embed_slide(one, nuclei, tmp_path))
    assert not np.allclose(embed_slide(other, nuclei, tmp_path), first)
    nuclei.record["sha256"] = "another"
    time.sleep(0.02)
    manifest = tmp_path / "embeddings" / "untrained" / f"{PAINTED}.json"
    before = manifest.stat().st_mtime_ns
    embed_slide(other, nuclei, tmp_path)
    assert manifest.stat().st_mtime_ns > before
    facts = json.loads(manifest.read_text())
    del facts["shape"]  # the first manifests of slides had none
    manifest.write_text(json.dumps(facts))
    before = manifest.stat().st_mtime_ns
    embed_slide(other, nuclei, tmp_path)
    assert manifest.stat().st_mtime_ns == before


def test_any_scale_is_extracts_too(tmp_path, monkeypatch):
    """One flag, not one of the classifier's and another behind --extract."""
    said = []

    def extract(slide, cells, flags):
        said.append(flags)
        raise ValueError("enough")

    monkeypatch.setattr("evaluate.slides.extraction.extract", extract)
    words = ["slide", "a.svs", "--encoder", "untrained", "--out", str(tmp_path / "my.h5ad")]
    assert main(words) == 2
    assert main([*words, "--any-scale", "--extract", "--mpp", "0.5"]) == 2
    assert main([*words, "--mpp", "0.25", "--extract", "--seed", "1"]) == 2
    assert said == [[], ["--any-scale", "--mpp", "0.5"], ["--mpp", "0.25", "--seed", "1"]]


def test_bad_input_is_named(run_stage, cells, painted, tmp_path):
    def error(*words):
        done = run_stage("evaluate/main.py", "slide", "--encoder", "pixels", *words)
        assert done.returncode == 2, done.stderr
        return done.stderr

    out = tmp_path / "x.h5ad"
    assert "must end in one of .h5ad" in error(painted / "a.svs", "--out", tmp_path / "x.csv")
    assert "no slide at" in error(painted / "absent.svs", "--out", out)
    assert "say which by --slide ID" in error("--cells", cells, "--out", out)
    assert "are extracted already" in error("--cells", cells, "--mpp", "0.25", "--out", out)
    assert "holds no slide 'other'" in error("--cells", cells, "--slide", "other", "--out", out)
    small = tmp_path / "broken.svs"
    small.write_bytes(b"no slide")
    assert "is not done but failed" in error(small, "--out", out, "--extract", "--workers", "1")
    assert not out.exists()


def test_obs_of_every_kind_is_read_back(tmp_path):
    labels = np.array(["b", "", "a", "b"])
    uns = {"a/b": [1, 2.5], "words": ["x", "y"], "mixed": [1, "x"], "none": None, "deep": {"n": 3}}
    path = tmp_path / "x.h5ad"
    names = ["µ1", "c2", "c3", "c4"]
    columns = {"label": labels, "area": np.array([1, np.nan, 3, 4], np.float32)}
    write_h5ad(path, np.eye(4, dtype=np.float32), names, columns, {"spatial": np.ones((4, 2))}, uns)
    adata = anndata.read_h5ad(path)
    assert adata.obs_names.tolist() == names
    assert adata.obs["label"].astype(object).where(adata.obs["label"].notna(), "").tolist() == [
        "b", "", "a", "b",
    ]  # fmt: skip
    assert np.isnan(adata.obs["area"].iloc[1]) and adata.uns["deep"]["n"] == 3
    np.testing.assert_array_equal(adata.uns["a-b"], [1, 2.5])
    assert list(adata.uns["words"]) == ["x", "y"] and json.loads(adata.uns["mixed"]) == [1, "x"]
    assert "none" not in adata.uns


def test_qupath_counts_from_the_scanned_part_and_takes_points(tmp_path):
    square = shapely.to_wkb(shapely.box(100, 200, 110, 220))
    parts = iter([np.array([square, None], object), np.array([square], object)])
    xy = np.array([[105, 210], [30, 40.5], [105, 210]])
    measured = {"area": np.array([1.234567, np.nan, 0])}
    write_qupath(tmp_path / "q.geojson", ["a", "b", "c"], parts, xy, np.array(["<t>", "", "s"]),
                 measured, origin=(10, 20))  # fmt: skip
    features = json.loads((tmp_path / "q.geojson").read_text())["features"]
    assert shapely.from_geojson(json.dumps(features[0]["geometry"])).bounds == (90, 180, 100, 200)
    assert features[1]["geometry"] == {"type": "Point", "coordinates": [20, 20.5]}
    assert "classification" not in features[1]["properties"]
    assert features[0]["properties"]["classification"]["name"] == "<t>"
    assert [f["properties"]["measurements"] for f in features] == [
        {"area": 1.2346}, {}, {"area": 0},
    ]  # fmt: skip


def test_components_equal_scikit_learns_across_blocks(monkeypatch):
    monkeypatch.setattr("evaluate.principal.BLOCK", 37)
    vectors = (np.random.default_rng(0).normal(3, 1, (200, 6)) * range(1, 7)).astype(np.float32)
    expected = PCA(4, svd_solver="full").fit_transform(vectors.astype(np.float64))
    found = components(vectors, 4)
    expected *= np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-4)
