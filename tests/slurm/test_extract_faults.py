"""What clusters do to an array of extract: nothing lost, nothing doubled, the same bytes after."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]
AGAIN = {"admit": "-", "sort": "0-1", "write": "0-1", "join": "-"}  # behind a part done again


def scontrol(*words: str) -> str:
    """Run scontrol."""
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True).stdout


def same_as(campaign, finished) -> None:
    """See that a campaign's cells and shards are those of the undisturbed one."""
    assert campaign.cells() == finished.cells(), campaign.logs()
    assert campaign.shards() == finished.shards()


def test_killed_task(begin, finished, wait_for):
    campaign = begin(STAGES="extract mix")
    campaign.submit()
    wait_for(lambda: (campaign.out / "cells/PAINTED-0001.json").exists(), 60, "a slide of part 0")
    campaign.kill(signal.SIGKILL, "extract", 0)
    campaign.finish()  # what waited for it is gone too
    assert not (campaign.out / "cohort.json").exists()
    assert not (campaign.out / "shards").exists()
    status = campaign.status()
    assert status.returncode == 1
    assert "extract --array=0" in status.stdout, status.stdout
    assert "0: it was killed: its log has no end" in status.stdout
    assert "slides failed, TOLERATED_SLIDES allow 0" in status.stdout  # of admit
    assert campaign.submitted() == {"extract": "0", **AGAIN}
    campaign.finish()
    same_as(campaign, finished)
    assert campaign.status().returncode == 0


@pytest.fixture
def hoverfast(tmp_path) -> tuple[str, Path]:
    """Extract's flags for a stand-in that hangs on the slides named by files in a folder."""
    hang = tmp_path / "hang"
    hang.mkdir()
    script = tmp_path / "hoverfast.sh"
    script.write_text(
        '#!/bin/bash\nfor last; do :; done\nname=$(basename "$last" .tiff)\n'
        f'[ -e "{hang}/$name" ] && exec sleep 600\n'
        f'exec {sys.executable} {ROOT}/tests/extract/hoverfast_stand_in.py fine "$@"\n'
    )
    command = shlex.quote(f"bash {script}")  # of several words, as `apptainer exec … HoverFast` is
    return f"--segmenter hoverfast --hoverfast-command {command} --hoverfast-model m.pth", hang


@pytest.fixture
def one_machine(hoverfast, slides, run_stage, cells_of, tmp_path):
    """The cells that extract makes with the stand-in, without SLURM."""
    out = tmp_path / "one"
    flags = shlex.split(hoverfast[0])
    done = run_stage("extract/main.py", slides / "slides.csv", "--out", out, *flags)
    assert done.returncode == 0, done.stderr
    return cells_of(out)


def test_hanging_slide(begin, hoverfast, one_machine):
    flags, hang = hoverfast
    (hang / "PAINTED-0003").touch()
    flags += " --hoverfast-stall 5"
    strict = begin(STAGES="extract mix", EXTRACT_FLAGS=flags)
    lenient = begin(STAGES="extract mix", EXTRACT_FLAGS=flags, TOLERATED_SLIDES="20%")
    strict.submit()
    lenient.submit()
    strict.finish()
    lenient.finish()
    # One slide of six is too many for the one, and the other goes on without it.
    status = strict.status().stdout
    assert "2: PAINTED-0003: HoverFast" in status, status
    assert "extract --array=2\n" in status
    assert not (strict.out / "shards").exists()
    assert "1 of 6 slides failed, TOLERATED_SLIDES allow 1: the cohort is closed" in lenient.logs()
    made = one_machine.keys() - {f"PAINTED-0003.{kind}" for kind in ("tar", "parquet")}
    assert {name: lenient.cells()[name] for name in made - {"PAINTED-0003.json"}} == {
        name: one_machine[name] for name in made - {"PAINTED-0003.json"}
    }
    assert (lenient.out / "shards/dataset.json").exists()
    assert lenient.submitted() == {}  # and it is not tried again for ever
    # The file system is well again.
    (hang / "PAINTED-0003").unlink()
    assert strict.submitted() == {"extract": "2", **AGAIN}
    strict.finish()
    assert strict.cells() == one_machine


