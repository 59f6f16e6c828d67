"""Whole training runs under torchrun: ranks, resuming, kills, signals, bad input."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from train import checkpoint

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = Path(sys.executable).with_name("torchrun")
# Small, but not so small that batch norm and Adam turn rounding into chaos within 10 steps.
SETTINGS = """
    --encoder vit_ti8 --batch 12 --epoch-samples 120 --epochs 1 --warmup-epochs 0.25 --hidden 64
    --projection 32 --lr 0.002 --precision fp32 --workers 0 --log-every 1 --checkpoint-every 4
""".split()
STEPS = 10


def command(shards: Path, out: Path, *flags: object, ranks: int = 1) -> list[str]:
    """Return the command of a run of 10 steps."""
    return [
        *map(str, [TORCHRUN, f"--nproc-per-node={ranks}", ROOT / "train/main.py"]),
        *map(str, ["--data", shards, "--out", out, *SETTINGS, *flags]),
    ]


@pytest.fixture(scope="module")
def run(run_ranks, shards_folder):
    """Run the command, without torchrun itself: run(out, …, ranks=2)."""

    def go(out: Path, *flags: object, ranks: int = 1) -> subprocess.CompletedProcess:
        return run_ranks("--data", shards_folder, "--out", out, *SETTINGS, *flags, ranks=ranks)

    return go


def losses(out: Path) -> list[float]:
    """Return the losses of a run's log, which must hold each step once."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


