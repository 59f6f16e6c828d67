"""Xenium bundles as 10x writes them, small: matrix, cells, alignment, and each trap of them."""

import argparse
import gzip
import json
import re

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from scipy.sparse import csc_array, csr_array

from evaluate.analyses.molecules import from_xenium
from evaluate.benchmark import Benchmark
from evaluate.benchmarks.find import find_benchmark, find_name
from evaluate.benchmarks.xenium import join, load
from evaluate.benchmarks.xenium_bundle import read_bundle
from evaluate.commands import prepare
from evaluate.commands.inputs import molecules_of
from evaluate.samples import from_cells, from_shards

GENES = [f"GENE{i}" for i in range(9, -1, -1)]  # not sorted
OTHERS = {
    "NegControlProbe_00042": "Negative Control Probe",
    "NegControlCodeword_0500": "Negative Control Codeword",
    "BLANK_0006": "Blank Codeword",
    "UnassignedCodeword_0001": "Unassigned Codeword",
}
FEATURES = [*GENES[:4], *OTHERS, *GENES[4:]]
KINDS = [OTHERS.get(name, "Gene Expression") for name in FEATURES]
CELLS = 40
SIZE = (700, 500)  # of the H&E, px
MATRIX = np.array([[0.0, -1.2, 650.0], [1.2, 0.0, 40.0], [0, 0, 1]])  # turned, 1.2 times as large
PIXEL_UM = 0.2125


def ids(kind: str) -> list[str]:
    if kind == "numbers":
        return [str(i + 1) for i in range(CELLS)]
    return [f"aaaa{chr(97 + i // 16)}{chr(97 + i % 16)}aa-1" for i in range(CELLS)]


