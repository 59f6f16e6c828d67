"""Composition grids: which jobs, done once, errors in words, and a figure from real runs."""

import csv
import json

import numpy as np
import pytest

from evaluate import main
from evaluate.analyses.composition import Job, check_grid, grid
from evaluate.analyses.composition_report import mean_and_error, write_composition


def test_the_grid_holds_both_rows_and_no_impossible_point():
    jobs = grid([100, 1000], ["vit_s8", "vit_b8"], [1, 5], [1, 3], 100, 2)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 2 * 2 * 2 + 3 * 2  # 3 projects of 1 slide: none
    assert "vit_s8-100cells-5slides-3projects-r1" in names
    assert not any("1slides-3projects" in name for name in names)
    parts = [jobs[i::3] for i in range(3)]
    assert sorted(job.name for part in parts for job in part) == sorted(names)
    with pytest.raises(ValueError, match="give --cells-fixed"):
        grid([], ["vit_s8"], [1], [], None, 1)
    with pytest.raises(ValueError, match="an empty grid"):
        grid([], ["vit_s8"], [], [], None, 1)


def test_more_than_there_is_is_seen_before_any_work(cells):
    with pytest.raises(ValueError, match=r"3 slides are asked for, .* holds 2"):
        check_grid([Job(10, 3, None, "vit_s8", 0)], cells)
    with pytest.raises(ValueError, match="1,000,000 cells are asked for"):
        check_grid([Job(1_000_000, None, None, "vit_s8", 0)], cells)


def test_the_standard_error_is_over_repeats_else_over_folds():
    rng = np.random.default_rng(0)
    repeats = list(rng.random((3, 2, 5)))
    means = [r.mean() for r in repeats]
    mean, error = mean_and_error(repeats, True)
    assert np.isclose(mean, np.mean(repeats))
    assert np.isclose(error, np.std(means, ddof=1) / np.sqrt(3))
    folds = repeats[0].mean(axis=0)
    assert np.isnan(mean_and_error(repeats[:1], True)[1])
    assert np.allclose(
        mean_and_error(repeats[:1], False), (folds.mean(), folds.std(ddof=1) / np.sqrt(5))
    )


def test_the_figure_of_jobs_as_they_get_done(tmp_path):
    jobs = grid([100, 1000], ["vit_s8"], [1, 2], [1], 100, 2)
    assert write_composition(tmp_path, jobs) is None
    for i, job in enumerate(jobs):
        rows = [
            {"split": "stratified", "fold": f, "metric": "balanced accuracy", "value": i / 10}
            for f in range(2)
        ]
        pair = {"encoder": job.name, "benchmark": "b", "facts": {}, "manifest": {}, "details": {}}
        path = tmp_path / "probes" / "b" / f"{job.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(pair | {"rows": rows}))
    with open(write_composition(tmp_path, jobs)) as file:
        table = list(csv.DictReader(file))
    means = [0.05, 0.25, 0.45, 0.65]
    assert [row["b"] for row in table] == [f"{mean:.3f} (0.050)" for mean in means]
    assert [(row["cells"], row["slides"]) for row in table[:3]] == [
        ("100", "all"), ("1000", "all"), ("100", "1")
    ]  # fmt: skip
    facts = json.loads((tmp_path / "figures" / "composition.json").read_text())
    assert (
        "from 100 to 1,000 cells: 0.050 to 0.250; from 1 to 2 slides: 0.450 to 0.650"
        in (facts["headline"])
    )


def test_a_job_from_cells_to_its_point_and_not_again(cells, own, tmp_path, capsys):
    command = ["composition", str(cells), "--benchmark", str(own), "--encoders", "vit_ti8"]
    command += ["--sizes", "60", "--out", str(tmp_path), "--probe", "--knn 0 --bootstrap 0"]
    train = "--batch 16 --epochs 1 --epoch-samples 32 --warmup-epochs 0.5 --hidden 64 --workers 0"
    wrong = [*command, "--train", "--batch 16 --policy none"]
    assert main.main(wrong) == 1
    said = capsys.readouterr().err
    assert "1 of 1 jobs failed" in said and "train ended with 2" in said
    assert "--policy none: there are" in said
    assert main.main([*command, "--train", train]) == 0
    assert "60" in capsys.readouterr().out
    job = "vit_ti8-60cells-r0"
    assert (tmp_path / "figures" / "composition.svg").is_file()
    assert not (tmp_path / "shards" / job).exists()
    config = json.loads((tmp_path / "runs" / job / "config.json").read_text())
    assert "60" in json.dumps(config)
    log = (tmp_path / "logs" / f"{job}.log").read_text()
    assert main.main([*command, "--train", train]) == 0
    assert (tmp_path / "logs" / f"{job}.log").read_text() == log  # nothing was run again
    assert main.main([*command, "--train", train + " --lr 1"]) == 2
    assert "a grid whose train was" in capsys.readouterr().err
