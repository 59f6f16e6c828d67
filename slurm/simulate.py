"""Run a large array of extract with its real ledger and submit.sh --dry-run, but for the pixels.

    python slurm/simulate.py                               # 10,000 slides, 2 % fail, 10 % preempted
    python slurm/simulate.py --slides 500 --failures 0.05 --seed 1

Submits again until nothing is missing. A task that is preempted loses the slides it has not done,
as where the cluster cancels instead of requeueing; a slide that fails may succeed the next time.
Ends with one line: in how many submissions the cells were complete.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import argparse
import csv
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from extract.ledger import Settings, is_finished, record_outcome
from extract.slides import Entry, list_slides
from shards.command_line import program_parser

ROOT = Path(__file__).resolve().parents[1]
MOST = 50  # submissions; more, and something is wrong
SETTINGS = Settings(segmenter="rays", codec="jpeg", seed=0, cells_per_slide=None, any_scale=False)


@dataclass
class Tally:
    """What happened.

    Attributes:
        attempts: of slides.
        failed: of them.
        preempted: tasks.
        made: slide -> how often it was done.
    """

    attempts: int = 0
    failed: int = 0
    preempted: int = 0
    made: dict[str, int] = field(default_factory=dict)


def main() -> int:
    """Run the command line; return 1 if slides were lost or done twice."""
    parser = program_parser("slurm/simulate.py", __doc__)
    for flag, default, what in (
        ("--slides", 10_000, "how many"),
        ("--per-task", 20, "slides a task"),
        ("--failures", 0.02, "share of a slide's attempts"),
        ("--preemptions", 0.10, "share of tasks"),
        ("--seed", 0, "of failures and preemptions"),
    ):
        parser.add_argument(flag, type=type(default), default=default, help=what)
    arguments = parser.parse_args()
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # every record is fsynced
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        return simulate(Path(folder), arguments)


def simulate(folder: Path, a: argparse.Namespace) -> int:
    """Submit until nothing of extract is missing; print a line each time."""
    rng, tally, start = np.random.default_rng(a.seed), Tally(), time.perf_counter()
    settings = write_campaign(folder, a.slides, a.per_task)
    cells = folder / "out" / "cells"
    cells.mkdir(parents=True)
    entries = list_slides(folder / "slides.csv")
    tolerated, submission = None, 0
    for submission in range(1, MOST):
        parts = submitted_parts(settings)
        if not parts:
            break
        before = Tally(tally.attempts, tally.failed, tally.preempted)
        for part in parts:
            run_task(entries[part :: -(-a.slides // a.per_task)], cells, a, rng, tally)
        left = a.slides - len(tally.made)
        if tolerated is None and left <= a.slides // 100:
            tolerated = submission
        print(
            f"submission {submission}: {len(parts):,} tasks, "
            f"{tally.preempted - before.preempted} preempted; "
            f"{tally.attempts - before.attempts:,} slides tried, "
            f"{tally.failed - before.failed:,} failed; {left:,} left"
        )
    seconds = time.perf_counter() - start
    lost = sum(not is_finished(cells, entry, SETTINGS) for entry in entries)
    twice = sum(times > 1 for times in tally.made.values())
    print(
        f"simulate: {a.slides:,} slides complete after {submission - 1} submissions "
        f"({submission - 2} resubmissions), within 1 % after {tolerated}; "
        f"{tally.attempts:,} tried, {lost} lost, {twice} done twice; {seconds:.0f} s"
    )
    return 1 if lost or twice else 0


def write_campaign(folder: Path, slides: int, per_task: int) -> Path:
    """Write empty slides, their list, and the example settings made to point at them."""
    with open(folder / "slides.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "slide_id"])
        for number in range(slides):
            (folder / f"{number:05d}.svs").touch()
            writer.writerow([f"{number:05d}.svs", f"slide-{number:05d}"])
    ours = {
        "OUT": folder / "out",
        "SLIDES": folder / "slides.csv",
        "SLIDES_FLAGS": "",
        "SLIDES_PER_TASK": per_task,
        "EXTRACT_FLAGS": "",
        "SETUP": "",
        "BENCHMARKS": "",
    }
    path = folder / "settings.sh"
    lines = [f"{name}={value}\n" for name, value in ours.items()]
    path.write_text((ROOT / "slurm" / "settings.sh").read_text() + "".join(lines))
    return path


def submitted_parts(settings: Path) -> list[int]:
    """Return the parts that submit.sh would submit."""
    here = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", ROOT / "slurm" / "submit.sh", settings, "--dry-run"],
        env=os.environ | {"PATH": here, "SLURM_CONF": os.devnull},  # no cluster's queue is asked
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"submit.sh: {done.stderr}")
    found = re.search(r"-extract --array=([\d,-]+)%", done.stdout)
    if not found:
        return []
    spans = [span.split("-") for span in found[1].split(",")]
    return [part for span in spans for part in range(int(span[0]), int(span[-1]) + 1)]


def run_task(
    entries: list[Entry], cells: Path, a: argparse.Namespace, rng: np.random.Generator, tally: Tally
) -> None:
    """Do what `extract_cohort` does with a part's slides, but for the pixels."""
    waiting = [entry for entry in entries if not is_finished(cells, entry, SETTINGS)]
    stop = len(waiting)
    if rng.random() < a.preemptions:
        stop = int(rng.integers(len(waiting) + 1))
        tally.preempted += 1
    for entry in waiting[:stop]:
        tally.attempts += 1
        if rng.random() < a.failures:
            tally.failed += 1
            record_outcome(cells, entry, SETTINGS, "failed", "simulated")
            continue
        for kind in ("tar", "parquet"):
            (cells / f"{entry.slide}.{kind}").write_bytes(b"cells")
        sizes = {"tar": 5, "parquet": 5}
        record_outcome(cells, entry, SETTINGS, "done", fates={"kept": 1}, bytes=sizes)
        tally.made[entry.slide] = tally.made.get(entry.slide, 0) + 1


if __name__ == "__main__":
    sys.exit(main())
