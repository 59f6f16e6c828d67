"""What is submitted, from what is on disk and in the queue; without a SLURM, and quick."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.campaign import Campaign, check_probe
from slurm.jobs import Task, array, first_error, read_accounting, read_queue
from slurm.plan import plan
from slurm.settings import check_settings, read_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("units", "expression"),
    [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([9, 1, 2, 4], "1-2,4,9"), ([0, 2, 4], "0,2,4")],
)
def test_array_expression(units, expression):
    assert array(units) == expression


def test_queue_tells_this_campaigns_jobs_from_others():
    text = (
        "lemon-abc123-extract|7|12|RUNNING|None\n"
        "lemon-abc123-extract|7|13|PENDING|JobArrayTaskLimit\n"
        "lemon-abc123-train|9|N/A|PENDING|Dependency\n"
        "lemon-ffffff-train|10|N/A|RUNNING|None\n"
        "my|job|11|N/A|RUNNING|None\n"
        "CLUSTER: far\n\n"
    )
    tasks = read_queue(text, "abc123")
    assert [(t.stage, t.unit, t.job, t.waits) for t in tasks] == [
        ("extract", 12, "7", False),
        ("extract", 13, "7", True),
        ("train", 0, "9", True),
    ]


def example() -> dict[str, str]:
    """Return the example's settings, as bash reads them."""
    script = f'set -a; . {ROOT}/slurm/settings.sh; exec {sys.executable} -c "$1"'
    dump = "import json, os; print(json.dumps(dict(os.environ)))"
    run = ["bash", "-c", script, "bash", dump]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.fixture
def campaign():
    """A campaign of three parts, of which nothing is on disk."""
    settings = read_settings(example() | {"STAGES": "extract mix"})
    return Campaign(settings, "abc123", ["a", "b", "c"], 3)


ALL = {"extract": {0, 1, 2}, "admit": {0}, "sort": {0, 1}, "write": {0, 1}, "join": {0}}


def planned(campaign, missing: dict[str, set[int]], *tasks: Task) -> tuple[list[str], list[str]]:
    """Plan with what is missing on disk and what is queued."""
    units = {job: {"missing": missing.get(job, set()), "done": set()} for job in campaign.chain}
    return plan(campaign, units, list(tasks))


def waiting(job: str, unit: int, number: str) -> Task:
    """Return a task that is queued."""
    return Task(job, unit, number, "PENDING", "Dependency")


def test_only_the_missing_parts_are_submitted_behind_what_runs(campaign):
    lines, _ = planned(campaign, ALL, Task("extract", 1, "7", "RUNNING", "None"))
    assert lines[:2] == ["extract 0,2 7 2", "admit - - 1"]  # admit waits for job 7 as well


def test_what_waits_for_too_little_is_submitted_anew(campaign):
    queued = [waiting("admit", 0, "8"), waiting("sort", 0, "9"), waiting("sort", 1, "9")]
    lines, _ = planned(campaign, ALL, waiting("extract", 0, "7"), *queued)
    assert lines[:4] == ["cancel 8 - -", "cancel 9 - -", "extract 1-2 7 2", "admit - - 1"]


def test_what_has_begun_further_down_ends_first(campaign):
    lines, remarks = planned(campaign, ALL, Task("admit", 0, "8", "RUNNING", "None"))
    assert lines == []
    assert "extract: 3 missing, but admit (8) is running" in remarks[0]


def test_what_is_queued_is_left_alone_and_the_rest_comes_behind_it(campaign):
    tasks = [waiting("extract", n, "7") for n in range(3)] + [waiting("admit", 0, "8")]
    lines, _ = planned(campaign, ALL, *tasks)
    assert lines[:3] == ["extract none 7 0", "admit none 8 0", "sort 0-1 - 2"]


def test_what_slurm_holds_is_released(campaign):
    held = Task("extract", 1, "7", "PENDING", "launch failed requeued held")
    lines, _ = planned(campaign, ALL, held)
    assert lines[:2] == ["release 7_1 - -", "extract 0,2 7 2"]


def test_what_is_done_is_passed_over(campaign):
    lines, _ = planned(campaign, {"write": {1}, "join": {0}})
    assert lines == ["write 1 - 1", "join - - 1"]


def test_accounts_give_the_last_state():
    text = (
        "lemon-abc123-extract|7_3|TIMEOUT\nlemon-abc123-extract|9_3|CANCELLED by 0\n"
        "lemon-abc123-train|10|OUT_OF_MEMORY\n"
    )
    states = read_accounting(text)
    assert states == {("extract", 3): "CANCELLED", ("train", 0): "OUT_OF_MEMORY"}


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        ("0 failed\n== end 0, now\n", None),
        ("Traceback\nValueError: what it was\n== end 1, now\n", "ValueError: what it was"),
        ("srun: error: node1: exited\nerror: the cause\n== end 2, now\n", "error: the cause"),
        ("all well so far\n", "it was killed: its log has no end"),
        ("slurmstepd: error: *** JOB 7 CANCELLED DUE TO TIME LIMIT ***\n", "slurmstepd: error: "),
        ("nothing said\n== end 3, now\n", "it ended with exit code 3"),
    ],
)
def test_first_error_is_of_the_last_attempt(tmp_path, attempt, reason):
    log = tmp_path / "extract-1.log"
    assert first_error(log) is None
    log.write_text(
        f"== job 7_1, start 1\nerror: of before\n== end 1\n== job 9_1, start 1\n{attempt}"
    )
    found = first_error(log)
    assert found == reason or (found and reason and found.startswith(reason))


