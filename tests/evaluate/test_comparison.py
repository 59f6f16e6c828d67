"""The tables that compare runs, from results to Markdown and files."""

from pathlib import Path

import numpy as np
import pytest

from evaluate.report.figures import read_entries, read_table
from evaluate.results import store
from evaluate.tables.comparison import compare

VALUES = {
    ("a", "one"): [0.70, 0.72, 0.74],
    ("a", "two"): [0.5, 0.5, 0.5],
    ("b", "one"): [0.60, 0.61, 0.62],
    ("b", "two"): [0.6, 0.7, 0.8],
    ("c", "one"): [0.1, 0.2, 0.3],
}


def write(out: Path, encoder: str, benchmark: str, values: dict[str, list[float]], split: str):
    """Write results as `probe` does."""
    rows = [
        {"split": split, "fold": fold, "metric": metric, "value": value}
        for metric, folds in values.items()
        for fold, value in enumerate(folds)
    ]
    store(out, benchmark, {}, encoder, {}, rows)


@pytest.fixture
def results(tmp_path):
    for (encoder, benchmark), folds in VALUES.items():
        values = {"balanced accuracy": folds, "AUC": [value - 0.05 for value in folds]}
        write(tmp_path, encoder, benchmark, values, "stratified")
    return tmp_path


def test_a_row_per_run_a_column_per_benchmark(results):
    text = compare(results, ["MoCo=a", "b"], "Model", "table6")
    head, rule, *rows = text.splitlines()
    assert [c.strip() for c in head.strip("|").split("|")] == [
        "Model",
        "one bal acc",
        "two bal acc",
    ]
    assert set(rule) == {"|", "-", " "}
    cells = [[c.strip() for c in row.strip("|").split("|")] for row in rows]
    sd = np.std([0.6, 0.7, 0.8], ddof=1)
    assert cells == [
        ["MoCo", "**0.720 (0.020)**", "0.500 (0.000)"],
        ["b", "0.610 (0.010)", f"**0.700 ({sd:.3f})**"],
    ]
    (exhibit,) = read_entries(results)
    assert exhibit.best == {"one bal acc": "max", "two bal acc": "max"}
    header, written = read_table(results / "tables/table6.csv")
    assert header[0] == "Model"
    assert written[0] == ["MoCo", "0.720 (0.020)", "0.500 (0.000)"]


def test_only_benchmarks_of_all_rows_and_other_metrics(results):
    text = compare(results, ["a", "c"], "Augmentations", "table2", {"AUC": "stratified"})
    assert "two" not in text
    assert "| a " in text
    assert "**0.670 (0.020)**" in text
    with pytest.raises(ValueError, match="balanced accuracy or slide Pearson of 'd'; it holds a"):
        compare(results, ["a", "d"], "Model", "x")
    with pytest.raises(ValueError, match="no grouped"):
        compare(results, ["a"], "Model", "x", {"AUC": "grouped"})


def test_runs_of_several_seeds_in_one_row(results):
    write(results, "x,y", "one", {"balanced accuracy": [0.4, 0.6]}, "stratified")
    text = compare(results, ["all=a,b,c", "a", "x,y"], "Model", "seeds")
    rows = [[c.strip() for c in row.strip("|").split("|")] for row in text.splitlines()[2:]]
    means = np.array([0.72, 0.61, 0.2])
    error = np.sqrt(((means - means.mean()) ** 2).sum() / 2 / 3)
    assert rows == [
        ["all", f"{means.mean():.3f} ({error:.3f})"],
        ["a", "**0.720 (0.020)**"],
        ["x,y", "0.500 (0.141)"],  # a name with a comma, of one run
    ]
    (entry,) = read_entries(results)
    assert "(standard error) over runs" in entry.caption
    with pytest.raises(ValueError, match="of 'd'; it holds a"):
        compare(results, ["all=a,d"], "Model", "seeds")


def test_a_regression_is_a_column_of_its_own_metric(results):
    for encoder in "ab":
        write(results, encoder, "hest", {"Pearson": [0.1, 1.1]}, "slide")
    head, _, row, _ = compare(results, ["a", "b"], "Augmentations", "table2").splitlines()
    assert head.split("|")[-2].strip() == "hest pcc"
    assert row.split("|")[-2].strip() == "**0.600 (0.707)**"


def test_the_command(run_stage, results):
    done = run_stage("evaluate/main.py", "compare", results, "--rows", "MoCo=a", "--name", "t")
    assert done.returncode == 0, done.stderr
    assert "**0.720 (0.020)**" in done.stdout
    assert (results / "tables/t.md").is_file()
    for flags, message in (["--metric", "F2"], "F2 of 'a'"), (["--name", "a/b"], "names no file"):
        done = run_stage("evaluate/main.py", "compare", results, "--rows", "a", *flags)
        assert done.returncode == 2
        assert message in done.stderr
