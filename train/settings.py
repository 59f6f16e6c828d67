"""The settings that every method has, in groups: fields that say their limits and their help."""

from collections.abc import Callable, Container
from dataclasses import MISSING, dataclass, field
from typing import Any, NamedTuple

from train.architecture import ENCODERS
from train.policy import POLICIES


class Limit(NamedTuple):
    """What numbers a setting may have."""

    words: str
    holds: Callable[[float], bool]


AT_LEAST_1 = Limit("at least 1", lambda v: v >= 1)
POSITIVE = Limit("above 0", lambda v: v > 0)
NOT_NEGATIVE = Limit("at least 0", lambda v: v >= 0)
SHARE = Limit("from 0 to 1", lambda v: 0 <= v <= 1)
BELOW_1 = Limit("from 0 to below 1", lambda v: 0 <= v < 1)


def setting(
    default: Any = MISSING,
    help: str = "",
    limit: Limit | None = None,
    choices: Container[str] = (),
    free: bool = False,
) -> Any:
    """Describe a field of a dataclass of settings.

    Args:
        default: MISSING where there is none.
        help: for --help, with the source of the default.
        limit: of a number.
        choices: words to choose from.
        free: changes nothing in the result, so that a resumed run may change it.
    """
    about = {"help": help, "limit": limit, "choices": choices, "free": free}
    return field(default=default, metadata=about)


def flag(name: str) -> str:
    """Return a setting's flag."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Data:
    """data"""

    data: str = setting(help="folder of shards", free=True)
    policy: str = setting("a1+gray", "augmentation; paper, 3.6", choices=POLICIES)
    second_blur: float = setting(
        0.1,
        "probability that the second view is blurred, in policies that blur; moco-v3: 0.1; the "
        "paper's A.3, read literally: 1",
        SHARE,
    )
    erase_ratio: str = setting(
        "height/width",
        "which ratio RandomErasing draws from 0.8 to 1.2; torchvision's: height/width",
        choices=("height/width", "width/height"),
    )
    skip_corrupt: bool = setting(
        False, "take the next whole crop for a broken one, and count them", free=True
    )
    workers: int = setting(
        4, "processes a rank that read ahead; 0 reads in the trainer", NOT_NEGATIVE, free=True
    )


@dataclass(frozen=True, kw_only=True)
class Model:
    """model"""

    encoder: str = setting(
        "vit_s8",
        "architecture; resnet18s, a slim ResNet-18 for small machines, with moco only; paper, 3.5: "
        "ViT-S/8",
        choices=ENCODERS,
    )
    init: str = setting(
        "",
        "what student and teacher start from: an encoder folder, a run, or the name of one that "
        "comes with the clone, lemon-NAME; else random weights",
    )
    heads: int = setting(
        0,
        "of attention; 0: the method's own, which for ViT-S are 12 in moco-v3 and 6 in dinov2",
        NOT_NEGATIVE,
    )
    precision: str = setting(
        "bf16",
        "of the networks: bf16 autocast or fp32; losses are fp32 in both",
        choices=("bf16", "fp32"),
    )
    activation_checkpointing: bool = setting(
        False, "recompute activations: less memory, a third slower", free=True
    )
    compile: bool = setting(
        False, "torch.compile the encoders; needs a C++ compiler on CPU", free=True
    )


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """optimisation"""

    batch: int = setting(4096, "images in a global batch, over all ranks; paper, 3.1", AT_LEAST_1)
    epochs: float = setting(150.0, "paper, 3.1", POSITIVE)
    epoch_samples: int = setting(1_000_000, "images in an epoch; paper, 3.1", AT_LEAST_1)
    warmup_epochs: float = setting(
        20.0,
        "until the rate's peak; paper leaves open; moco-v3: 40 epochs of 300",
        NOT_NEGATIVE,
    )
    seed: int = setting(0, "of weights, order and augmentation", NOT_NEGATIVE)


@dataclass(frozen=True, kw_only=True)
class Run:
    """run"""

    out: str = setting(help="the run's folder, e.g. runs/first", free=True)
    log_every: int = setting(10, "steps between lines of log.jsonl", AT_LEAST_1, free=True)
    checkpoint_every: int = setting(1000, "steps between checkpoints", POSITIVE, free=True)
    keep: int = setting(2, "newest checkpoints that stay", AT_LEAST_1, free=True)
    keep_every: int = setting(
        0,
        "steps; a checkpoint at a multiple of them stays for good; 0: none does",
        NOT_NEGATIVE,
        free=True,
    )
    probe: str = setting(
        "",
        "folder that `evaluate/main.py prepare` wrote, probed by k-NN as it trains",
        free=True,
    )
    probe_every: int = setting(500, "steps between probes", POSITIVE, free=True)
    card_gib: float = setting(
        0.0,
        "memory of a GPU, for --dry-run's largest batch; 0: of this machine's",
        NOT_NEGATIVE,
        free=True,
    )
    time_limit_hours: float = setting(0.0, "of a job, for --dry-run's advice; 0: none", free=True)
