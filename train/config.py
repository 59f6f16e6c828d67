"""Settings of a training run: one frozen dataclass, its fields the flags, its values config.json.

Defaults are the paper's (sections 3.1 and A.3); what it leaves open is the official recipe of the
method (moco-v3, CONFIG.md; dinov2, ssl_default_config.yaml), as each field's comment says. A field
that is None by default belongs to some methods only, and has theirs (train/recipes.py).
"""

import argparse
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import get_args

from train.limits import CHOICES, LIMITS, PAIRS
from train.recipes import RECIPES, owners


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    data: str  # folder of shards
    out: str  # the run's folder, e.g. runs/first
    method: str = "moco"  # or dinov2, dinov2-no-local, dinov2-no-local-kde; paper, 3.4, Table 6
    encoder: str = "vit_s8"  # paper, 3.5: ViT-S/8; vit_b8; vit_ti8 for small machines
    policy: str = "a1+gray"  # augmentation; paper, 3.6
    batch: int = 4096  # images in a global batch, over all ranks; paper, 3.1
    epochs: float = 150.0  # paper, 3.1
    epoch_samples: int = 1_000_000  # images in an epoch; paper, 3.1
    warmup_epochs: float = 20.0  # paper leaves open; moco-v3: 40 of 300; dinov2: 10 of 100
    # What follows, to the next comment, belongs to a method; the paper leaves it open but κ, its
    # weight and that local crops are left out.
    lr: float | None = None  # moco: per 256 images of the batch; dinov2: times sqrt(batch / 1024)
    weight_decay: float | None = None  # moco: of all weights; dinov2: the first, not of biases
    momentum: float | None = None  # of the teacher, to 1 by a cosine
    hidden: int | None = None  # width of the heads' hidden layers
    temperature: float | None = None  # τ of InfoNCE
    projection: int | None = None  # width of projection and prediction
    end_lr: float | None = None  # that the cosine leads to
    end_weight_decay: float | None = None  # that its cosine leads to
    layer_decay: float | None = None  # of the rate, a layer down
    patch_lr: float | None = None  # share of its layer's rate that the patch embedding has
    clip: float | None = None  # norm of the gradient of the encoder, and of each head
    layer_scale: float | None = None  # that residual branches start with; 0: no layer scale
    drop_path: float | None = None  # probability that a residual branch is dropped; for ViT-L
    bottleneck: int | None = None  # width before the prototypes
    prototypes: int | None = None  # K; official 65536, for a batch and a set far larger
    freeze_last_epochs: float | None = None  # in which the prototypes stay as they are
    ibot_head: str | None = None  # shared with DINO's, or separate (dinov2's long recipe)
    ibot_weight: float | None = None  # α of section 1.1
    mask_probability: float | None = None  # that a view has patches masked
    mask_ratio_least: float | None = None  # share of a view's patches that are masked
    mask_ratio_most: float | None = None  # likewise
    targets: str | None = None  # sinkhorn, or a running centre (dinov2's short recipe)
    student_temperature: float | None = None  # of the student's softmax
    start_temperature: float | None = None  # of the teacher's softmax, at first
    teacher_temperature: float | None = None  # likewise, from temperature_epochs on
    temperature_epochs: float | None = None  # in which the teacher's temperature rises
    neighbours: str | None = None  # student's or teacher's, which KoLeo and the density push from
    local_crops: int | None = None  # of an image
    local_px: int | None = None  # their side, a multiple of 8
    local_scale_least: float | None = None  # share of the 40-px area that a local crop shows
    local_scale_most: float | None = None  # likewise
    global_weight: float | None = None  # of the global term; dinov2 with n local crops: 2/(2+2n)
    koleo_weight: float | None = None  # β of section 1.1, for each of the two views
    kde_weight: float | None = None  # for each of the two views; paper, A.2
    kappa: float | None = None  # κ of the von Mises-Fisher kernel; paper, A.2
    self_pairs: bool | None = None  # in the density's sum over z'
    kde_reduction: str | None = None  # mean, or the sums as printed (section 2.2)
    # For all methods again.
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
        """Take the method's own settings, and refuse what cannot be meant."""
        self._check(lambda v, allowed: v in allowed, "there are", {"method": RECIPES})
        own = RECIPES[self.method]
        for field in fields(self):
            value, methods = getattr(self, field.name), owners(field.name)
            if methods and self.method not in methods and value is not None:
                raise ValueError(
                    f"{_flag(field.name)} belongs to {', '.join(methods)}; --method is "
                    f"{self.method}"
                )
            if value is None and field.name in own:
                object.__setattr__(self, field.name, own[field.name])
        if self.two_pass and self.method != "moco":
            raise ValueError(f"--two-pass belongs to moco; --method is {self.method}")
        self._check(lambda v, allowed: v in allowed, "there are", CHOICES)
        for check, message, names in LIMITS:
            self._check(lambda v, _, check=check: check(v), message, dict.fromkeys(names))
        for least, most in PAIRS:
            if getattr(self, least) is not None and getattr(self, least) > getattr(self, most):
                raise ValueError(f"{_flag(least)} is more than {_flag(most)}")
        if self.local_px is not None and self.local_px % 8:
            raise ValueError(f"--local-px {self.local_px}: no multiple of the 8-px patch")
        if self.steps < 1:
            raise ValueError(
                f"{self.epochs} epochs of {self.epoch_samples} images hold no batch of {self.batch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs {self.warmup_epochs} leaves nothing of --epochs {self.epochs}"
            )

    def _check(
        self, holds: Callable[[object, object], bool], message: str, limits: dict[str, object]
    ) -> None:
        """Raise a ValueError that names a setting, if one that is given does not hold."""
        for name, limit in limits.items():
            value = getattr(self, name)
            if value is not None and not holds(value, limit):
                words = f" {', '.join(limit)}" if limit else ""
                raise ValueError(f"{_flag(name)} {value}: {message}{words}")

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
        """Learning rate at the peak.

        lr * batch / 256 (moco-v3, main_moco.py); lr * sqrt(batch / 1024) (dinov2, config.py).
        """
        if self.method == "moco":
            return self.lr * self.batch / 256
        return self.lr * (self.batch / 1024) ** 0.5


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
        type_ = get_args(field.type)[0] if get_args(field.type) else field.type
        kind = {"action": argparse.BooleanOptionalAction} if type_ is bool else {}
        parser.add_argument(
            _flag(field.name),
            **kind or {"type": type_},
            default=argparse.SUPPRESS,
            help=f"{comments[field.name]}{_default(field)}".replace("%", "%%"),
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
    before, now = {"method": "moco"} | read_settings(path), asdict(config)  # once the only one
    changed = [k for k in now if k not in FREE and before.get(k) != now[k]]
    if changed:
        what = ", ".join(f"{_flag(k)} was {before.get(k)}, is {now[k]}" for k in changed)
        raise ValueError(
            f"{path.parent} was started with other settings ({what}); resume it with its own, name "
            "another --out, or give --overwrite to start anew"
        )


def _default(field: Field) -> str:
    """Say what a setting is by default, for --help."""
    values = {method: own[field.name] for method, own in RECIPES.items() if field.name in own}
    if not values:
        return "" if field.default is MISSING else f"; default {field.default}"
    different = set(values.values())
    if len(values) == len(RECIPES):  # every method has one: those of DINOv2 are alike
        return f"; default {values['moco']} (moco), {values['dinov2']} (dinov2)"
    dino = [method for method in RECIPES if method != "moco"]
    methods = "all dinov2" if list(values) == dino else ", ".join(values)
    return f"; default {different.pop()} ({methods})"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