def test_the_example_is_the_papers_run():
    settings = read_settings(example())
    assert settings.train.steps == 36_600
    assert settings.train.batch == 4096
    assert settings.tolerated(10_000) == 100
    assert len(settings.tasks) == 2


def test_every_missing_and_malformed_setting_is_named():
    given = example() | {"SEED": "one", "MIX_MEMORY": "16G"}
    del given["OUT"]
    with pytest.raises(ValueError, match="OUT is not set") as error:
        read_settings(given)
    assert "SEED=one: a whole number is needed" in str(error.value)
    assert "MIX_MEMORY=16G: a number is needed" in str(error.value)


def test_checkpoints_in_between_are_evaluated_too():
    settings = read_settings(example() | {"EVALUATE_EVERY": "10000", "BENCHMARKS": "/a /b"})
    names = [(name, Path(encoder).name, benchmark) for name, encoder, benchmark in settings.tasks]
    assert names[0] == ("lemon-10000", "step-0010000.pt", "/a")
    assert names[-1] == ("lemon", "lemon", "/b")
    assert len(names) == 2 * 4


SCRIPTS = [*ROOT.glob("*/*.sh"), *ROOT.glob("tests/slurm/*.sh"), *ROOT.glob("slurm/*.sbatch")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n", script], check=True)
    if not shutil.which("shellcheck"):
        (pytest.fail if os.environ.get("LEMON_CI") else pytest.skip)("shellcheck is not installed")
    found = subprocess.run(["shellcheck", "-x", script], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_simulation_ends_complete():
    command = [sys.executable, ROOT / "slurm" / "simulate.py", "--slides", "60", "--per-task", "3"]
    flags = ["--failures", "0.05", "--preemptions", "0.2", "--seed", "3"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.search(r"60 slides complete after (\d+) submissions .* (\d+) tried, 0 lost, 0", last)
    assert found, done.stdout
    assert int(found[1]) > 1
    assert int(found[2]) > 60


def test_the_scale_pages_arithmetic():
    """Each number is what its formula gives, within the digits shown."""
    page = (ROOT / "slurm" / "scale.md").read_text()
    rows = re.findall(r"^\|[^|]*\| `([^`]+)` \| \**([\d.,]+)\**", page, re.M)
    assert len(rows) >= 25
    for formula, shown in rows:
        plain = re.sub(r"(?<=\d),(?=\d{3})", "", formula)
        assert re.fullmatch(r"[\d.e+*/() -]+", plain), formula
        value, number = eval(plain), float(shown.replace(",", ""))
        assert number == pytest.approx(value, rel=0.03), (formula, value, shown)


@pytest.mark.parametrize("program", ["status.py", "admit.py"])
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no campaign; begin one with slurm/submit.sh"),
        ({"campaign.json": '{"id": "a'}, "settings.json"),
        ({"campaign.json": "", "settings.json": "{"}, "settings.json is no JSON"),
    ],
)
def test_a_damaged_campaign_is_a_sentence(tmp_path, program, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, ROOT / "slurm" / program, tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MIX_MEMORY", "nan", "MIX_MEMORY=nan: GB, a number above 0"),
        ("MIX_MEMORY", "inf", "MIX_MEMORY=inf: GB, a number above 0"),
        ("MIX_MEMORY", "-4", "a number above 0"),
        ("EXTRACT_TIME", "12h", "EXTRACT_TIME=12h: a time as sbatch takes it"),
        ("EXTRACT_TIME", "", "a time as sbatch takes it"),
        ("EXTRACT_MEMORY", "48GB", "EXTRACT_MEMORY=48GB: memory as sbatch takes it"),
        ("EXTRACT_FLAGS", "--codec 'png", "No closing quotation"),
        ("SBATCH_FLAGS", "--signal=B:USR1@60", "SBATCH_FLAGS holds --signal=B:USR1@60, which"),
        ("TRAIN_FLAGS", "--lr fast", "invalid float value: 'fast'"),
        ("OUT", "~/out", "an absolute path is needed"),
        ("RUN", "a/b", "letters, digits, _ and - only"),
        ("TOLERATED_SLIDES", "1,5%", "a number of slides, or a share: 1%"),
        ("STAGES", "extract,mix", "the first so many of extract mix train evaluate"),
        ("BENCHMARKS", "/no such", "BENCHMARKS holds /no: no such folder"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, name, value, said):
    given = example() | {"OUT": str(tmp_path / "out"), "SLIDES": str(tmp_path), "BENCHMARKS": ""}
    errors = check_settings(read_settings(given))
    assert not errors
    errors = check_settings(read_settings(given | {name: value}))
    assert said in "\n".join(errors)


def test_benchmarks_are_not_looked_for_where_none_is_evaluated(tmp_path):
    given = example() | {"OUT": str(tmp_path / "out"), "SLIDES": str(tmp_path)}
    assert "BENCHMARKS holds" in "\n".join(check_settings(read_settings(given)))
    assert not check_settings(read_settings(given | {"STAGES": "extract mix train"}))


@pytest.mark.parametrize(
    ("baselines", "flags", "said"),
    [
        ("pixles", "", "no encoder 'pixles': neither a baseline nor a path; there are pixels"),
        ("pixels", "--bootstap 0 --c", "--bootstap"),
    ],
)
def test_a_baseline_misspelt_is_named_before_anything_is_submitted(
    tmp_path, baselines, flags, said
):
    given = example() | {"BASELINES": baselines, "EVALUATE_FLAGS": flags}
    with pytest.raises(ValueError, match=rf"BASELINES={baselines} EVALUATE_FLAGS=.*{said}"):
        check_probe(read_settings(given), tmp_path)
    assert not list(tmp_path.iterdir())
