"""Settings of a training run: a frozen dataclass for each method, its fields the flags.

Defaults are the paper's (sections 3.1 and A.3); what it leaves open is the official recipe of the
method (moco-v3, CONFIG.md, for ViT-S; dinov2, ssl_default_config.yaml), as each field's help says.
Without torch: for --help and checks of settings.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from train.architecture import PATCH_PX, RESNETS, WIDTHS
from train.settings import (
    AT_LEAST_1,
    BELOW_1,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Data,
    Model,
    Optimisation,
    Run,
    flag,
    setting,
)


@dataclass(frozen=True, kw_only=True)
class Config(Data, Model, Optimisation, Run):
    """Settings that every method has."""

    method: str = setting("moco", "moco, or a row of the paper's Table 6 (3.4)")
    lr: float
    weight_decay: float
    momentum: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, with a ValueError that names the setting."""
        for one in fields(self):
            value, about = getattr(self, one.name), one.metadata
            if about["choices"] and value not in about["choices"]:
                there = ", ".join(about["choices"])
                raise ValueError(f"{flag(one.name)} {value}: there are {there}")
            if about["limit"] and not about["limit"].holds(value):
                raise ValueError(f"{flag(one.name)} {value}: {about['limit'].words}")
        if self.encoder in RESNETS:
            self._check_resnet()
        elif self.heads and WIDTHS[self.encoder] % self.heads:
            raise ValueError(
                f"--heads {self.heads}: must divide the {WIDTHS[self.encoder]} of {self.encoder}"
            )
        if self.steps < 1:
            raise ValueError(
                f"{self.epochs} epochs of {self.epoch_samples} images hold no batch of {self.batch}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"--warmup-epochs {self.warmup_epochs} leaves nothing of --epochs {self.epochs}"
            )

    def _check_resnet(self) -> None:
        if self.heads:
            raise ValueError(f"--heads {self.heads}: {self.encoder} has no attention; leave it out")
        if self.activation_checkpointing:
            raise ValueError(
                "--activation-checkpointing would count a batch twice in the running statistics of "
                f"{self.encoder}'s BatchNorm; leave it out"
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
    def settings(self) -> dict[str, Any]:
        """The method's own settings, as config.json holds them."""
        absent = RECIPES[self.method].absent
        return {name: value for name, value in asdict(self).items() if name not in absent}


@dataclass(frozen=True, kw_only=True)
class MocoConfig(Config):
    """moco"""

    lr: float = setting(1.5e-4, "times batch / 256 (moco) or sqrt(batch / 1024) (dinov2)", POSITIVE)
    weight_decay: float = setting(0.1, "of all weights", NOT_NEGATIVE)
    momentum: float = setting(0.99, "of the teacher, to 1 by a cosine", SHARE)
    hidden: int = setting(4096, "width of the heads' hidden layers", AT_LEAST_1)
    projection: int = setting(256, "width of projection and prediction", AT_LEAST_1)
    projector_layers: int = setting(
        0, "0: moco-v3's, which are 3 behind a ViT and 2 behind a ResNet", NOT_NEGATIVE
    )
    temperature: float = setting(0.2, "τ of InfoNCE", POSITIVE)
    measures_weight: float = setting(
        0.0,
        "of a head that predicts, from the embedding or a ResNet's last stages, the 76 handcrafted "
        "measures of the crop before augmentation; 0: none, as in the paper",
        NOT_NEGATIVE,
    )
    two_pass: int = setting(
        0,
        "views at once in the two-pass step for big batches; 0: the plain step",
        NOT_NEGATIVE,
        free=True,
    )
    cuda_graphs: bool = setting(
        False,
        "with --compile, replay the encoders as CUDA graphs: for batches so small that launches "
        "are what takes the time",
        free=True,
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, with a ValueError that names the setting."""
        super().__post_init__()
        if self.cuda_graphs and (not self.compile or self.two_pass):
            raise ValueError(
                "--cuda-graphs replays the compiled encoders, of the plain step: give --compile "
                "too, and no --two-pass"
            )

    def _check_resnet(self) -> None:
        super()._check_resnet()
        if self.two_pass:
            raise ValueError(
                f"--two-pass {self.two_pass} takes a view in parts, and the BatchNorm of "
                f"{self.encoder} must see it whole; leave it out"
            )
        if self.cuda_graphs:
            raise ValueError(
                f"--cuda-graphs replays an encoder once a step, and {self.encoder} takes the views "
                "one after the other; leave it out"
            )

    @property
    def peak_lr(self) -> float:
        """Learning rate at the peak (moco-v3, main_moco.py)."""
        return self.lr * self.batch / 256


@dataclass(frozen=True, kw_only=True)
class DinoConfig(Config):
    """dinov2"""

    method: str = setting("dinov2", "moco, or a row of the paper's Table 6 (3.4)")
    warmup_epochs: float = setting(
        15.0, "until the rate's peak; dinov2: 10 epochs of 100", NOT_NEGATIVE
    )
    lr: float = setting(4e-3, "times sqrt(batch / 1024)", POSITIVE)
    end_lr: float = setting(1e-6, "that the cosine leads to", NOT_NEGATIVE)
    weight_decay: float = setting(0.04, "the first, not of biases", NOT_NEGATIVE)
    end_weight_decay: float = setting(0.4, "that its cosine leads to", NOT_NEGATIVE)
    momentum: float = setting(0.992, "of the teacher, to 1 by a cosine", SHARE)
    layer_decay: float = setting(0.9, "of the rate, a layer down", POSITIVE)
    patch_lr: float = setting(
        0.2, "share of its layer's rate that the patch embedding has", NOT_NEGATIVE
    )
    clip: float = setting(3.0, "norm of the gradient of the encoder, and of each head", POSITIVE)
    layer_scale: float = setting(
        1e-5, "that residual branches start with; 0: no layer scale", NOT_NEGATIVE
    )
    drop_path: float = setting(
        0.3, "probability that a residual branch is dropped; for ViT-L", BELOW_1
    )
    hidden: int = setting(2048, "width of the heads' hidden layers", AT_LEAST_1)
    bottleneck: int = setting(256, "width before the prototypes", AT_LEAST_1)
    prototypes: int = setting(
        65536, "K; dinov2's, for GPUs; a CPU and small sets take 1024 to 4096", AT_LEAST_1
    )
    freeze_last_epochs: float = setting(
        5.12,
        "in which the prototypes stay as they are; dinov2: 1,250 steps, here of 244 an epoch",
        NOT_NEGATIVE,
    )
    ibot_head: str = setting(
        "shared",
        "shared with DINO's, or separate (dinov2's long recipe)",
        choices=("shared", "separate"),
    )
    ibot_weight: float = setting(1.0, "α of section 1.1", NOT_NEGATIVE)
    mask_probability: float = setting(0.5, "that a view has patches masked", SHARE)
    mask_ratio_least: float = setting(0.1, "share of a view's patches that are masked", SHARE)
    mask_ratio_most: float = setting(0.5, "likewise", SHARE)
    targets: str = setting(
        "sinkhorn",
        "sinkhorn (dinov2's long recipe, DinoBloom's), or a running centre (its short one)",
        choices=("sinkhorn", "centre"),
    )
    student_temperature: float = setting(0.1, "of the student's softmax", POSITIVE)
    start_temperature: float = setting(0.04, "of the teacher's softmax, at first", POSITIVE)
    teacher_temperature: float = setting(0.07, "likewise, from --temperature-epochs on", POSITIVE)
    temperature_epochs: float = setting(
        45.0, "in which the teacher's temperature rises; dinov2: 30 epochs of 100", NOT_NEGATIVE
    )
    # Only the student's features have a gradient; its neighbours pull as hard as they are pushed.
    neighbours: str = setting(
        "student",
        "student's or teacher's, which KoLeo and the density push from",
        choices=("student", "teacher"),
    )
    local_crops: int = setting(8, "of an image", NOT_NEGATIVE)
    local_px: int = setting(24, "their side, a multiple of 8", AT_LEAST_1)
    interpolate_offset: float = setting(
        0.1,
        "patches added to a local crop's grid when positions are interpolated (dinov2); 0: none",
        BELOW_1,
    )
    local_scale_least: float = setting(
        0.05, "share of the 40-px area that a local crop shows", POSITIVE
    )
    local_scale_most: float = setting(0.32, "likewise", SHARE)
    # The official sum of 2 global and max(2 * local, 1) local terms, with no local crops.
    global_weight: float = setting(
        2 / 3, "of the global term; dinov2 with n local crops: 2/(2+2n)", NOT_NEGATIVE
    )
    koleo_weight: float = setting(0.1, "β of section 1.1, for each of the two views", NOT_NEGATIVE)
    koleo_over: str = setting(
        "rank",
        "whose images are neighbours: those of one rank (dinov2), or the whole batch's",
        choices=("rank", "batch"),
    )
    kde_weight: float = setting(0.05, "for each of the two views; paper, A.2", NOT_NEGATIVE)
    kappa: float = setting(5.0, "κ of the von Mises-Fisher kernel; paper, A.2", POSITIVE)
    # A pair with itself is a constant e^κ that damps the gradient, the more the smaller the batch.
    self_pairs: bool = setting(False, "in the density's sum over z'")
    # A sum over z would weigh 4096 times 0.05 against a cross-entropy of about 8.
    kde_reduction: str = setting(
        "mean", "mean, or the sums as printed (section 2.2)", choices=("mean", "sum")
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, with a ValueError that names the setting."""
        super().__post_init__()
        if self.encoder in RESNETS:
            raise ValueError(
                f"--method {self.method} needs patch tokens, which {self.encoder} has not; give "
                "--method moco, or a ViT"
            )
        for least, most in (
            ("mask_ratio_least", "mask_ratio_most"),
            ("local_scale_least", "local_scale_most"),
        ):
            if getattr(self, least) > getattr(self, most):
                raise ValueError(f"{flag(least)} is more than {flag(most)}")
        if self.local_px % PATCH_PX:
            raise ValueError(f"--local-px {self.local_px}: no multiple of the {PATCH_PX}-px patch")

    @property
    def peak_lr(self) -> float:
        """Learning rate at the peak (dinov2, config.py)."""
        return self.lr * (self.batch / 1024) ** 0.5

    @property
    def spread_loss(self) -> str:
        """What spreads the features: koleo or kde."""
        return "koleo" if "kde_weight" in RECIPES[self.method].absent else "kde"


class Recipe(NamedTuple):
    """A method by name: its settings, those with other values, and those it has not."""

    settings: type[MocoConfig] | type[DinoConfig]
    values: dict[str, Any]
    absent: tuple[str, ...]


_LOCAL = (
    *("local_crops", "local_px", "interpolate_offset"),
    *("local_scale_least", "local_scale_most"),
)
_KDE = ("kde_weight", "kappa", "self_pairs", "kde_reduction")
RECIPES = {
    "moco": Recipe(MocoConfig, {}, ()),
    "dinov2": Recipe(DinoConfig, {}, ("global_weight", *_KDE)),
    "dinov2-no-local": Recipe(DinoConfig, {"local_crops": 0}, (*_LOCAL, *_KDE)),
    "dinov2-no-local-kde": Recipe(
        DinoConfig, {"local_crops": 0}, (*_LOCAL, "koleo_weight", "koleo_over")
    ),
}


def configure(**settings: Any) -> MocoConfig | DinoConfig:
    """Return the settings of a run; what is not given has the method's default.

    Raises:
        ValueError: an unknown method, a setting that it has not, or one that cannot be meant.
    """
    method = settings.get("method", "moco")
    if method not in RECIPES:
        raise ValueError(f"--method {method}: there are {', '.join(RECIPES)}")
    for name in settings:
        methods = owners(name)
        if method not in methods:
            whose = f"belongs to {', '.join(methods)}" if methods else "is no setting"
            raise ValueError(f"{flag(name)} {whose}; --method is {method}")
    return RECIPES[method].settings(**RECIPES[method].values | settings)


def owners(name: str) -> list[str]:
    """Return the methods that have a setting."""
    return [
        method
        for method, recipe in RECIPES.items()
        if name in recipe.settings.__dataclass_fields__ and name not in recipe.absent
    ]
