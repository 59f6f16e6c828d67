"""The evaluate stage: benchmarks, encoders, embeddings, probes, tables, maps, the report."""

import csv
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
from PIL import Image

from evaluate import main, morphology
from evaluate.benchmark import Benchmark
from evaluate.benchmarks.find import find_benchmark
from evaluate.embed import cached, embed
from evaluate.encoders import find_folder, open_encoders
from evaluate.map import mosaic
from evaluate.map import project as lay_out
from evaluate.metrics import METRICS, scores
from evaluate.probe import folds, probe
from evaluate.results import read_rows
from evaluate.samples import from_cells, from_shards
from evaluate.sheet import contact_sheet
from evaluate.tables import Table, latex, markdown
from shards.crop import cut, encode
from shards.schema import CELL_COLUMNS
from shards.write import TarWriter

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HOSTILE = "<script>alert('x')</script>"


def need(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {DATA / name}: the shared data are not on this machine")
    return DATA / name


def field(seed: int, side: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint 36 nuclei of two kinds on pink: pixels, (36, 2) centres, (36,) kinds."""
    rng = np.random.default_rng(seed)
    image = rng.normal((225, 170, 205), 8, (side, side, 3)).clip(0, 255).astype(np.uint8)
    y, x = np.divmod(np.arange(36), 6)
    xy = np.stack([x, y], 1) * 60 + 50
    kinds = np.where(rng.random(36) < 0.5, "round", HOSTILE)
    for (x, y), kind in zip(xy.tolist(), kinds, strict=True):
        axes = (9, 9) if kind == "round" else (16, 6)
        colour = (90 + int(rng.integers(30)), 60, 140)
        cv2.ellipse(image, (x, y), axes, float(rng.integers(180)), 0, 360, colour, -1)
    return cv2.GaussianBlur(image, (0, 0), 1), xy, kinds


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A user's folder: six PNG of 36 nuclei, one nucleus at a border, one row without a label."""
    path = tmp_path_factory.mktemp("data") / "own"
    path.mkdir()
    lines = ["image,x,y,label,group,mpp"]
    for i in range(6):
        image, xy, kinds = field(i)
        Image.fromarray(image).save(path / f"{i}.png")
        lines += [
            f"{i}.png,{x},{y},{kind},g{i},0.25" for (x, y), kind in zip(xy, kinds, strict=True)
        ]
    lines += ["0.png,5,100,round,g0,0.25", "0.png,100,100,,g0,0.25"]
    (path / "cells.csv").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def benchmark(own) -> Benchmark:
    return find_benchmark(own)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with an untrained ViT-Ti/8."""
    from train.encoder import build_encoder, save_encoder

    path = tmp_path_factory.mktemp("runs") / "first"
    model = build_encoder("vit_ti8", 40, seed=3)
    save_encoder(model, path / "encoder", [0.7, 0.5, 0.6], [0.2, 0.2, 0.1], 0.25, network="student")
    return path


# Benchmarks


def test_consep_counts():
    found = find_benchmark(need("consep"))
    assert found.name == "consep"
    assert found.counts() == {
        "epithelial": 7956, "spindle": 8276, "inflammatory": 5103, "other": 824
    }  # fmt: skip
    assert len(set(found.groups.tolist())) == 41
    assert found.notes[0].startswith("2022 of 24181 nuclei dropped")
    with open(need("consep") / "nuclei.csv", newline="") as file:
        first = next(csv.DictReader(file))
    image = np.asarray(Image.open(need("consep") / "images" / f"{first['image']}.jpg"))
    x, y = (math.ceil(float(first[axis]) - 20) for axis in "xy")
    assert found.labels[0] == first["label"]
    np.testing.assert_array_equal(found.crops[0], image[y : y + 40, x : x + 40])


def test_ami_br_counts_and_centre():
    found = find_benchmark(need("ami-br"))
    assert found.counts() == {"AMF": 407, "NMF": 1489}
    assert (found.positive, len(set(found.groups.tolist()))) == ("NMF", 101)
    assert found.notes[0].startswith("10 of 1896 nuclei kept with a black margin")
    with open(need("ami-br") / "labels.csv", newline="") as file:
        first = next(csv.DictReader(file))
    crop = np.asarray(Image.open(need("ami-br") / "crops" / first["file"]))
    np.testing.assert_array_equal(found.crops[0], crop[44:84, 44:84])


def test_own_folder(own, benchmark):
    assert len(benchmark) == 6 * 36
    assert benchmark.name == "own"
    assert benchmark.notes == (
        "1 of 218 nuclei dropped: their 40x40-px window leaves the image",
        "1 of 218 rows passed over: no label",
    )
    image = np.asarray(Image.open(own / "0.png"))
    np.testing.assert_array_equal(benchmark.crops[0], image[30:70, 30:70])


@pytest.mark.parametrize("mpp", ["", "0.31"])
def test_windows_of_a_slide_are_those_of_its_pixels(tmp_path, mpp):
    image = np.random.default_rng(0).integers(0, 255, (1500, 2300, 3), np.uint8)
    resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}  # 0.25 µm/px
    tifffile.imwrite(
        tmp_path / "s.tif", image, tile=(256, 256), photometric="rgb", compression="zlib",
        **resolution,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    xy = np.round(rng.uniform((30, 30), (2270, 1470), (60, 2)), 2)
    xy = np.vstack([xy, [(1024, 1024), (1023.5, 1023.49), (2, 2)]])
    rows = [f"s.tif,{x},{y},a,{mpp}" for x, y in xy]
    (tmp_path / "cells.csv").write_text("image,x,y,label,mpp\n" + "\n".join(rows))
    found = find_benchmark(tmp_path)
    assert len(found) == 62
    expected = cut(image, xy[:62], float(mpp or 0.25), 40)
    np.testing.assert_array_equal(found.crops, expected)
    assert ("1 images resampled to 0.25 µm/px" in found.notes) == bool(mpp)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["image,x,y,label", "0.png,50,50,a"], "0.png has no scale of its own; add an `mpp`"),
        (["image,x,y,kind", "0.png,50,50,a"], "no column 'label'"),
        (["image,x,y,label,mpp", "0.png,50,fifty,a,.25"], "line 2: y is 'fifty'"),
        (["image,x,y,label,mpp", "0.png,50,nan,a,.25"], "line 2: y is 'nan'"),
        (["image,x,y,label,mpp", "0.png,50,50,a,-1"], "mpp of '-1'"),
        (["image,x,y,label,mpp", "0.png,50,50,a,.25", "0.png,90,90,a,.5"], "2 values of mpp"),
        (["image,x,y,label,mpp", "0.png,5,5,a,.25"], "no nucleus left"),
        (["image,x,y,label,mpp", "no.png,50,50,a,.25"], "an image that is not there"),
        (["image,x,y,label,mpp", "cells.csv,50,50,a,.25"], "neither a slide nor an image"),
        (["image,x,y,label,mpp", "0.png,50"], "a short row"),
        (["image,x,y,label,mpp"], "a header and no rows"),
    ],
)
def test_bad_folder_says_why(tmp_path, lines, words):
    Image.fromarray(field(0)[0]).save(tmp_path / "0.png")
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        find_benchmark(tmp_path)


def test_no_benchmark_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_benchmark(tmp_path / "absent")
    with pytest.raises(ValueError, match="is empty"):
        find_benchmark(tmp_path)
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"it holds x.txt; looked for\n  consep: .*\n  ami-br"):
        find_benchmark(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        find_benchmark(tmp_path / "x.txt")


# Metrics and probes


def test_binary_metrics_by_hand():
    labels = np.array(["A", "A", "B", "B", "B"])
    positive = np.array([0.1, 0.6, 0.4, 0.8, 0.9])  # of B; predicted A B A B B
    got = scores(labels, np.stack([1 - positive, positive], 1), ("A", "B"), "B")
    # ranks of B downwards: .9 B, .8 B, .6 A, .4 B, .1 A; five of six pairs are in order
    expected = {
        "balanced accuracy": (1 / 2 + 2 / 3) / 2,
        "AUC": 5 / 6,
        "AUPR": (1 + 1 + 3 / 4) / 3,
        "F1 macro": (1 / 2 + 2 / 3) / 2,
        "F1 weighted": (2 * 1 / 2 + 3 * 2 / 3) / 5,
    }
    assert got == pytest.approx(expected)
    other = scores(labels, np.stack([1 - positive, positive], 1), ("A", "B"), "A")
    assert other["AUC"] == pytest.approx(5 / 6)
    assert other["AUPR"] == pytest.approx((1 + 2 / 3) / 2)


def test_three_class_metrics_by_hand():
    labels = np.array(["A", "A", "B", "C"])
    chances = np.array([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6]])
    got = scores(labels, chances, ("A", "B", "C"))  # predicted A B B C; every class is in order
    assert got["balanced accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert got["AUC"] == got["AUPR"] == pytest.approx(1)
    assert got["F1 macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert got["F1 weighted"] == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)


def blobs(classes: tuple[str, ...], each: int = 40) -> tuple[np.ndarray, Benchmark]:
    """Gaussian features of several classes, of scales far apart, and their benchmark."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array(classes), each)
    features = rng.normal(0, 1, (len(labels), 6)) + np.repeat(np.eye(6)[: len(classes)], each, 0)
    groups = np.tile(np.array([f"g{i}" for i in range(8)]), len(labels) // 8)
    crops = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return (features * 10.0 ** np.arange(6)).astype(np.float32), Benchmark(
        "blobs", crops, labels, classes, groups, "group", classes[-1] if len(classes) == 2 else None
    )


@pytest.mark.parametrize("classes", [("b", "a"), ("c", "a", "b")])
@pytest.mark.parametrize("components", [None, 3])
def test_probe_is_scikit_learn(classes, components):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler, label_binarize

    features, data = blobs(classes)
    got = probe(features, data, folds(data, "stratified", 5, 7), components)
    steps = [PCA(components, svd_solver="full")] if components else []
    model = make_pipeline(*steps, StandardScaler(), LogisticRegression(tol=1e-8, max_iter=9999))
    splitter = StratifiedKFold(5, shuffle=True, random_state=7)
    chances = cross_val_predict(
        model, features.astype(float), data.labels, cv=splitter, method="predict_proba"
    )  # columns in alphabetical order
    for fold, (_, test) in zip(got, splitter.split(features, data.labels), strict=True):
        if len(classes) == 2:
            truth, score = data.labels[test] == "a", chances[test, 0]
        else:
            truth, score = label_binarize(data.labels[test], classes=["a", "b", "c"]), chances[test]
        assert fold["AUC"] == pytest.approx(roc_auc_score(truth, score), abs=2e-3)
        assert fold["AUPR"] == pytest.approx(average_precision_score(truth, score), abs=2e-3)


def test_folds_cover_and_groups_stay_whole():
    _, data = blobs(("a", "b", "c"))
    for split in ("stratified", "grouped"):
        tests = folds(data, split, 5, 0)
        assert sorted(np.concatenate(tests).tolist()) == list(range(len(data)))
        again = folds(data, split, 5, 0)
        assert all(np.array_equal(a, b) for a, b in zip(tests, again, strict=True))
    groups = [set(data.groups[test].tolist()) for test in folds(data, "grouped", 5, 0)]
    assert sum(map(len, groups)) == 8
    assert len(folds(data, "grouped", 20, 0)) == 8  # fewer groups than folds: each is one


def test_folds_refuse_what_cannot_be_split():
    _, data = blobs(("a", "b"))
    with pytest.raises(ValueError, match=r"class 'a' has 3 nuclei.*--folds 3"):
        folds(data.take(np.arange(37, 80)), "stratified", 5, 0)
    one = Benchmark("one", data.crops[:40], data.labels[:40], ("a",), data.groups[:40])
    with pytest.raises(ValueError, match=r"1 class\(es\) \(a\); a probe needs two"):
        folds(one, "stratified", 5, 0)
    with pytest.raises(ValueError, match="no groups are given"):
        folds(data.take(np.arange(0, 80, 8)), "grouped", 5, 0)


# Encoders and embeddings


def test_network_embeds_as_a_plain_loop(run, benchmark):
    import torch

    from train.encoder import load_encoder

    (encoder,) = open_encoders([str(run)], batch=50)
    assert encoder.name == "first"
    model, config = load_encoder(run / "encoder")
    mean, std = np.array(config["mean"]), np.array(config["std"])
    expected = []
    with torch.inference_mode():
        for crop in benchmark.crops[:60]:
            x = ((crop / 255 - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)
            expected.append(model(torch.from_numpy(x))[0].numpy())
    got = encoder.embed(benchmark.crops[:60])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=2e-4)
    wider = np.pad(benchmark.crops[:3], ((0, 0), (10, 10), (10, 10), (0, 0)))
    np.testing.assert_allclose(encoder.embed(wider), expected[:3], atol=2e-4)
    with pytest.raises(ValueError, match=r"first takes 40x40 px .* crops are 32x32"):
        encoder.embed(benchmark.crops[:3, :32, :32])
    (half,) = open_encoders([str(run)], precision="bf16")
    for a, b in zip(half.embed(benchmark.crops[:3]), expected, strict=False):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_untrained_has_the_first_runs_architecture(run):
    untrained, trained = open_encoders(["untrained", str(run)], seed=3)
    assert untrained.config["mean"] == trained.config["mean"]
    for a, b in zip(
        untrained.module.state_dict().values(), trained.module.state_dict().values(), strict=True
    ):
        assert a.equal(b)  # the fixture's run is itself untrained, with seed 3
    assert untrained.manifest() != trained.manifest()


class Counting:
    """An encoder that counts how often it works."""

    name, components, cached = "counting", None, True

    def __init__(self, version: int = 1):
        self.version, self.calls = version, 0

    def embed(self, crops: np.ndarray) -> np.ndarray:
        self.calls += 1
        return crops.mean(axis=(1, 2)).astype(np.float32) * self.version

    def manifest(self) -> dict:
        return {"version": self.version}


def test_embeddings_are_reused_only_if_they_agree(tmp_path, benchmark):
    encoder = Counting()
    first = embed(encoder, benchmark, tmp_path)
    path = tmp_path / "embeddings" / "counting" / "own.npy"
    np.testing.assert_array_equal(np.load(path), first)
    np.testing.assert_array_equal(embed(encoder, benchmark, tmp_path), first)
    assert encoder.calls == 1
    embed(encoder, benchmark, tmp_path, overwrite=True)
    assert encoder.calls == 2
    other = Counting(2)  # other weights
    np.testing.assert_array_equal(embed(other, benchmark, tmp_path), first * 2)
    assert other.calls == 1
    fewer = benchmark.take(np.arange(50))  # other nuclei under the same name
    assert cached(other, fewer, tmp_path) is None
    assert len(embed(other, fewer, tmp_path)) == 50
    path.write_bytes(path.read_bytes()[:-100])  # cut short
    assert cached(other, fewer, tmp_path) is None
    embed(other, fewer, tmp_path)
    path.with_suffix(".json").unlink()  # killed before the manifest
    assert cached(other, fewer, tmp_path) is None


def test_morphology_sees_shape(benchmark):
    measures = dict(zip(morphology.NAMES, morphology.measure(benchmark.crops).T, strict=True))
    round_ = benchmark.labels == "round"
    assert measures["eccentricity"][round_].mean() < 0.5
    assert measures["eccentricity"][~round_].mean() > 0.85
    assert measures["area"][round_].mean() == pytest.approx(np.pi * 9**2, rel=0.2)
    assert 40 <= len(measures) <= 80
    for blank in (0, 255):
        assert np.isfinite(morphology.measure(np.full((2, 40, 40, 3), blank, np.uint8))).all()


def test_bad_encoders_say_why(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="neither a baseline nor a path; there are pixels"):
        find_folder("vit_huge")
    with pytest.raises(ValueError, match="no kind of encoder 'volta'"):
        find_folder("volta:weights")
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors"):
        find_folder(str(tmp_path))
    with pytest.raises(ValueError, match=r"two encoders are named 'first'.*mine="):
        list(open_encoders([str(run), str(run / "encoder")]))
    assert find_folder(f"mine={run}") == ("mine", run / "encoder")
    assert find_folder(f"run:{run}")[0] == "first"


# Results and tables


def test_table_forms():
    mean = np.array([[0.7004, 0.5], [0.7001, 0.6]])
    mean, sd = np.pad(mean, ((0, 0), (0, 3)), constant_values=0.5), np.full((2, 5), 0.0152)
    table = Table("b", "stratified", "b_1, 50 %", ("a|x", "b_y"), mean, sd)
    text = markdown([table])
    assert r"| a\|x    | **0.700 (0.015)** | 0.500 (0.015)     |" in text  # equal as shown: both
    assert "| b_y     | **0.700 (0.015)** | **0.600 (0.015)** |" in text
    assert r"b\_y & \textbf{0.700 (0.015)} & \textbf{0.600 (0.015)}" in latex([table])
    assert r"\caption{b\_1, 50 \%" in latex([table])


# Maps and sheets


def test_mosaic_shows_the_cell_nearest_each_centre():
    crops = np.arange(4, dtype=np.uint8)[:, None, None, None] * 50 + np.zeros(
        (1, 8, 8, 3), np.uint8
    )
    xy = np.array([[0.1, 0.1], [0.26, 0.24], [0.9, 0.9], [1.0, 0.4]])
    panel = mosaic(xy, crops, 2)
    side = len(panel)
    assert panel[3 * side // 4, side // 4, 0] == 50  # lower left: (0.26, 0.24)
    assert panel[side // 4, 3 * side // 4, 0] == 100  # upper right
    assert panel[3 * side // 4, 3 * side // 4, 0] == 150
    assert panel[side // 4, side // 4, 0] == 255  # nobody there


def test_layout_is_a_function_of_the_seed():
    features, _ = blobs(("a", "b", "c"))
    first = lay_out(features, seed=1)
    np.testing.assert_array_equal(first, lay_out(features, seed=1))
    assert first.shape == (120, 2)


def test_collapsed_embeddings_have_no_map():
    with pytest.raises(ValueError, match="collapsed"):
        lay_out(np.ones((20, 5), np.float32))
    with pytest.raises(ValueError, match="too few"):
        lay_out(np.ones((3, 5), np.float32))


@pytest.fixture
def cells(tmp_path) -> Path:
    """Cells of two slides as extract leaves them, 20 kept and one not, and a slide that failed."""
    folder = tmp_path / "cells"
    folder.mkdir()
    for s in range(2):
        rows = []
        with open(folder / f"s{s}.tar", "wb") as file:
            tar = TarWriter(file)
            for n in range(21):
                crop = np.full((60, 60, 3), 10 * n + 5 * s, np.uint8)
                data = encode(crop, "png")
                offset = tar.add(f"s{s}_{n:07d}.png", data)
                rows.append({"nucleus": n, "fate": "kept", "offset": offset, "size": len(data)})
            digest = tar.close()
        rows[20] |= {"fate": "blur", "offset": None, "size": None}
        columns = {c.name: [row.get(c.name) for row in rows] for c in CELL_COLUMNS}
        table = pa.table(columns, schema=CELL_COLUMNS)
        pq.write_table(table, folder / f"s{s}.parquet")
        record = {
            "slide": f"s{s}", "project": f"P{s}", "outcome": "done", "fates": {"kept": 20},
            "settings": {"codec": "png"}, "sha256": digest,
        }  # fmt: skip
        (folder / f"s{s}.json").write_text(json.dumps(record))
    (folder / "s2.json").write_text(json.dumps({"slide": "s2", "outcome": "failed"}))
    return folder


def test_samples_of_cells_and_shards(cells, tmp_path):
    from shards.mix import mix

    samples = from_cells(cells, 30, seed=1)
    assert samples.crops.shape == (30, 40, 40, 3)
    for crop, project in zip(samples.crops, samples.groups, strict=True):
        assert crop[0, 0, 0] % 10 == (5 if project == "P1" else 0)
    assert samples.notes == ("30 of 40 kept nuclei of 2 slides, chosen at random",)
    mix(cells, tmp_path / "shards", 16, 0)
    mixed = from_shards(tmp_path / "shards", 100, view_px=60)
    assert mixed.crops.shape == (40, 60, 60, 3)
    assert sorted(mixed.crops[:, 0, 0, 0].tolist()) == sorted(
        from_cells(cells, 100).crops[:, 0, 0, 0].tolist()
    )
    with pytest.raises(ValueError, match="smaller than 80"):
        from_cells(cells, 5, view_px=80)
    sheet = np.asarray(contact_sheet(mixed))
    assert sheet.shape[1] == 1012
    assert sheet.std() > 20
    with pytest.raises(FileNotFoundError):
        from_cells(tmp_path / "absent", 5)
    with pytest.raises(FileNotFoundError):
        from_shards(cells, 5)


# The command line, from a folder of one's own to the report


class Page(HTMLParser):
    """Collects tags, references and text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.references, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data):
        self.text.append(data)


def test_from_a_folder_to_the_report(own, run, cells, tmp_path, capsys):
    out = tmp_path / "results"
    command = ["probe", "--benchmark", str(own), "--out", str(out), "--encoder"]
    assert main.main([*command, "pixels", "morphology"]) == 0
    printed = capsys.readouterr().out
    assert "own, 216 nuclei, 2 classes; 5 stratified folds" in printed
    assert "5 folds that keep each group whole (6 groups)" in printed
    rows = read_rows(out)
    assert len(rows) == 2 * 2 * 5 * len(METRICS)
    mean = np.mean([
        row["value"] for row in rows
        if row["encoder"] == "morphology" and row["metric"] == "balanced accuracy"
    ])  # fmt: skip
    assert mean > 0.95
    before = {name: (out / name).read_bytes() for name in ("probe.csv", "probe.json", "table.tex")}
    assert main.main([*command, "morphology"]) == 0  # the same again, and nothing else changes
    assert before == {name: (out / name).read_bytes() for name in before}
    assert main.main([*command, "morphology", "--folds", "3"]) == 2  # would mix two protocols
    assert "another protocol for pixels" in capsys.readouterr().err
    assert main.main([*command, str(run)]) == 0
    assert {row["encoder"] for row in read_rows(out)} == {"pixels", "morphology", "first"}

    mapping = ["map", "--encoder", "morphology", "--benchmark", str(own), "--out", str(out)]
    assert main.main([*mapping, "--points", "100"]) == 0
    path = out / "maps" / "morphology--own.png"
    pixels = np.asarray(Image.open(path))
    assert min(pixels.shape[:2]) > 2000
    assert len(np.unique(pixels[::7, ::7, :3].reshape(-1, 3), axis=0)) > 300

    page = tmp_path / "report.html"
    report = [
        "report",
        str(out),
        "--out",
        str(page),
        "--cells",
        str(cells),
        "--extra",
        str(own / "0.png"),
    ]
    assert main.main(report) == 0
    html = page.read_text()
    parsed = Page(html)
    assert parsed.tags.count("img") == 4  # the map, the benchmark's sheet, the cells', the extra
    assert parsed.tags.count("table") == 2
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert all(r.startswith(("data:image/", "#")) for r in parsed.references)
    assert not re.search(r"https?://|file:|url\(|@import", html)
    assert any(HOSTILE in text for text in parsed.text)
    assert "evaluate/main.py probe" in html


def test_exit_status_and_words(own, tmp_path, capsys):
    out = ["--out", str(tmp_path / "r")]
    for command, words in [
        (
            ["probe", "--encoder", "pixels", "--benchmark", str(tmp_path / "no"), *out],
            "no such fol",
        ),
        (["probe", "--encoder", "no/run", "--benchmark", str(own), *out], "no encoder 'no/run'"),
        (["probe", "--encoder", "pixels", "--benchmark", str(own), str(own), *out], "two benchma"),
        (["map", "--encoder", "pixels", "--cells", str(own), *out], "no finished slide"),
        (["report", str(tmp_path / "no"), "--out", "x.html"], "no results folder"),
        (["report", str(tmp_path), "--out", "x.html"], "run `probe` first"),
        (["report", str(tmp_path), "--out", "x.html", "--extra", "no.png"], "no picture at no.png"),
    ]:
        assert main.main(command) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    with pytest.raises(SystemExit) as stopped:
        main.main(["probe", "--encoder", "pixels", "--folds", "1", "--benchmark", "x", *out])
    assert stopped.value.code == 2