def write_bundle(path, matrix="h5", table="csv.gz", kind="letters", aligned=True, seed=0):
    """Write a bundle; return counts (C, features), and the cells' places in px of the H&E."""
    path.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    counts = rng.poisson(np.linspace(4, 0.2, len(FEATURES)), (CELLS, len(FEATURES)))
    names = ids(kind)
    if matrix == "h5":
        sparse = csc_array(counts.T)  # features by cells
        with h5py.File(path / "cell_feature_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            for name in ("data", "indices", "indptr"):
                group[name] = getattr(sparse, name)
            group["shape"] = sparse.shape
            group["barcodes"] = np.array(names, "S")
            group["features/name"] = np.array(FEATURES, "S")
            group["features/id"] = np.array([f"ENSG{i}" for i in range(len(FEATURES))], "S")
            group["features/feature_type"] = np.array(KINDS, "S")
    else:
        zarr = pytest.importorskip("zarr")
        sparse = csr_array(counts.T)
        store = zarr.storage.ZipStore(path / "cell_feature_matrix.zarr.zip", mode="w")
        kinds = ["gene" if k == "Gene Expression" else k.lower().replace(" ", "_") for k in KINDS]
        facts = {"feature_keys": FEATURES, "feature_types": kinds, "number_cells": CELLS}
        root = zarr.open_group(store, mode="w", zarr_format=2)
        group = root.create_group("cell_features", attributes=facts)
        for name in ("data", "indices", "indptr"):
            group.create_array(name, data=getattr(sparse, name).astype(np.uint32))
        prefix = [(i // 16 << 12) + (i % 16 << 8) for i in range(CELLS)]
        cell = np.array([(p, 1) for p in prefix], np.uint32)
        group.create_array("cell_id", data=cell if kind == "letters" else cell[:, 0])
        store.close()
    row, column = np.divmod(np.arange(CELLS), 8)
    xy = np.stack([column, row], axis=1) * 80.0 + (70, 90) + rng.uniform(-9, 9, (CELLS, 2))
    matrix = MATRIX if aligned else np.eye(3)
    um = (xy @ matrix[:2, :2].T + matrix[:2, 2]) * PIXEL_UM
    shuffled = rng.permutation(CELLS)
    if table == "parquet":
        columns = {
            "cell_id": [names[i].encode() for i in shuffled],
            "x_centroid": um[shuffled, 0],
            "y_centroid": um[shuffled, 1],
        }
        pq.write_table(pa.table(columns), path / "cells.parquet")
    else:
        lines = ['"cell_id","x_centroid","y_centroid","transcript_counts"']
        lines += [f'"{names[i]}",{um[i, 0]!r},{um[i, 1]!r},1' for i in shuffled]
        lines = [line.replace("np.float64(", "").replace(")", "") for line in lines]
        (path / "cells.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (path / "experiment.xenium").write_text(json.dumps({"pixel_size": PIXEL_UM}))
    if aligned:
        text = "\n".join(",".join(map(str, row)) for row in MATRIX.tolist())
        (path / "x_he_imagealignment.csv").write_text(text + "\n")
    return counts[:, [FEATURES.index(gene) for gene in sorted(GENES)]], xy


def write_image(path, seed=0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zlib")
    return pixels


@pytest.mark.parametrize(
    ("matrix", "table", "kind"),
    [
        ("h5", "csv.gz", "letters"),
        ("h5", "csv.gz", "numbers"),
        ("h5", "parquet", "letters"),
        ("zarr.zip", "csv.gz", "letters"),
        ("zarr.zip", "parquet", "letters"),
    ],
)
def test_a_bundle_in_every_form(tmp_path, matrix, table, kind):
    counts, xy = write_bundle(tmp_path, matrix, table, kind)
    bundle = read_bundle(tmp_path)
    assert bundle.genes.tolist() == sorted(GENES)
    at = [ids(kind).index(name) for name in bundle.ids.tolist()]
    np.testing.assert_array_equal(bundle.counts.toarray(), counts[at])
    np.testing.assert_allclose(bundle.to_px(), xy[at], atol=1e-6)
    np.testing.assert_allclose(bundle.to_um(xy[at]), bundle.xy_um, atol=1e-6)
    assert bundle.mpp == pytest.approx(1.2 * PIXEL_UM)
    assert bundle.notes[0].startswith("14 features: 10 genes; left out 1 ")
    assert bundle.notes[1].startswith("40 cells by id; 0 of the table without counts, 0 of the")


def test_cells_that_do_not_join_are_counted(tmp_path):
    write_bundle(tmp_path)
    file = tmp_path / "cells.csv.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    other = ['"zzzzzzzz-1",1,1,1', '"yyyyyyyy-1",2,2,1']
    file.write_bytes(gzip.compress("\n".join([*lines[:-5], *other]).encode()))
    bundle = read_bundle(tmp_path)
    assert bundle.notes[1] == (
        "35 cells by id; 2 of the table without counts, 5 of the matrix without a place: left out"
    )


def test_prepare_cuts_cells_and_takes_their_counts(tmp_path, capsys):
    raw = tmp_path / "raw"
    slides = {}
    for number, name in enumerate(("s1", "s2")):
        slides[name] = write_bundle(raw / name, seed=number)
        write_image(raw / name / f"{name}_he_image.ome.tif", number)
    assert find_name(raw) == "xenium"
    parser = argparse.ArgumentParser()
    prepare.arguments(parser)
    words = ["xenium", "--raw", raw, "--out", tmp_path / "out", "--genes", 6, "--cells", 25]
    prepare.run(parser.parse_args([str(word) for word in words]))
    assert "50 nuclei (6 targets, 2 slides)" in capsys.readouterr().out
    found = find_benchmark(tmp_path / "out")
    assert (found.name, found.targets.shape, found.group_kind) == ("xenium", (50, 6), "slide")
    assert found.left_out["not drawn"] == 30
    ranks = sum(
        (-counts.mean(axis=0)).argsort().argsort() for counts, _ in slides.values()
    )  # no ties in these means
    best = [sorted(GENES)[i] for i in np.argsort(ranks, kind="stable")[:6]]
    assert set(found.target_names) == set(best)
    whole = load(raw, genes=6)[0]
    for name, (counts, xy) in slides.items():
        own = whole.take(np.flatnonzero(whole.groups == name))
        at = [sorted(GENES).index(gene) for gene in whole.target_names]
        assert sorted(map(tuple, own.targets.tolist())) == sorted(
            map(tuple, counts[:, at].astype(float).tolist())
        )
        assert len(xy) == len(own)


def test_crops_are_where_the_alignment_says(tmp_path):
    _, xy = write_bundle(tmp_path)
    pixels = write_image(tmp_path / "he.tif")
    found = load(tmp_path, images=tmp_path / "he.tif", genes=3, mpp=0.25)[0]
    bundle = read_bundle(tmp_path)
    for crop, (x, y) in zip(found.crops, bundle.to_px(), strict=True):
        left, top = int(np.ceil(x - 20)), int(np.ceil(y - 20))
        np.testing.assert_array_equal(crop, pixels[top : top + 40, left : left + 40])
    assert len(found) == len(xy)


def samples(count: int) -> Benchmark:
    words = np.full(count, "s", np.str_)
    crops = np.zeros((count, 8, 8, 3), np.uint8)
    return Benchmark("x", crops, np.full(count, ""), (), words, origins={"slide": words})


def test_values_join_nuclei_by_centroid(tmp_path, caplog):
    caplog.set_level("INFO")
    counts, xy = write_bundle(tmp_path)
    rng = np.random.default_rng(5)
    nuclei = np.concatenate([xy[::-1] + rng.normal(0, 1, xy.shape), [(1, 1), (2, 3)], xy[:1] + 8])
    found = from_xenium(tmp_path, samples(len(nuclei)), nuclei, 5.0)
    assert found.rows.tolist() == list(range(CELLS))
    np.testing.assert_allclose(found.values, np.log1p(counts[::-1]), rtol=1e-6)
    assert "40 of 43 nuclei joined to a cell within 5 µm; 2 have none so near, 1 are second to" in (
        caplog.text
    )
    with pytest.raises(ValueError, match=r"0 of 40 nuclei lie within 0.5 µm"):
        join(tmp_path / "cell_feature_matrix.h5", np.full(CELLS, "s"), xy + 3, 0.5)


def test_another_slide_does_not_join(tmp_path):
    _, xy = write_bundle(tmp_path)
    with pytest.raises(ValueError, match=r"0 of 40 nuclei lie within 5 µm of a cell; they reach"):
        join(tmp_path, np.full(CELLS, "s"), xy + 5000)
    with pytest.raises(ValueError, match=r"one slide's bundle, the cells are of 2"):
        join(tmp_path, np.array(["a", "b"] * 20), xy)
    (tmp_path / "x_he_imagealignment.csv").unlink()
    with pytest.raises(ValueError, match=r"imagealignment.csv is not in the bundle"):
        join(tmp_path, np.full(CELLS, "s"), xy + 900)


def overwrite(data: bytes):
    return lambda file: file.write_bytes(data)


def change(name: str, value):
    def rewrite(file):
        with h5py.File(file, "r+") as opened:
            del opened["matrix"][name]
            if value is not None:
                opened["matrix"][name] = value

    return rewrite


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 260\n"
H5, CSV, JSON = "cell_feature_matrix.h5", "cells.csv.gz", "experiment.xenium"
ALIGNED = "x_he_imagealignment.csv"


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (H5, overwrite(LFS), "cell_feature_matrix.h5 is a Git LFS pointer"),
        (H5, overwrite(b""), "cell_feature_matrix.h5 is empty"),
        (H5, overwrite(b"text"), "text, is no 10x matrix"),
        (H5, lambda file: file.write_bytes(file.read_bytes()[:900]), "is no 10x matrix"),
        (H5, change("indptr", None), "is no 10x matrix"),
        (H5, change("indptr", np.arange(5)), "is no 10x matrix"),
        (H5, change("features/feature_type", np.array(["Blank"] * 14, "S")), "none of its 14"),
        (H5, change("barcodes", np.array([f"x{i}" for i in range(40)], "S")), "of two bundles"),
        (H5, change("features/name", np.array(["A"] * 14, "S")), "gene A stands there 10 times"),
        (CSV, overwrite(b"cell_id,x_centroid\n"), "does not unpack"),
        (CSV, overwrite(gzip.compress(b"cell_id,x_centroid\n1,2\n")), "y_centroid"),
        (CSV, overwrite(gzip.compress(b"cell_id,x_centroid,y_centroid\n")), "and no rows"),
        (CSV, overwrite(gzip.compress(b"cell_id,x_centroid,y_centroid\n1,a,2\n")), "is 'a'"),
        (CSV, overwrite(gzip.compress(b"cell_id,x_centroid,y_centroid\n1,1,2\n1,3,2\n")), "twice"),
        (CSV, lambda file: file.unlink(), "has no cells.parquet or cells.csv.gz"),
        (JSON, lambda file: file.unlink(), "has no experiment.xenium"),
        (JSON, overwrite(b"{}"), "gives no pixel_size"),
        (JSON, overwrite(b'{"pixel_size": 212.5}'), "no microscope is"),
        (ALIGNED, overwrite(b"fixedX,fixedY\n1,2\n"), "is no 3x3 matrix of numbers"),
        (ALIGNED, overwrite(b"1,0\n0,1\n"), "is no 3x3 matrix that ends"),
        (ALIGNED, overwrite(b"0,0,1\n0,0,1\n0,0,1\n"), "has no inverse"),
    ],
)
def test_a_bad_bundle_is_refused_by_name(tmp_path, name, damage, words):
    write_bundle(tmp_path)
    damage(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        read_bundle(tmp_path)


def test_a_bad_zarr_is_refused(tmp_path):
    write_bundle(tmp_path, "zarr.zip")
    file = tmp_path / "cell_feature_matrix.zarr.zip"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="a zip archive cut short"):
        read_bundle(tmp_path)
    file.write_bytes(b"no archive, but long enough")
    with pytest.raises(ValueError, match="is no matrix of Xenium Explorer"):
        read_bundle(tmp_path)


def test_an_image_of_another_slide_is_refused(tmp_path):
    write_bundle(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"needs one H&E image; 0 in"):
        load(tmp_path, genes=3)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((90, 90, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match=r"of 40 cells lie outside .*a.tif \(90x90 px"):
        load(tmp_path, images=tmp_path / "a.tif", genes=3)


def test_10x_own_matrix(data):
    """248 genes and 36,602 cells, as many transcripts of each cell as its table says."""
    if not (data / "xenium").is_dir():
        pytest.skip(f"no Xenium bundle in {data}")
    bundle = read_bundle(data / "xenium")
    assert bundle.counts.shape == (36602, 248)
    assert bundle.pixel_um == 0.2125
    assert bundle.notes[0] == (
        "541 features: 248 genes; left out 225 Blank Codeword, 41 Negative Control Codeword, "
        "27 Negative Control Probe"
    )
    text = gzip.decompress((data / "xenium/cells.csv.gz").read_bytes()).decode().splitlines()
    said = {row.split(",")[0].strip('"'): int(row.split(",")[3]) for row in text[1:]}
    ours = np.asarray(bundle.counts.sum(axis=1)).ravel()
    assert [said[name] for name in bundle.ids.tolist()] == ours.tolist()


def test_samples_know_their_places(cells, shards_folder):
    for found in (from_cells(cells, 60), from_shards(shards_folder, 60)):
        for slide in set(found.origins["slide"].tolist()):
            table = pq.read_table(cells / f"{slide}.parquet", columns=["nucleus", "x", "y"])
            at = dict(zip(table["nucleus"].to_pylist(), range(len(table)), strict=True))
            own = found.take(np.flatnonzero(found.origins["slide"] == slide))
            rows = [at[n] for n in own.nuclei.tolist()]
            np.testing.assert_array_equal(
                own.xy, np.stack([table[axis].to_numpy()[rows] for axis in "xy"], axis=1)
            )


def test_values_of_a_command_may_be_a_bundle(cells, tmp_path):
    found = from_cells(cells, 40, slide="PAINTED-0001")
    write_bundle(tmp_path, aligned=False)
    lines = ['"cell_id","x_centroid","y_centroid"']
    places = zip(ids("letters"), (found.xy * PIXEL_UM).tolist(), strict=False)
    lines += [f"{name},{x},{y}" for name, (x, y) in places]
    (tmp_path / "cells.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    options = argparse.Namespace(values=tmp_path, benchmark=None, radius=2.0, log1p=False)
    molecules = molecules_of(options, found)
    assert molecules.what == "genes"
    assert len(molecules.rows) == min(len(found), CELLS)
    assert molecules.names == tuple(sorted(GENES))
