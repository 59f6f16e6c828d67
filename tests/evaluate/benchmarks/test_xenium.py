"""Xenium bundles as 10x writes them, small: matrix, cells, alignment, and each trap of them."""

import argparse
import gzip
import re

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from evaluate.analyses.molecules import from_xenium
from evaluate.benchmark import Benchmark
from evaluate.benchmarks.find import find_benchmark, find_name
from evaluate.benchmarks.xenium import held, join, load
from evaluate.benchmarks.xenium_bundle import read_bundle
from evaluate.commands import prepare
from evaluate.commands.inputs import molecules_of
from evaluate.samples import from_cells, from_shards
from tests.evaluate.benchmarks.bundles import (
    CELLS,
    GENES,
    PIXEL_UM,
    ids,
    write_bundle,
    write_image,
)


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
    prepare.add_flags(parser)
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
    return Benchmark("x", crops, np.full(count, ""), (), words, batch_variables={"slide": words})


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


def counts_become(changed):
    def rewrite(file):
        with h5py.File(file) as opened:
            before = np.asarray(opened["matrix/data"])
        change("data", changed(before))(file)

    return rewrite


def no_cells(file):
    for name in ("data", "indices"):
        change(name, np.array([], np.int64))(file)
    change("indptr", np.array([0]))(file)
    change("barcodes", np.array([], "S1"))(file)


def damaged(data: bytes) -> bytes:
    return data[:15] + bytes(byte ^ 255 for byte in data[15:40]) + data[40:]


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
        (H5, change("features/feature_type", np.array(["Gene"] * 9, "S")), "14 names of features"),
        (H5, change("barcodes", np.array(["aaaaaaaa-1"] * 40, "S")), "39 cells stand there twice"),
        (H5, change("barcodes", np.array([], "S")), "is no 10x matrix"),
        (H5, counts_become(lambda a: a * 0), "40 cells, and not one transcript of a gene"),
        (H5, counts_become(lambda a: -a), "a count is negative or no number"),
        (H5, counts_become(lambda a: a * np.nan), "a count is negative or no number"),
        (H5, no_cells, "0 cells, and not one transcript"),
        (CSV, lambda file: file.write_bytes(damaged(file.read_bytes())), "does not unpack"),
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


@pytest.mark.parametrize("table", ["csv.gz", "parquet"])
def test_cells_in_another_unit_are_refused(tmp_path, table):
    """Pixels taken for micrometres lie outside; millimetres in a corner, where no window fits."""
    write_bundle(tmp_path, table=table, aligned=False)
    write_image(tmp_path / "he.tif")
    for factor, words in ((1 / PIXEL_UM, "cells lie outside"), (0.001, "no nucleus left")):
        rescale(tmp_path, table, factor)
        with pytest.raises(ValueError, match=words):
            load(tmp_path, images=tmp_path / "he.tif", genes=3)
        rescale(tmp_path, table, 1 / factor)
    rescale(tmp_path, table, 0.4)
    notes = load(tmp_path, images=tmp_path / "he.tif", genes=3)[0].notes
    assert any("all 40 cells lie in the upper left quarter of he.tif" in note for note in notes)


def rescale(path, table, factor):
    if table == "parquet":
        read = pq.read_table(path / "cells.parquet").to_pydict()
        for name in ("x_centroid", "y_centroid"):
            read[name] = [value * factor for value in read[name]]
        pq.write_table(pa.table(read), path / "cells.parquet")
        return
    first, *lines = gzip.decompress((path / "cells.csv.gz").read_bytes()).decode().splitlines()
    rows = [line.split(",") for line in lines]
    lines = [f"{a},{float(x) * factor},{float(y) * factor},{n}" for a, x, y, n in rows]
    (path / "cells.csv.gz").write_bytes(gzip.compress("\n".join([first, *lines]).encode()))


def test_one_image_is_not_two_bundles(tmp_path):
    for name in ("s1", "s2"):
        write_bundle(tmp_path / name)
    write_image(tmp_path / "he.tif")
    with pytest.raises(ValueError, match=r"he.tif is one image, but .* holds 2 bundles"):
        load(tmp_path, images=tmp_path / "he.tif", genes=3)


def test_links_to_folders_of_one_name_are_two_slides(tmp_path):
    for number, name in enumerate(("s1", "s2")):
        outs = tmp_path / "away" / name / "outs"
        write_bundle(outs, seed=number)
        write_image(outs / "x_he_image.tif", number)
        (tmp_path / "raw").mkdir(exist_ok=True)
        (tmp_path / "raw" / name).symlink_to(outs)
    found = load(tmp_path / "raw", genes=3)[0]
    assert set(found.groups.tolist()) == {"s1", "s2"} and len(found) == 2 * CELLS


def test_an_alignment_that_stretches_is_refused(tmp_path):
    write_bundle(tmp_path)
    write_image(tmp_path / "he.tif")
    text = "0.0,-1.2,650.0\n1.1,0.0,40.0\n0,0,1\n"
    (tmp_path / ALIGNED).write_text(text)
    with pytest.raises(ValueError, match=r"stretches the H&E, 0.2338 µm/px one way and 0.255"):
        load(tmp_path, images=tmp_path / "he.tif", genes=3)
    assert len(load(tmp_path, images=tmp_path / "he.tif", genes=3, mpp=0.25)[0])


def test_a_bundle_says_what_it_holds_without_an_image(tmp_path, capsys):
    counts, _ = write_bundle(tmp_path / "one")
    parser = argparse.ArgumentParser()
    prepare.add_flags(parser)
    prepare.run(parser.parse_args(["xenium", "--raw", str(tmp_path), "--try"]))
    first, *notes = capsys.readouterr().out.splitlines()
    total = counts.sum()  # of the genes
    assert first == (
        f"one: {CELLS} cells, {len(GENES)} genes, {total:,} transcripts; Xenium image at "
        f"{PIXEL_UM} µm/px"
    )
    assert notes[0].startswith("  14 features: 10 genes; left out 1 ")


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
    assert held(data / "xenium")[0].startswith("xenium: 36,602 cells, 248 genes, ")


def test_samples_know_their_places(cells, shards_folder):
    for found in (from_cells(cells, 60), from_shards(shards_folder, 60)):
        for slide in set(found.batch_variables["slide"].tolist()):
            table = pq.read_table(cells / f"{slide}.parquet", columns=["nucleus", "x", "y"])
            at = dict(zip(table["nucleus"].to_pylist(), range(len(table)), strict=True))
            own = found.take(np.flatnonzero(found.batch_variables["slide"] == slide))
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