@pytest.fixture(scope="module")
def straight(run, tmp_path_factory) -> Path:
    """An undisturbed run on one rank."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert len(losses(out)) == STEPS
    return out


def same_state(a: Path, b: Path) -> bool:
    """Tell whether two runs ended in the same weights and optimiser state, to the bit."""
    states = [checkpoint.load(out / "latest.pt") for out in (a, b)]
    one, other = (
        [*s["model"].values(), *(v for p in s["optimizer"]["state"].values() for v in p.values())]
        for s in states
    )
    return states[0]["step"] == states[1]["step"] and all(map(torch.equal, one, other))


def test_a_run_leaves_what_the_design_names(straight):
    names = {p.name for p in straight.iterdir() if not p.name.startswith("events.out.tfevents")}
    assert names == {
        "config.json", "log.jsonl", "latest.pt", "encoder", "step-0000008.pt", "step-0000010.pt",
    }  # fmt: skip
    config = json.loads((straight / "config.json").read_text())
    assert config["settings"]["batch"] == 12
    assert config["ranks"] == 1
    assert "train/main.py" in config["command"]
    encoder = json.loads((straight / "encoder/config.json").read_text())
    assert encoder["pretrained_cfg"]["input_size"] == [3, 40, 40]
    own = encoder["lemon"]
    assert (own["format"], own["mpp"], own["network"], own["step"]) == (2, 0.25, "student", STEPS)
    line = json.loads((straight / "log.jsonl").read_text().splitlines()[0])
    assert line["lr"] == 0  # moco-v3: the first step's
    assert line["momentum"] == pytest.approx(0.99)
    assert 0 <= line["data_wait"] <= 1
    assert len(list(straight.glob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize(
    ("ranks", "flags"),
    [(2, ["--workers", 1]), (3, []), (2, ["--two-pass", 5, "--activation-checkpointing"])],
    ids=["two", "three", "two, two-pass"],
)
def test_many_ranks_equal_one(run, straight, tmp_path, ranks, flags):
    done = run(tmp_path / "many", *flags, ranks=ranks)
    assert done.returncode == 0, done.stderr
    one, many = losses(straight), losses(tmp_path / "many")
    assert max(abs(a - b) for a, b in zip(one, many, strict=True)) < 1e-4
    assert len(set(one)) == STEPS  # the weights moved


def test_killed_and_resumed_equals_straight(run, shards_folder, straight, tmp_path):
    """SIGKILL after some checkpoint; the same command goes on to the same weights."""
    out = tmp_path / "killed"
    process = subprocess.Popen(command(shards_folder, out), start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("step-*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len((out / "log.jsonl").read_text().splitlines()) < STEPS
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stderr
    assert losses(out) == losses(straight)
    assert same_state(out, straight)
    assert not list(out.glob(".*.tmp"))


def test_a_signal_saves_and_stops_and_another_world_size_goes_on(
    run, shards_folder, straight, tmp_path
):
    out = tmp_path / "stopped"
    flags = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"
    start = command(shards_folder, out, "--checkpoint-every", 1000, ranks=2)
    start.insert(1, flags)
    process = subprocess.Popen(start, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() or not (out / "log.jsonl").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    process.wait(timeout=60)
    saved = checkpoint.checkpoints(out)
    assert len(saved) == 1
    assert 0 < checkpoint.load(saved[0])["step"] < STEPS
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert max(abs(a - b) for a, b in zip(losses(straight), losses(out), strict=True)) < 1e-4


def test_a_finished_run_is_left_alone(run, straight):
    before = (straight / "step-0000010.pt").stat().st_mtime_ns
    done = run(straight)
    assert done.returncode == 0, done.stderr
    assert (straight / "step-0000010.pt").stat().st_mtime_ns == before
    assert len(losses(straight)) == STEPS


def test_other_settings_are_refused_and_overwritten_on_request(
    run_stage, shards_folder, straight, tmp_path
):
    flags = ["--data", shards_folder, "--out", straight, *SETTINGS, "--seed", "1"]
    done = run_stage("train/main.py", *flags)
    assert done.returncode == 2
    assert "--seed was 0, is 1" in done.stderr
    assert len(losses(straight)) == STEPS


def test_divergence_stops_the_run_with_its_cause(run_stage, shards_folder, tmp_path):
    flags = ["--data", shards_folder, "--out", tmp_path / "x", *SETTINGS, "--lr", 1e30]
    done = run_stage("train/main.py", *flags)
    assert done.returncode == 1
    assert "was the first without a finite one" in done.stderr
    assert "Lower --lr" in done.stderr
    assert "Traceback" not in done.stderr
    for path in checkpoint.checkpoints(tmp_path / "x"):
        state = checkpoint.load(path)
        assert all(v.isfinite().all() for v in state["model"].values())


def test_bad_data_is_named(run_stage, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, message in [("none", "no folder"), ("empty", "holds no finished shards")]:
        flags = ["--data", tmp_path / folder, "--out", tmp_path / "run", *SETTINGS]
        done = run_stage("train/main.py", *flags)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists()


def test_a_batch_that_the_ranks_cannot_share_is_refused(run, tmp_path):
    done = run(tmp_path / "run", "--batch", 13, ranks=2)
    assert done.returncode != 0
    assert "multiple of the 2 ranks" in done.stderr


def test_a_full_disk_stops_the_run_at_the_first_checkpoint_that_fails(run, straight, small_disk):
    """Rank 0 writes; both ranks stop, and what is left is of one step and can be resumed."""
    room = (straight / "latest.pt").stat().st_size
    with small_disk(int(2.2 * room)) as disk:
        out = disk / "run"
        done = run(out, "--keep", 9, "--checkpoint-every", 1, ranks=2)
        assert done.returncode == 1
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        free = r"at least \S+ MB needed, \S+ [kM]B free; make room"
        assert re.match(f"error: no room in {out} for step-0000002.pt: {free}", said[0])
        assert 'train/main.py", line' not in done.stderr  # torchrun's traceback is its own
        assert checkpoint.load(out / "latest.pt")["step"] == 1
        assert json.loads((out / "encoder/config.json").read_text())["lemon"]["step"] == 1
        assert not list(out.rglob("*.tmp"))
        assert 2 <= len(losses(out)) <= 4  # one step after the failure, two if it came late


@pytest.mark.soak
def test_a_two_rank_run_killed_at_20_moments_ends_in_the_straight_runs_weights(
    run, shards_folder, tmp_path
):
    """Random kills, in start-up, steps and saves alike; resumed each time by the same command."""
    longer = ["--epochs", 30, "--warmup-epochs", 1, "--checkpoint-every", 3]
    straight = tmp_path / "straight"
    assert run(straight, *longer, ranks=2).returncode == 0
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    while kills < 20:
        process = subprocess.Popen(
            command(shards_folder, out, *longer, ranks=2), start_new_session=True
        )
        began = len((out / "log.jsonl").read_text()) if (out / "log.jsonl").exists() else 0
        while process.poll() is None:  # until it works, or in one of five runs at once
            time.sleep(0.05)
            now = len((out / "log.jsonl").read_text()) if (out / "log.jsonl").exists() else 0
            if now > began or rng.random() < 0.002:
                break
        time.sleep(rng.uniform(0, 1))
        if process.poll() is not None:
            break  # finished before its time
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == 20
    done = run(out, *longer, ranks=2)
    assert done.returncode == 0, done.stderr
    assert losses(out) == losses(straight)
    assert same_state(out, straight)