def test_time_limit(begin, hoverfast, one_machine, wait_for):
    """A task that gets on is started again; one that does not ends."""
    flags, hang = hoverfast
    for slide in ("PAINTED-0003", "PAINTED-0004", "PAINTED-0006"):
        (hang / slide).touch()
    flags += " --hoverfast-stall 500"
    campaign = begin(STAGES="extract", EXTRACT_FLAGS=flags, EXTRACT_TIME="2", EXTRACT_AT_ONCE=3)
    campaign.submit()
    for unit in ("extract-0", "extract-2"):
        wait_for(lambda unit=unit: "time limit is near" in campaign.log(unit), 200, unit)
    for slide in hang.iterdir():
        slide.unlink()
    campaign.finish()
    assert "1 slides done: to be started again" in campaign.log("extract-0")
    for unit in ("extract-0", "extract-1"):  # a task starts itself again, not the whole array
        log = campaign.log(unit)
        assert log.count("== job") == 1 + log.count("to be started again"), log
    assert "no slide was finished within" in campaign.log("extract-2")
    assert campaign.log("extract-2").count("== job") == 1
    assert "2: == error: no slide" in campaign.status().stdout, campaign.status().stdout
    assert campaign.submitted() == {"extract": "2"}
    campaign.finish()
    assert campaign.cells() == one_machine


def test_node_down(begin, finished, wait_for):
    campaign = begin(STAGES="extract mix", EXTRACT_CPUS=8)  # a node each
    campaign.submit()
    wait_for(lambda: "on node2" in campaign.logs(), 60, "a task on node2")
    unit = next(n for n in (0, 1, 2) if "on node2" in campaign.log(f"extract-{n}"))
    task = f"{campaign.job('extract')}_{unit}"
    scontrol("update", "nodename=node2", "state=down", "reason=test")
    wait_for(lambda: f"extract {unit} PENDING" in campaign.live(), 60, "the task to be queued")
    assert campaign.submitted() == {}
    scontrol("update", f"jobid={task}", "starttime=now")  # after a node's loss SLURM waits
    wait_for(lambda: "start 2" in campaign.log(f"extract-{unit}"), 60, "the task elsewhere")
    campaign.finish()
    assert campaign.log(f"extract-{unit}").count("== job") == 2
    same_as(campaign, finished)


def test_controller_killed(begin, finished, cluster, wait_for):
    campaign = begin(STAGES="extract mix")
    campaign.submit()
    wait_for(lambda: "== job" in campaign.log("extract-0"), 60, "the first task")
    os.kill(int((cluster / "run" / "slurmctld.pid").read_text()), signal.SIGKILL)
    jobs = (campaign.out / "jobs.tsv").read_text()
    refused = campaign.submit()
    assert refused.returncode == 2
    assert "SLURM does not answer, nothing was submitted" in refused.stderr
    assert (campaign.out / "jobs.tsv").read_text() == jobs
    subprocess.run(
        [Path(__file__).with_name("cluster.sh"), "up", cluster],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    # It may have forgotten what was submitted in its last seconds, have run again what ran already,
    # given an id twice, and hold the task that a node refused for it. submit.sh is the cure.
    for _ in range(8):
        assert campaign.submit().returncode == 0
        live = [line.rsplit(" ", 1)[0] for line in campaign.live()]
        assert len(live) == len(set(live))  # nothing is queued twice
        wait_for(lambda: not campaign.live() or campaign.held(), 300, "the end or a hold")
        # A task may be held whose work another has done: it waits for submit.sh all the same.
        if not campaign.live() and (campaign.out / "shards" / "dataset.json").exists():
            break
    campaign.finish()
    same_as(campaign, finished)
