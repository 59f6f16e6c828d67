"""What training data should be made of (paper, Fig. 3): runs over cells, slides and projects.

Each point of the grid is a job: select -> mix -> train -> probe, through the stages' commands, each
of which goes on where it was stopped. A job is done when its probes are there. Jobs share nothing
but the results folder, where each has files of its own, so any number run at once.
"""

import json
import logging
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from shards.cells import finished_slides
from shards.json_file import read_json
from shards.write import write_text

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
LAST = 12  # lines of a failed stage's log that are shown


@dataclass(frozen=True)
class Job:
    """One run: what it is trained on, and with which seed."""

    cells: int
    slides: int | None  # None: all there are
    projects: int | None
    encoder: str
    repeat: int

    @property
    def name(self) -> str:
        """The name of its files."""
        parts = [f"{self.encoder}-{self.cells}cells"]
        parts += [f"{self.slides}slides"] if self.slides else []
        parts += [f"{self.projects}projects"] if self.projects else []
        return "-".join([*parts, f"r{self.repeat}"])


@dataclass(frozen=True)
class Plan:
    """What a grid's jobs have in common."""

    cells: Path
    out: Path
    benchmarks: tuple[str, ...]
    train: str = ""  # flags of train/main.py
    launch: str = ""  # what to start it with, such as torchrun --nproc-per-node=8; "": Python
    probe: str = ""  # flags of the probe
    seed: int = 0  # of the first repeat's selection, order and training; the next take the next
    keep_shards: bool = False


def grid(
    sizes: list[int],
    encoders: list[str],
    slides: list[int],
    projects: list[int],
    fixed: int | None,
    repeats: int,
) -> list[Job]:
    """Return the jobs of both rows: data set size, and diversity at a fixed size.

    Args:
        sizes: numbers of cells of the upper row, from all slides.
        encoders: an upper line each; the lower row takes the first.
        slides: of the lower row, along its axis.
        projects: of the lower row, a line each; more projects than slides is no point.
        fixed: cells of the lower row.
        repeats: seeds of selection and training for each point.

    Raises:
        ValueError: nothing to do, or a lower row without its number of cells.
    """
    if slides and not fixed:
        raise ValueError(
            "--slides varies the slides at a fixed number of cells: give --cells-fixed"
        )
    upper = [
        Job(size, None, None, e, r) for size in sizes for e in encoders for r in range(repeats)
    ]
    lower = [
        Job(fixed or 0, count, project, encoders[0], r)
        for count in slides  # and so there is a fixed number
        for project in projects or [None]
        if not project or project <= count
        for r in range(repeats)
    ]
    if not upper + lower:
        raise ValueError("an empty grid: give --sizes, or --slides with --cells-fixed")
    return upper + lower


def check_grid(jobs: list[Job], cells: Path) -> None:
    """See before any work that the cells suffice.

    Raises:
        FileNotFoundError: no cells there.
        ValueError: a job asks for more than there is.
    """
    there = finished_slides(cells)
    most = {
        "cells": sum(slide["cells"] for slide in there),
        "slides": len(there),
        "projects": len({slide["project"] for slide in there if slide["project"]}),
    }
    for what, limit in most.items():
        wanted = max(getattr(job, what) or 0 for job in jobs)
        if wanted > limit:
            raise ValueError(f"{wanted:,} {what} are asked for, {cells} holds {limit:,}")


def check_settings(plan: Plan) -> None:
    """See that jobs done before were trained alike; note how this grid is trained.

    Raises:
        ValueError: the folder holds a grid of other settings.
    """
    path = plan.out / "composition.json"
    now: dict[str, object] = {"cells": str(plan.cells.resolve())}
    now |= {"train": plan.train, "probe": plan.probe, "seed": plan.seed}
    if path.is_file() and any((plan.out / "runs").glob("*")):
        before = read_json(path, "use another --out")
        for key, value in now.items():
            if before.get(key) != value:
                raise ValueError(
                    f"{plan.out} holds a grid whose {key} was {before.get(key)!r}, now {value!r}; "
                    "use another --out"
                )
    write_text(path, json.dumps(now, indent=1) + "\n")


class Impossible(Exception):
    """A point of the grid that the cells do not allow."""


def run_jobs(jobs: list[Job], plan: Plan) -> list[str]:
    """Run those that are not done, one after another; return what failed, in words.

    Which projects a seed draws decides how many slides there are to choose from, so that a point
    may be impossible for one seed: it is said, and no failure.
    """
    from evaluate.benchmarks.find import find_benchmark

    names = [find_benchmark(path).name for path in plan.benchmarks]
    failed = []
    for number, job in enumerate(jobs, 1):
        if is_done(job, plan, names):
            continue
        log.info("[%d/%d] %s", number, len(jobs), job.name)
        try:
            reason = _run(job, plan)
        except Impossible as error:
            log.info("  left out: %s", error)
            continue
        if reason:
            failed.append(f"{job.name}: {reason}")
            log.error("  failed: %s", reason)
    return failed


def is_done(job: Job, plan: Plan, names: list[str]) -> bool:
    """Tell whether a job's probe is there on each benchmark."""
    return all((plan.out / "probes" / name / f"{job.name}.json").is_file() for name in names)


def _run(job: Job, plan: Plan) -> str | None:
    """Run a job's stages; return why it failed, or None."""
    selection = plan.out / "selections" / f"{job.name}.parquet"
    shards, run = plan.out / "shards" / job.name, plan.out / "runs" / job.name
    logs, seed = plan.out / "logs" / f"{job.name}.log", plan.seed + job.repeat
    for folder in (selection.parent, logs.parent):
        folder.mkdir(parents=True, exist_ok=True)
    stages = {
        "select": _select(job, plan.cells, selection, seed),
        "mix": ["shards/main.py", "mix", plan.cells, "--out", shards, "--selection", selection,
                "--seed", seed],
        "train": ["train/main.py", "--data", shards, "--out", run, "--encoder", job.encoder,
                  "--seed", seed, *shlex.split(plan.train)],
        "probe": ["evaluate/main.py", "probe", "--encoder", f"{job.name}={run}", "--benchmark",
                  *plan.benchmarks, "--out", plan.out, *shlex.split(plan.probe)],
    }  # fmt: skip
    for stage, (script, *arguments) in stages.items():
        if stage == "select" and selection.is_file():
            continue
        starter = shlex.split(plan.launch) if stage == "train" and plan.launch else [sys.executable]
        command = [*starter, str(ROOT / script), *map(str, arguments)]
        with open(logs, "a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            code = subprocess.run(command, stdout=file, stderr=file, check=False).returncode
        if code == 0 and stage == "train" and not (run / "encoder" / "config.json").is_file():
            code = "without an encoder: stopped before its end"
        if stage == "select" and code == 2:
            raise Impossible(logs.read_text("utf-8", "replace").splitlines()[-1])
        if code:
            last = "\n    ".join(logs.read_text("utf-8", "replace").splitlines()[-LAST:])
            return f"{stage} ended with {code}; the end of {logs}:\n    {last}"
    if not plan.keep_shards:  # a rerun makes the same bytes
        shutil.rmtree(shards, ignore_errors=True)
    return None


def _select(job: Job, cells: Path, selection: Path, seed: int) -> list:
    """Return the command that selects a job's cells.

    Paper leaves open: how cells are shared among slides; here: evenly, in the lower row at least.
    """
    command = ["shards/main.py", "select", cells, "--out", selection, "--cells", job.cells]
    command += ["--seed", seed]
    command += ["--slides", job.slides, "--balance", "slide"] if job.slides else []
    return command + (["--projects", job.projects] if job.projects else [])
