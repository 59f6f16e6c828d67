"""The evaluate stage: encoders, embeddings, tables, maps, the report."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluate import main
from evaluate.embeddings import cached, embed
from evaluate.encoders import find_folder, open_encoders
from evaluate.maps.map import mosaic
from evaluate.maps.map import project as lay_out
from evaluate.probes.metrics import METRICS
from evaluate.report.class_sheet import contact_sheet
from evaluate.results import read_rows
from evaluate.samples import from_cells, from_shards
from evaluate.tables.table import Table, latex, markdown
from shards.crop import encode
from shards.schema import CELL_COLUMNS
from shards.write import TarWriter
from train.measures import NAMES, measure

HOSTILE = "<script>alert('x')</script>"  # as in conftest.py


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder with an untrained ViT-Ti/8."""
    from train.encoder import build_encoder, save_encoder

    path = tmp_path_factory.mktemp("runs") / "first"
    model = build_encoder("vit_ti8", 40, seed=3)
    save_encoder(model, path / "encoder", [0.7, 0.5, 0.6], [0.2, 0.2, 0.1], 0.25, network="student")
    return path


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

    name, components, cached, input_px = "counting", None, True, None

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
    measures = dict(zip(NAMES, measure(benchmark.crops).T, strict=True))
    round_ = benchmark.labels == "round"
    assert measures["eccentricity"][round_].mean() < 0.5
    assert measures["eccentricity"][~round_].mean() > 0.85
    assert measures["area"][round_].mean() == pytest.approx(np.pi * 9**2, rel=0.2)
    assert 40 <= len(measures) <= 80
    for blank in (0, 255):
        assert np.isfinite(measure(np.full((2, 40, 40, 3), blank, np.uint8))).all()


def test_bad_encoders_say_why(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="neither a baseline nor a path; there are pixels"):
        find_folder("vit_huge")
    with pytest.raises(ValueError, match="no kind of encoder 'swin'"):
        find_folder("swin:weights")
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
    features = np.random.default_rng(0).normal(size=(120, 6)).astype(np.float32)
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
    from shards.mix.mix import mix

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
    assert "own, 216 nuclei of 218 (not used: " in printed
    assert "2 classes, AUPR of round; 5 stratified folds" in printed
    assert "5 folds that keep each group whole (6 groups)" in printed
    rows = read_rows(out)
    assert len(rows) == 2 * 2 * 5 * (len(METRICS) + 2)  # and ECE, k-NN
    mean = np.mean([
        row["value"] for row in rows
        if row["encoder"] == "morphology" and row["metric"] == "balanced accuracy"
    ])  # fmt: skip
    assert mean > 0.95
    lines = (out / "tables" / "intervals--own.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    pattern = r'morphology,grouped,"[\d.]+ \[[\d.]+, [\d.]+\]"'
    assert any(re.match(pattern, line) for line in lines)
    assert len((out / "tables" / "classes--own.csv").read_text().splitlines()) == 1 + 2 * 2 * 2
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
    # beside the verdict, the map, the benchmark's sheet, the cells', the extra
    assert parsed.tags.count("img") == 5
    assert parsed.tags.count("table") == 4  # both folds; intervals, classes
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
