"""The paper's tables from results, and results folders that several tasks write at once."""

import csv
import io
import json
import multiprocessing

import numpy as np
import pytest

from evaluate import main
from evaluate.probes.metrics import METRICS
from evaluate.results import is_done, read_rows, store, write_views
from evaluate.tables import paper


def facts(sha: str = "x", regression: bool = False) -> dict:
    """Facts of a benchmark, as far as tables need them."""
    return {
        "sha256": sha, "protocol": {"folds": 2}, "nuclei": 10, "classes": {"a": 5, "b": 5},
        "positive": "b", "groups": 2, "group_kind": "slide", "notes": [],
        **({"targets": ["G1"], "classes": {}, "positive": None} if regression else {}),
    }  # fmt: skip


def put(out, name: str, encoder: str, value: float, split: str = "stratified", sha="x") -> None:
    """Store two folds of an encoder, value ± 0.01 in every metric."""
    pearson = split in ("slide", "patient")
    rows = [
        {"split": split, "fold": fold, "metric": metric, "value": value + 0.01 * (2 * fold - 1)}
        for fold in range(2)
        for metric in (("Pearson",) if pearson else METRICS)
    ]
    store(out, name, facts(sha, pearson), encoder, {"name": encoder}, rows)


@pytest.fixture
def results(tmp_path):
    """Results on three of the paper's benchmarks and on one it has not, in two folders."""
    a, b = tmp_path / "a", tmp_path / "b"
    put(a, "midog25", "resnet18", 0.5804)
    put(a, "midog25", "mine", 0.7501)
    put(a, "midog25", "untrained", 0.55)
    put(b, "hest-lung", "mine", 0.13, "slide")
    put(b, "hest-lung", "resnet18", 0.09, "slide")
    put(b, "consep", "mine", 0.7)
    put(b, "consep", "resnet18", 0.7)
    return [a, b]


def test_layout_is_the_papers(results):
    tables = paper.layouts(results, ["1", "10", "11", "12"])
    assert [t.title.split(":")[0] for t in tables] == ["Table 1", "Table 11", "consep"]
    lines = paper.markdown(tables).splitlines()
    cells = [[c.strip() for c in line.strip("| ").split("|")] for line in lines]
    assert cells[2] == [
        "MIDOG25 (majority) bal acc", "HEST-Lung pcc", "consep bal acc"
    ]  # fmt: skip
    first = lines[: lines.index("", 3)]
    assert [line.split("|")[1].strip() for line in first if line.startswith("| *")] == [
        "*Baselines*", "*Natural images TL*", "*Cell level FM*"
    ]  # fmt: skip
    mine = next(line for line in first if line.startswith("| mine"))
    assert mine.count("**") == 6  # best of all three; consep's is shared
    resnet = next(line for line in first if line.startswith("| ImageNet (ResNet-18)"))
    assert "0.580 (0.014)" in resnet and "**0.700 (0.014)**" in resnet and resnet.count("**") == 2
    untrained = next(line for line in first if line.startswith("| untrained"))
    assert untrained.count("–") == 2


def test_the_papers_numbers_stand_beside_ours(results):
    tables = paper.layouts(results, ["1", "12"], paper=True)
    rows = list(csv.DictReader(io.StringIO(paper.comma_separated(tables))))
    found = {
        (r["table"][:8], r["encoder"], r["benchmark"], r["metric"], r["source"]): r for r in rows
    }
    key = ("Table 1:", "lemon", "midog25", "balanced accuracy", "paper")
    assert (found[key]["mean"], found[key]["sd"], found[key]["best"]) == ("0.746", "0.015", "1")
    assert found[("Table 1:", "resnet18", "midog25", "balanced accuracy", "ours")]["best"] == "0"
    assert ("Table 12", "h-optimus-0", "pannuke", "AUPR", "paper") in found
    text = paper.latex(tables)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{table}") == 3
    assert r"\multicolumn{2}{c}{MIDOG25 (majority)}" in text
    assert r"\textbf{0.746 (0.015)}" in text
    for table in text.split(r"\begin{tabular}{l")[1:]:  # as many cells as columns
        columns = table.index("}")
        rows = [line for line in table.splitlines() if line.startswith(("mine", "LEMON"))]
        assert rows and {row.count("&") for row in rows} == {columns}


