"""DINOv2 for 40-px cells: image-level DINO, iBOT on masked patches, and a loss that spreads.

Oquab et al. 2024; the order of things and the weights of the terms as in the official
dinov2/train/ssl_meta_arch.py. The paper's changes (section 2.2): no local crops, and a kernel
density instead of KoLeo. Settings: DinoConfig of train/config.py.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from shards.schema import VIEW_PX
from train import schedule
from train.architecture import PATCH_PX
from train.config import DinoConfig
from train.encoder import build_encoder
from train.flops import forward_flops
from train.head import Head
from train.losses import Targets, cross_entropy, kde, koleo
from train.mask import Hidden, draw_hidden
from train.method import Method, move_teacher
from train.network import ViT
from train.policy import Policy
from train.tokens import tokens


class StepInputs(NamedTuple):
    """What a step gives DINO beside its global views, on their device."""

    temperature: float  # of the teacher
    masks: Tensor  # (2 * N, P) bool, the patches hidden from the student
    patches: Tensor  # (M,) int64, these of 2 * N * P
    share: Tensor  # (M,) float32, the weight of each
    kept: Sequence[Tensor] | None  # as for `tokens`, of global views
    local_kept: Sequence[Tensor] | None  # of local crops
    local: Tensor | None  # (L * N, 3, H, H), the local crops


class DINO(Method):
    """Student and teacher: an encoder each, and one head for both losses or one for each."""

    exported = "teacher"  # (dinov2, train/train.py, do_test)
    encoder: ViT
    teacher_encoder: ViT

    def __init__(self, encoder: ViT, config: DinoConfig):
        """Put heads on an encoder and copy it to a teacher.

        Args:
            encoder: from images to (N, encoder.embed_dim).
            config: settings of a DINOv2 recipe.
        """
        super().__init__()
        self.config = config
        widths = (encoder.embed_dim, config.hidden, config.bottleneck, config.prototypes)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.embed_dim))
        self.head = Head(*widths)
        self.ibot_head = Head(*widths) if config.ibot_head == "separate" else None
        self.teacher_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.teacher_ibot_head = (
            copy.deepcopy(self.ibot_head).requires_grad_(False) if self.ibot_head else None
        )
        self.targets = Targets(config.prototypes, config.targets)
        self.ibot_targets = Targets(config.prototypes, config.targets)

    def forward(self, views: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Args:
            views: (2 * N, 3, H, H): the N first global views, then the N second ones.
            inputs: temperature, masks, kept branches, local crops.

        Returns:
            loss, with gradient; dino, ibot and koleo or kde, its terms without their weights;
            entropy of the targets in nats, log K where all prototypes are alike; and embedding
            (N, D), the teacher's of the first views, for the check for collapse.
        """
        target, ibot_target, teacher = self.teacher_targets(
            views, inputs.patches, inputs.temperature
        )
        student, patches, local = self.student_features(views, inputs)
        classes = torch.cat([student, *([] if local is None else [local])])  # (2 * N + L * N, D)
        if self.ibot_head is None:
            logits, ibot_logits = self.head(torch.cat([classes, patches])).split(
                [len(classes), len(patches)]
            )
        else:
            logits, ibot_logits = self.head(classes), self.ibot_head(patches)

        dino = self.image_loss(logits, target)
        ibot = cross_entropy(ibot_logits, ibot_target, self.config.student_temperature)
        share = inputs.share.to(ibot.dtype)
        ibot = (share * ibot).sum() / len(views)  # the mean of an image's patches, then of images
        name, weight, spread = self.spread(student, teacher)
        return {
            "loss": dino + self.config.ibot_weight * ibot + weight * spread,
            "dino": dino.detach(),
            "ibot": ibot.detach(),
            name: spread.detach(),
            "entropy": torch.special.entr(target).sum(1).mean(),
            "embedding": teacher.chunk(2)[0],
        }

    @torch.no_grad()
    def teacher_targets(
        self, views: Tensor, hidden: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's targets of views (2 * N, K) and patches (M, K), and its features."""
        seen = tokens(self.teacher_encoder, views)  # (2 * N, 1 + P, D)
        classes, patches = seen[:, 0], seen[:, 1:].flatten(0, 1)[hidden]
        if self.teacher_ibot_head is None:
            logits = self.teacher_head(torch.cat([classes, patches]))
            logits, ibot_logits = logits.split([len(classes), len(patches)])
        else:
            logits, ibot_logits = self.teacher_head(classes), self.teacher_ibot_head(patches)
        targets = self.targets(logits, temperature), self.ibot_targets(ibot_logits, temperature)
        return *targets, classes

    def student_features(
        self, views: Tensor, inputs: StepInputs
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the student's features of views, of hidden patches and of local crops."""
        share = 1 - self.config.drop_path
        seen = tokens(self.encoder, views, inputs.masks, self.mask_token, inputs.kept, share)
        local = None
        if inputs.local is not None:
            offset, kept = self.config.interpolate_offset, inputs.local_kept
            local = tokens(self.encoder, inputs.local, kept=kept, share=share, offset=offset)[:, 0]
        return seen[:, 0], seen[:, 1:].flatten(0, 1)[inputs.patches], local

    def image_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return DINO's loss: each view against the other's target, local crops against both.

        With local crops the mean over all pairs (dinov2). Paper leaves open: what weighs the
        global pairs without them; here: --global-weight.

        Args:
            logits: (2 * N + L * N, K) of the student, without its temperature.
            target: (2 * N, K) of the teacher.
        """
        temperature, n = self.config.student_temperature, len(target) // 2
        own, local = logits.split([2 * n, len(logits) - 2 * n])
        pairs = cross_entropy(own, target.roll(n, 0), temperature).mean()
        if not len(local):
            return self.config.global_weight * pairs
        both = (target[:n] + target[n:]).repeat(len(local) // n, 1)  # (L * N, K)
        count = 2 * len(local) // n  # of local pairs
        terms = cross_entropy(local, both, temperature).mean() * count / 2
        return (2 * pairs + terms) / (2 + count)

    def spread(self, student: Tensor, teacher: Tensor) -> tuple[str, float, Tensor]:
        """Return name, weight and sum over the two views of KoLeo or the kernel density."""
        config = self.config
        among = teacher.chunk(2) if config.neighbours == "teacher" else (None, None)
        views = list(zip(student.chunk(2), among, strict=True))
        if config.spread_loss == "koleo":
            over = config.koleo_over
            terms = [koleo(v, others, within_rank=over == "rank") for v, others in views]
            return "koleo", config.koleo_weight, torch.stack(terms).sum()
        options = (config.self_pairs, config.kde_reduction)
        terms = [kde(v, config.kappa, others, *options) for v, others in views]
        return "kde", config.kde_weight, torch.stack(terms).sum()

    # ---- a run -----------------------------------------------------------------------------------

    @classmethod
    def build(cls, config: DinoConfig) -> "DINO":
        """Build the networks; their weights are a function of the seed alone."""
        encoder = build_encoder(
            config.encoder,
            seed=config.seed,
            kind="dinov2",
            layer_scale=config.layer_scale,
            heads=config.heads,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return cls(cast(ViT, encoder), config)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups of parameters, with the shares of rate and decay for `schedule`.

        Source: dinov2, utils/param_groups.py. Layer l of L has decay ** (L + 1 - l) of the rate,
        the embeddings being layer 0, the patch embedding a share of that; biases, norms and layer
        scales do not decay.
        """
        config, depth = self.config, len(self.encoder.blocks)
        groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = depth + 1
            if name.startswith("encoder.blocks."):
                layer = int(name.split(".")[2]) + 1
            elif name == "mask_token" or (name.startswith("encoder.") and ".norm." not in name):
                layer = 0
            rate = config.layer_decay ** (depth + 1 - layer)
            rate *= config.patch_lr if "patch_embed" in name else 1
            decays = not (name.endswith(".bias") or "norm" in name or "gamma" in name)
            key = (rate, float(decays), "last_layer" in name)
            groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "rate": rate, "decay": decay, "last": last}
            for (rate, decay, last), parameters in groups.items()
        ]

    def policies(self, policy: Policy) -> list[Policy]:
        """Return how each view of an image is drawn: two global views, then local crops.

        Paper leaves open: the local crops' augmentation; here: the global views' colours, dinov2's
        blur of a half, and no erasing, of which little of a local crop would be left.
        """
        c = self.config
        scale = (c.local_scale_least, c.local_scale_most)
        blur = min(max(policy.blur_p), 0.5)
        local = replace(policy, view_px=c.local_px, scale=scale, erase_p=0.0, blur_p=(blur, blur))
        return [policy] * 2 + [local] * c.local_crops

    def schedule(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Set the optimiser for a step; return the values that change with steps."""
        c = self.config
        lr = schedule.learning_rate(step, c.steps, c.warmup_steps, c.peak_lr, c.end_lr)
        decay = schedule.cosine(step, c.steps, c.weight_decay, c.end_weight_decay)
        frozen = step < c.freeze_last_epochs * c.steps_per_epoch
        for group in optimizer.param_groups:
            group["lr"] = 0.0 if frozen and group["last"] else lr * group["rate"]
            group["weight_decay"] = decay * group["decay"]
        warm = c.temperature_epochs * c.steps_per_epoch
        return {
            "lr": lr,
            "momentum": schedule.momentum(step, c.steps, c.momentum),
            "weight_decay": decay,
            "temperature": schedule.ramp(step, warm, c.start_temperature, c.teacher_temperature),
        }

    @property
    def draws(self) -> Callable[[int, range, np.ndarray], Hidden]:
        """What draws masks and dropped branches, from step and rows."""
        return partial(draw_hidden, self.config, len(self.encoder.blocks))

    def step_inputs(
        self, drawn: Hidden, views: Sequence[Tensor], values: dict[str, float]
    ) -> tuple[Tensor, StepInputs]:
        """Return what `forward` takes, on the views' device."""

        def there(x: Tensor) -> Tensor:
            return x.to(views[0].device, non_blocking=True)

        def branches(rows: Tensor | None, counts: list[int] | None) -> Sequence[Tensor] | None:
            return None if rows is None or counts is None else there(rows).split(counts)

        return views[0], StepInputs(
            values["temperature"],
            there(drawn.masks),
            there(drawn.patches),
            there(drawn.share),
            branches(drawn.kept, drawn.counts),
            branches(drawn.local_kept, drawn.local_counts),
            views[1] if self.config.local_crops else None,
        )

    def update(self, optimizer: torch.optim.Optimizer, values: dict[str, float]) -> None:
        """Clip, take the optimiser's step, and move the teacher (dinov2's order)."""
        self.clip_gradients()
        optimizer.step()
        self.update_teacher(values["momentum"])

    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        pairs: list[tuple[nn.Module, nn.Module]]
        pairs = [(self.teacher_encoder, self.encoder), (self.teacher_head, self.head)]
        if self.ibot_head and self.teacher_ibot_head:
            pairs.append((self.teacher_ibot_head, self.ibot_head))
        move_teacher(pairs, momentum)

    def clip_gradients(self) -> None:
        """Clip the gradient's norm, of the encoder and of each head apart (dinov2)."""
        encoder = [*self.encoder.parameters(), self.mask_token]
        for part in (encoder, *(h.parameters() for h in (self.head, self.ibot_head) if h)):
            nn.utils.clip_grad_norm_(part, self.config.clip)

    @property
    def first_checked(self) -> float:
        """The steps after which embeddings are checked for collapse.

        Layer scale starts all images nearly alike, and the teacher, which is checked, forgets its
        start in some 1 / (1 - momentum) steps.
        """
        return self.config.warmup_steps + 3 / max(1 - self.config.momentum, 1e-6)

    @property
    def chance(self) -> tuple[str, float]:
        """DINO's term where the student has every prototype alike: log K (`image_loss`)."""
        weight = 1.0 if self.config.local_crops else self.config.global_weight
        return "dino", weight * math.log(self.config.prototypes)

    def flops(self) -> int:
        """Return the floating-point operations of a step for one image of its batch, about.

        A local crop costs by its tokens; dropped branches cost nothing.
        """
        c, grid = self.config, VIEW_PX // PATCH_PX
        view = forward_flops(self.teacher_encoder, 1, 3, VIEW_PX, VIEW_PX)
        local = view * (1 + (c.local_px // PATCH_PX) ** 2) / (1 + grid**2)
        head = 2 * sum(p.numel() for p in self.head.parameters() if p.ndim == 2)
        patches = 2 * grid**2 * c.mask_probability * (c.mask_ratio_least + c.mask_ratio_most) / 2
        student = (2 * view + c.local_crops * local) * (1 - c.drop_path)
        student += (2 + c.local_crops + patches) * head
        return round(3 * student + 2 * view + (2 + patches) * head)

    def compared_with(self, ranks: int) -> tuple[str, str]:
        """Return a word and a phrase on what an image is compared with."""
        c = self.config
        views = f"{2 * c.batch} views' targets"
        local = f", {c.local_crops} local crops of {c.local_px} px" if c.local_crops else ""
        return "prototypes", f"{c.prototypes} for {views} of {ranks} ranks ({c.targets}){local}"
