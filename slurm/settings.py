"""The settings of a campaign, as `slurm/submit.sh` exports them; every wrong one is named."""

import contextlib
import io
import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from train.config import Config
from train.config_file import check_same
from train.flags import parse

STAGES = ("extract", "mix", "train", "evaluate")
# What may not change while a campaign lasts: units of work would move, or results would differ.
FIXED = (
    *("SLIDES", "SLIDES_FLAGS", "SEED", "EXTRACT_FLAGS", "SLIDES_PER_TASK"),
    *("MIX_PARTS", "MIX_MEMORY", "SAMPLES_PER_SHARD", "RUN"),
)
# Flags that the recipes set themselves.
RESERVED = {
    "EXTRACT_FLAGS": ("--out", "--part", "--parts", "--workers", "--seed", "--overwrite"),
    "SLIDES_FLAGS": ("--out", "--digests"),
    "EVALUATE_FLAGS": ("--encoder", "--benchmark", "--out", "--seed", "--part", "--parts"),
    "SBATCH_FLAGS": (
        *("--job-name", "-J", "--array", "-a", "--dependency", "-d", "--output", "-o", "--wrap"),
        *("--parsable", "--signal"),  # the training saves at its own signal
    ),
    "WRAP": (),
    "TRAIN_FLAGS": ("--data", "--out", "--seed", "--overwrite", "--dry-run", "--keep-every"),
}
# What the recipes take as words, some of them quoted.
WORDS = ("WRAP", "EXTRACT_FLAGS", "TRAIN_FLAGS", "EVALUATE_FLAGS")
# man sbatch, --time and --mem (0: all of a node's)
TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d+(:\d\d){0,2}|(?i:unlimited|infinite)")
MEMORY = re.compile(r"\d+[KMGTkmgt]?")
TOLERATED = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Settings:
    """The values of `slurm/settings.sh`, which explains them."""

    OUT: Path
    SLIDES: Path
    SLIDES_FLAGS: str
    SEED: int
    STAGES: str
    ACCOUNT: str
    GPU_PARTITION: str
    CPU_PARTITION: str
    GRES: str
    SBATCH_FLAGS: str
    SETUP: str
    WRAP: str
    EXTRACT_FLAGS: str
    SLIDES_PER_TASK: int
    EXTRACT_AT_ONCE: int
    EXTRACT_GPUS: int
    EXTRACT_CPUS: int
    EXTRACT_MEMORY: str
    EXTRACT_TIME: str
    TOLERATED_SLIDES: str
    MIX_PARTS: int
    MIX_CPUS: int
    MIX_MEMORY: float
    MIX_TIME: str
    SAMPLES_PER_SHARD: int
    RUN: str
    TRAIN_FLAGS: str
    TRAIN_NODES: int
    TRAIN_PROCESSES: int
    TRAIN_GPUS: int
    TRAIN_CPUS: int
    TRAIN_MEMORY: str
    TRAIN_TIME: str
    TRAIN_WARNING: int
    BENCHMARKS: str
    BASELINES: str
    EVALUATE_FLAGS: str
    EVALUATE_EVERY: int
    EVALUATE_GPUS: int
    EVALUATE_CPUS: int
    EVALUATE_MEMORY: str
    EVALUATE_TIME: str

    @property
    def run(self) -> Path:
        """The training run's folder."""
        return self.OUT / "runs" / self.RUN

    @property
    def train(self) -> Config:
        """The settings of the training; a ValueError where they cannot be meant."""
        words = ["--data", str(self.OUT / "shards"), "--out", str(self.run)]
        words += ["--seed", str(self.SEED), *shlex.split(self.TRAIN_FLAGS)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                return parse(words)[0]
        except SystemExit as error:
            reason = said.getvalue().strip().splitlines()
            raise ValueError(reason[-1] if reason else "no flags of train/main.py") from error

    @property
    def tasks(self) -> list[tuple[str, str, str]]:
        """The tasks of the evaluation's array: encoder's name, its path, benchmark."""
        every = self.EVALUATE_EVERY
        between = range(every, self.train.steps, every) if every else ()
        encoders = [(f"{self.RUN}-{s}", self.run / f"step-{s:07d}.pt") for s in between]
        encoders.append((self.RUN, self.run))
        return [(name, str(path), b) for name, path in encoders for b in self.BENCHMARKS.split()]

    def tolerated(self, slides: int) -> int:
        """Return how many of the slides may fail."""
        found = TOLERATED.fullmatch(self.TOLERATED_SLIDES)
        assert found, self.TOLERATED_SLIDES  # check_settings has named it
        number, share = found.groups()
        return int(number) if number else int(slides * float(share) / 100)

    def fixed(self) -> dict[str, str]:
        """Return the settings that may not change while the campaign lasts, as text."""
        return {name: str(getattr(self, name)) for name in FIXED}


def read_settings(given: Mapping[str, str]) -> Settings:
    """Read the settings out of the environment, or out of a campaign's `settings.json`.

    Raises:
        ValueError: some are missing or are no numbers; a line for each.
    """
    values, errors = {}, []
    for field in fields(Settings):
        text = given.get(field.name)
        if text is None:
            errors.append(f"{field.name} is not set; slurm/settings.sh shows every setting")
            continue
        try:
            convert: Any = field.type
            values[field.name] = convert(text)
        except ValueError:
            kind = "whole number" if field.type is int else "number"
            errors.append(f"{field.name}={text}: a {kind} is needed")
    if errors:
        raise ValueError("\n".join(errors))
    return Settings(**values)


def check_settings(s: Settings) -> list[str]:
    """Return a line for each setting that cannot be meant, what was found and the cure."""
    errors = []
    for name in (f.name for f in fields(s) if f.type is int):
        least = 0 if name in ("SEED", "EVALUATE_EVERY") or name.endswith("_GPUS") else 1
        if getattr(s, name) < least:
            errors.append(f"{name}={getattr(s, name)}: at least {least}")
    for name in (f.name for f in fields(s)):
        value = str(getattr(s, name))
        if name.endswith("_TIME") and not TIME.fullmatch(value):
            errors.append(f"{name}={value}: a time as sbatch takes it, e.g. 12:00:00 or 2-00:00:00")
        if name.endswith("_MEMORY") and name != "MIX_MEMORY" and not MEMORY.fullmatch(value):
            errors.append(f"{name}={value}: memory as sbatch takes it, e.g. 48G")
        if name in RESERVED:
            errors += _flags(name, value)
    if not 0 < s.MIX_MEMORY < math.inf:  # float() takes `nan` and `inf` too
        errors.append(f"MIX_MEMORY={s.MIX_MEMORY}: GB, a number above 0")
    if not TOLERATED.fullmatch(s.TOLERATED_SLIDES):
        errors.append(f"TOLERATED_SLIDES={s.TOLERATED_SLIDES}: a number of slides, or a share: 1%")
    if not re.fullmatch(r"[\w-]+", s.RUN):
        errors.append(f"RUN={s.RUN}: letters, digits, _ and - only; it names a folder")
    stages = s.STAGES.split()
    if not stages or tuple(stages) != STAGES[: len(stages)]:
        errors.append(f"STAGES={s.STAGES}: the first so many of {' '.join(STAGES)}")
    return errors + _paths(s) + _train(s)


def _flags(name: str, value: str) -> list[str]:
    """Check flags that are handed to a stage."""
    try:
        words = shlex.split(value)
    except ValueError as error:
        return [f"{name}={value}: {error}"]
    taken = [w for w in words if w.split("=")[0] in RESERVED[name]]
    return [f"{name} holds {w}, which the recipes set themselves; take it out" for w in taken]


def _paths(s: Settings) -> list[str]:
    """Check that what is read is there and that OUT can be made."""
    errors = []
    if not s.OUT.is_absolute():
        errors.append(f"OUT={s.OUT}: an absolute path is needed, for jobs start elsewhere")
    spaced = [
        f"{n}={getattr(s, n)}" for n in ("OUT", "SLIDES") if re.search(r"\s", str(getattr(s, n)))
    ]
    errors += [f"{what}: the recipes cannot take blanks in it" for what in spaced]
    if not s.SLIDES.exists():
        errors.append(f"SLIDES={s.SLIDES}: no such file or folder")
    parent = next(p for p in (s.OUT, *s.OUT.parents) if p.exists())
    if not parent.is_dir():
        errors.append(f"OUT={s.OUT}: {parent} is no folder")
    for benchmark in s.BENCHMARKS.split() if "evaluate" in s.STAGES.split() else ():
        if not Path(benchmark).is_dir():
            errors.append(f"BENCHMARKS holds {benchmark}: no such folder")
    return errors


def _train(s: Settings) -> list[str]:
    """Check the training's settings against each other and against the run that is there."""
    errors, ranks = [], s.TRAIN_NODES * s.TRAIN_PROCESSES
    if s.TRAIN_GPUS not in (0, s.TRAIN_PROCESSES):
        errors.append(
            f"TRAIN_GPUS={s.TRAIN_GPUS} a node and TRAIN_PROCESSES={s.TRAIN_PROCESSES}: "
            "one process a GPU, or no GPUs"
        )
    try:
        config = s.train
    except ValueError as error:
        return [*errors, f"TRAIN_FLAGS={s.TRAIN_FLAGS}: {error}"]
    if ranks > 0 and (config.batch % ranks or config.batch < 2 * ranks):
        errors.append(
            f"TRAIN_NODES={s.TRAIN_NODES} of TRAIN_PROCESSES={s.TRAIN_PROCESSES}: {ranks} ranks; "
            f"--batch {config.batch} must be a multiple of them and give each at least 2 images"
        )
    if s.EVALUATE_EVERY > 0 and s.EVALUATE_EVERY % config.checkpoint_every:
        errors.append(
            f"EVALUATE_EVERY={s.EVALUATE_EVERY} must be a multiple of --checkpoint-every "
            f"{config.checkpoint_every}: there are no checkpoints in between"
        )
    try:
        if (s.run / "config.json").exists():
            check_same(config, s.run / "config.json")
    except ValueError as error:
        errors.append(f"TRAIN_FLAGS: {error}")
    return errors
