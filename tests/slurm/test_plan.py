"""What is submitted, from what is on disk and in the queue; without a SLURM, and quick."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slurm.jobs import array, first_error, read_accounting, read_queue
from slurm.settings import read_settings

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
    )
    tasks = read_queue(text, "abc123")
    assert [(t.stage, t.unit, t.job, t.waits) for t in tasks] == [
        ("extract", 12, "7", False),
        ("extract", 13, "7", True),
        ("train", 0, "9", True),
    ]


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


def example() -> dict[str, str]:
    """Return the example's settings, as bash reads them."""
    script = f'set -a; . {ROOT}/slurm/settings.sh; exec {sys.executable} -c "$1"'
    dump = "import json, os; print(json.dumps(dict(os.environ)))"
    run = ["bash", "-c", script, "bash", dump]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


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


def test_simulation_ends_complete():
    command = [sys.executable, ROOT / "slurm" / "simulate.py", "--slides", "60", "--per-task", "3"]
    flags = ["--failures", "0.05", "--preemptions", "0.2", "--seed", "3"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    found = re.search(
        r"60 slides complete after (\d+) submissions .* (\d+) tried, 0 lost, 0", last
    )
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