@pytest.mark.parametrize(
    ("table", "encoder", "column", "cell"),
    [  # read off the paper's pages again, the first, a middle and the last row of each
        ("1", "resnet18", 0, [0.577, 0.008]), ("1", "dinov2-g", 3, [0.164, 0.025]),
        ("1", "h-optimus-0", 2, [0.159, 0.029]), ("1", "lemon", 4, [0.128, 0.028]),
        ("10", "resnet50", 0, [0.891, 0.004]), ("10", "lemon", 4, [0.816, 0.005]),
        ("11", "volta", 2, [0.726, 0.01]), ("11", "lemon", 2, [0.741, 0.02]),
        ("12", "uni", 1, [0.689, 0.005]), ("12", "lemon", 3, [0.66, 0.007]),
    ],
)  # fmt: skip
def test_transcription(table, encoder, column, cell):
    data = json.loads(paper.DATA.read_text())["tables"][table]
    assert data["rows"][encoder][column] == cell
    assert len(data["rows"]) == 11 and {len(row) for row in data["rows"].values()} == {5}


def test_what_belongs_in_no_one_table_is_refused(results, tmp_path):
    put(tmp_path / "c", "midog25", "other", 0.5, sha="y")
    with pytest.raises(ValueError, match="c holds midog25 of other nuclei"):
        paper.layouts([*results, tmp_path / "c"], ["1"])
    put(tmp_path / "d", "midog25", "mine", 0.5)
    with pytest.raises(ValueError, match="mine on midog25 is in"):
        paper.layouts([*results, tmp_path / "d"], ["1"])
    with pytest.raises(ValueError, match="no table 7; there are 1, 10, 11, 12"):
        paper.layouts(results, ["7"])
    with pytest.raises(ValueError, match="no results for these tables"):
        paper.layouts([results[1]], ["12"], grouped=True)
    with pytest.raises(FileNotFoundError):
        paper.layouts([tmp_path / "no"], ["1"])


def test_the_command(results, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["table", *map(str, results), "--out", str(out), "--paper"]
    assert main.main(words) == 0
    assert "LEMON-MoCov3 (ViT-s/8)" in capsys.readouterr().out
    assert all((out / f"paper.{kind}").stat().st_size for kind in ("md", "csv", "tex"))


# Results folders


def task(out, number: int) -> None:
    """Store five encoders' results, a task's share."""
    for i in range(5):
        put(out, "midog25", f"e{number}-{i}", 0.5 + 0.01 * i)


def test_tasks_write_one_folder_at_once_and_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=task, args=(tmp_path, n)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert len(read_rows(tmp_path)) == 4 * 5 * 2 * len(METRICS)
    with open(tmp_path / "probe.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * 5 * 2 * len(METRICS)
    listed = json.loads((tmp_path / "probe.json").read_text())["encoders"]["midog25"]
    assert len(listed) == 20


def test_a_table_without_what_it_is_made_of_is_not_written_over(tmp_path):
    (tmp_path / "probe.csv").write_text("encoder,benchmark,split,fold,metric,value\n")
    with pytest.raises(ValueError, match=r"probe\.csv without the probes/ it is made of"):
        read_rows(tmp_path)
    with pytest.raises(ValueError, match=r"probe\.csv without the probes/ it is made of"):
        write_views(tmp_path)


def test_done_is_what_agrees_in_nuclei_protocol_and_encoder(tmp_path):
    put(tmp_path, "consep", "mine", 0.6)
    assert is_done(tmp_path, "consep", facts(), "mine", {"name": "mine"})
    assert not is_done(tmp_path, "consep", facts("y"), "mine", {"name": "mine"})
    assert not is_done(tmp_path, "consep", facts(), "mine", {"name": "mine", "sha256": 1})
    assert not is_done(tmp_path, "consep", facts(), "other", {"name": "mine"})


def test_checkpoints_in_shares_then_skipped_then_anew(own, tmp_path, caplog):
    from train.encoder import build_encoder, save_encoder

    for number in range(2):
        folder = tmp_path / f"run{number}" / "encoder"
        model = build_encoder("vit_ti8", 40, seed=number)
        save_encoder(model, folder, [0.6] * 3, [0.2] * 3, 0.25)
    out = tmp_path / "results"
    words = ["probe", "--benchmark", str(own), "--out", str(out), "--bootstrap", "0"]
    words += ["--knn", "0", "--encoder", str(tmp_path / "run0"), str(tmp_path / "run1")]
    for part in range(2):
        assert main.main([*words, "--part", str(part), "--parts", "2"]) == 0
    assert {row["encoder"] for row in read_rows(out)} == {"run0", "run1"}
    before = {p: p.read_bytes() for p in (out / "probes").rglob("*.json")}
    caplog.set_level("INFO")
    assert main.main(words) == 0
    assert caplog.text.count("done before, skipped") == 2
    caplog.clear()
    assert main.main([*words, "--overwrite"]) == 0
    assert "skipped" not in caplog.text
    for path, data in before.items():
        old, new = json.loads(data), json.loads(path.read_text())
        assert old["rows"] == new["rows"]
    values = [row["value"] for row in read_rows(out)]
    assert np.isfinite(values).all()
