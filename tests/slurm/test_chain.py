"""The whole chain on a real SLURM, undisturbed; what is refused; nothing is submitted twice."""

import csv
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.slurm


def test_the_chain_ends_in_a_report(finished, slides):
    assert not finished.status().returncode, finished.status().stdout + finished.logs()
    with open(finished.out / "results" / "probe.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["encoder"] for row in rows} == {"morphology", "tiny", "tiny-12"}
    assert {row["benchmark"] for row in rows} == {"painted-nuclei"}
    assert (finished.out / "report.html").stat().st_size > 10_000
    assert finished.steps() == list(range(1, 25))
    assert json.loads((finished.out / "runs/tiny/config.json").read_text())["ranks"] == 2


def test_every_job_is_submitted_once(finished):
    assert finished.first == {
        "extract": "0-2",
        "admit": "-",
        "sort": "0-1",
        "write": "0-1",
        "join": "-",
        "train": "-",
        "embed": "0-1",
        "report": "-",
    }
    assert finished.second.returncode == 0
    assert "nothing to submit" in finished.second.stdout
    assert finished.submitted() == {}  # when all is done, either


def test_cells_and_shards_are_those_of_one_machine(finished, slides, run_stage, tmp_path, cells_of):
    one = run_stage("extract/main.py", slides / "slides.csv", "--out", tmp_path / "cells")
    assert one.returncode == 0, one.stderr
    assert finished.cells() == cells_of(tmp_path / "cells")
    flags = ("--samples-per-shard", 100, "--memory", 0.01)
    one = run_stage(
        *("shards/main.py", "mix", tmp_path / "cells", "--out", tmp_path / "shards", *flags)
    )
    assert one.returncode == 0, one.stderr
    for path in [*(tmp_path / "shards").glob("train-*.tar"), tmp_path / "shards" / "index.parquet"]:
        assert path.read_bytes() == (finished.out / "shards" / path.name).read_bytes()


def test_a_dry_run_writes_and_submits_nothing(begin):
    campaign = begin()
    done = campaign.submit("--dry-run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sbatch --parsable") == 8
    assert "--array=0-2%2" in done.stdout
    assert "--dependency=afterok:<sort> --kill-on-invalid-dep=yes" in done.stdout
    assert not campaign.out.exists()
    assert not subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout


WRONG = {
    "SLIDES": ("/nowhere/slides.csv", "no such file"),
    "EXTRACT_AT_ONCE": ("many", "whole number"),
    "EXTRACT_MEMORY": ("48 GB", "as sbatch takes it"),
    "TRAIN_TIME": ("1 day", "as sbatch takes it"),
    "TOLERATED_SLIDES": ("few", "a share: 1%"),
    "TRAIN_FLAGS": ("--batch 16 --epochs 1 --hiden 64", "--hiden"),
    "TRAIN_GPUS": ("3", "one process a GPU"),
    "EXTRACT_FLAGS": ("--out elsewhere", "recipes set themselves"),
    "BENCHMARKS": ("/nowhere/nucls", "no such folder"),
    "STAGES": ("train evaluate", "the first so many"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_refused_and_named(begin, name):
    value, reason = WRONG[name]
    refuse(begin(**{name: value}), [(name, reason)])


def test_all_wrong_settings_are_named_at_once(begin):
    wrong = {k: v for k, v in WRONG.items() if k != "EXTRACT_AT_ONCE"}  # numbers are read first
    campaign = begin(**{name: value for name, (value, _) in wrong.items()})
    refuse(campaign, [(name, reason) for name, (_, reason) in wrong.items()])


def refuse(campaign, reasons: list[tuple[str, str]]) -> None:
    """See that submit.sh names what is wrong, and leaves the disk and the queue alone."""
    done = campaign.submit()
    assert done.returncode == 2
    for name, reason in reasons:
        assert any(
            line.startswith(f"error: {name}") and reason in line
            for line in done.stderr.splitlines()
        ), done.stderr
    assert not (campaign.out / "campaign.json").exists()
    assert not subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"EXTRACT_FLAGS": "--segmenter stardist"}, "EXTRACT_FLAGS=--segmenter stardist"),
        ({"MIX_PARTS": 1002}, "MIX_PARTS make an array of 1,002 tasks"),
        ({"SLIDES_FLAGS": "--mpp -1"}, "--mpp -1"),
    ],
)
def test_what_only_stages_and_the_cluster_know_is_refused_too(begin, changes, reason):
    refuse(begin(**changes), [("", reason)])


def test_a_refused_submission_leaves_nothing_that_refuses_the_next(begin):
    campaign = begin(STAGES="extract", GPU_PARTITION="gpus")
    done = campaign.submit()
    assert done.returncode == 2
    assert "sinfo shows no partition 'gpus' (it shows cpu, gpu, high)" in done.stderr
    assert "error: sbatch refused extract" in done.stderr
    text = campaign.settings.read_text()
    for name, value in {"GPU_PARTITION": "gpu,high", "SLIDES_PER_TASK": "3"}.items():
        text += f'{name}="{value}"\n'
    campaign.settings.write_text(text)
    assert campaign.submitted() == {"extract": "0-1"}


def test_another_experiment_in_the_same_folder_is_refused(branch, begin):
    campaign = branch(SLIDES_PER_TASK=3)
    done = campaign.submit()
    assert done.returncode == 2
    assert "SLIDES_PER_TASK was 2, is 3" in done.stderr


def test_two_submits_at_once_submit_once(begin):
    campaign = begin(STAGES="extract", EXTRACT_TIME="10")
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: campaign.submit(), range(3)))
    assert {d.returncode for d in done} <= {0, 2}
    refused = [d for d in done if d.returncode]
    assert all("another submit.sh is at work" in d.stderr for d in refused)
    assert len((campaign.out / "jobs.tsv").read_text().splitlines()) == 1
