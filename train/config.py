"""Settings of a training run: one frozen dataclass, its fields the flags, its values config.json.

Defaults are the paper's (sections 3.1 and A.3); what it leaves open is official MoCo v3's recipe
for ViT-S (moco-v3, CONFIG.md), as each field's comment says.
"""

import argparse
import inspect
import json
import re
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from train.architecture import ENCODERS
from train.policy import POLICIES


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: str  # folder of shards
    out: str  # the run's folder, e.g. runs/first
    encoder: str = "vit_s8"  # paper, 3.5: ViT-S/8; vit_b8; vit_ti8 for small machines
    policy: str = "a1+gray"  # augmentation; paper, 3.6
    batch: int = 4096  # images in a global batch, over all ranks; paper, 3.1
    epochs: float = 150.0  # paper, 3.1
    epoch_samples: int = 1_000_000  # images in an epoch; paper, 3.1
    warmup_epochs: float = 20.0  # paper leaves open; moco-v3: 40 of 300
    lr: float = 1.5e-4  # per 256 images of the global batch; paper leaves open; moco-v3
    weight_decay: float = 0.1  # of everything trained, biases too; paper leaves open; moco-v3
    momentum: float = 0.99  # of the teacher, to 1 by a cosine; paper leaves open; moco-v3
    temperature: float = 0.2  # τ; paper leaves open; moco-v3
    hidden: int = 4096  # width of the heads' hidden layers; paper leaves open; moco-v3
    projection: int = 256  # width of projection and prediction; paper leaves open; moco-v3
    precision: str = "bf16"  # of the networks: bf16 autocast or fp32; losses are fp32 in both
    seed: int = 0  # of weights, order and augmentation
    workers: int = 4  # processes a rank that read ahead; 0 reads in the trainer
    skip_corrupt: bool = False  # take the next whole crop for a broken one, and count them
    log_every: int = 10  # steps between lines of log.jsonl
    checkpoint_every: int = 500  # steps between checkpoints
    keep: int = 2  # newest checkpoints that stay
    keep_every: int = 0  # steps; a checkpoint at a multiple of them stays for good; 0: none does
    two_pass: int = 0  # views at once in the two-pass step for big batches; 0: the plain step
    activation_checkpointing: bool = False  # recompute activations: less memory, a third slower
    compile: bool = False  # torch.compile the encoders; needs a C++ compiler on CPU
    probe: str = ""  # folder that `evaluate/main.py prepare` wrote, probed by k-NN as it trains
    probe_every: int = 500  # steps between probes
    time_limit_hours: float = 0.0  # of a job, for --dry-run's advice; 0: none

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant."""
        choices = {"encoder": ENCODERS, "policy": POLICIES, "precision": ("bf16", "fp32")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"--{name} {getattr(self, name)}: there are {', '.join(allowed)}")
        for name in ("batch", "epoch_samples", "hidden", "projection", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{_flag(name)} {getattr(self, name)}: at least 1")
        for name in ("epochs", "lr", "temperature", "checkpoint_every", "probe_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{_flag(name)} {getattr(self, name)}: above 0")
        for name in ("weight_decay", "warmup_epochs", "workers", "seed", "keep_every", "two_pass"):
            if getattr(self, name) < 0:
                raise ValueError(f"{_flag(name)} {getattr(self, name)}: at least 0")
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"--momentum {self.momentum}: from 0 to 1")
        if self.steps < 1:
            raise ValueError(
                f"{self.epochs} epochs of {self.epoch_samples} images hold no batch of {self.batch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs {self.warmup_epochs} leaves nothing of --epochs {self.epochs}"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run; an epoch is epoch_samples // batch of them."""
        return int(self.epochs * self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch (moco-v3 drops the last, incomplete one)."""
        return self.epoch_samples // self.batch

    @property
    def warmup_steps(self) -> float:
        """Steps until the learning rate's peak."""
        return self.warmup_epochs * self.steps_per_epoch

    @property
    def peak_lr(self) -> float:
        """Learning rate at the peak: lr * batch / 256 (moco-v3, main_moco.py)."""
        return self.lr * self.batch / 256


# Settings that change nothing in the result, so that a resumed run may change them.
FREE = (
    "data",
    "out",
    "workers",
    "skip_corrupt",
    "log_every",
    "checkpoint_every",
    "keep",
    "keep_every",
    "two_pass",
    "activation_checkpointing",
    "compile",
    "probe",
    "probe_every",
    "time_limit_hours",
)


def parse(arguments: list[str], description: str) -> tuple[Config, argparse.Namespace]:
    """Read the settings from flags and, with --config, from an earlier run's config.json.

    Args:
        arguments: of the command line.
        description: of the command, for --help.

    Returns:
        The settings and the flags that are no settings (overwrite).

    Raises:
        ValueError: an unknown key in the file, or settings that cannot be meant.
        SystemExit: an unknown flag, or --help.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="config.json whose settings are the defaults")
    parser.add_argument("--overwrite", action="store_true", help="start the run anew")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and end")
    parser.add_argument(
        "--accumulate", type=int, default=1, help="refused: see what the error says"
    )
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(Config), re.M))
    for field in fields(Config):
        kind = {"action": argparse.BooleanOptionalAction} if field.type is bool else {}
        parser.add_argument(
            _flag(field.name),
            **kind or {"type": field.type},
            default=argparse.SUPPRESS,
            help=comments[field.name]
            + ("" if field.default is MISSING else f"; default {field.default}"),
        )
    flags = vars(parser.parse_args(arguments))
    rest = argparse.Namespace(**{k: flags.pop(k) for k in ("overwrite", "dry_run")})
    if flags.pop("accumulate") != 1:
        raise ValueError(
            "--accumulate: gradient accumulation would compare each image with the negatives of "
            "its own part only, a smaller batch in disguise; --two-pass N computes the whole "
            "batch's loss N images at a time"
        )
    path = flags.pop("config")
    settings = (read_settings(path) if path else {}) | flags
    missing = [_flag(f.name) for f in fields(Config) if f.default is MISSING]
    missing = [m for m in missing if m[2:].replace("-", "_") not in settings]
    if missing:
        parser.error(f"needed: {', '.join(missing)}")
    return Config(**settings), rest


def read_settings(path: Path) -> dict:
    """Return the settings in a config.json.

    Raises:
        ValueError: it holds none, or one this code does not know.
    """
    try:
        settings = json.loads(path.read_text())["settings"]
    except FileNotFoundError as error:
        raise ValueError(f"--config {path}: no such file") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no run's config.json: {error!r}") from error
    unknown = settings.keys() - {f.name for f in fields(Config)}
    if unknown:
        raise ValueError(f"{path} holds settings unknown here: {', '.join(sorted(unknown))}")
    return settings


def check_same(config: Config, path: Path) -> None:
    """Refuse to resume a run under settings that would change its result.

    Raises:
        ValueError: names the settings that differ.
    """
    before, now = read_settings(path), asdict(config)
    changed = [k for k in now if k not in FREE and before.get(k) != now[k]]
    if changed:
        what = ", ".join(f"{_flag(k)} was {before.get(k)}, is {now[k]}" for k in changed)
        raise ValueError(
            f"{path.parent} was started with other settings ({what}); resume it with its own, name "
            "another --out, or give --overwrite to start anew"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
