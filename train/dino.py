"""DINOv2 for 40-px cells: image-level DINO, iBOT on masked patches, and a loss that spreads.

Oquab et al. 2024; the order of things and the weights of the terms as in the official
dinov2/train/ssl_meta_arch.py. The paper's changes (section 2.2): no local crops, and a kernel
density instead of KoLeo.
"""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.config import Config
from train.losses import Targets, cross_entropy, kde, koleo
from train.tokens import tokens


class Step(NamedTuple):
    """What a step gives DINO beside its global views; masks and branches on the CPU."""

    temperature: float  # of the teacher
    masks: Tensor  # (2 * N, P) bool, the patches hidden from the student
    kept: tuple[Tensor, Tensor] | None  # (…, depth, 2) bool of global and local views; None: all
    local: Tensor | None  # (L * N, 3, H, H), the local crops


class Head(nn.Module):
    """From embeddings to logits over prototypes: an MLP, the sphere, and unit prototypes.

    Source: dinov2, layers/dino_head.py. Cosines are in float32 whatever the autocast (float64
    stays): bfloat16 would resolve them to 0.004, a tenth of the temperature.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        for layer in self.mlp[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        # Length and direction apart (weight norm); nn.Linear's own initialisation of the latter.
        self.last_layer = nn.Linear(bottleneck, prototypes, bias=False)
        self.last_layer_length = nn.Parameter(torch.ones(prototypes, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of embeddings (N, D)."""
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):
            x = F.normalize(x.to(self.last_layer.weight.dtype), dim=1)
            unit = F.normalize(self.last_layer.weight, dim=1)
            return F.linear(x, unit * self.last_layer_length)


class DINO(nn.Module):
    """Student and teacher: an encoder each, and one head for both losses or one for each."""

    def __init__(self, encoder: nn.Module, config: Config):
        """Put heads on an encoder and copy it to a teacher.

        Args:
            encoder: from images to (N, encoder.embed_dim).
            config: settings of a DINOv2 recipe.
        """
        super().__init__()
        self.config, self.tokens = config, tokens
        widths = (encoder.embed_dim, config.hidden, config.bottleneck, config.prototypes)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.embed_dim))
        self.head = Head(*widths)
        self.ibot_head = Head(*widths) if config.ibot_head == "separate" else None
        self.teacher_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False)
        self.teacher_ibot_head = copy.deepcopy(self.ibot_head)
        if self.teacher_ibot_head:
            self.teacher_ibot_head.requires_grad_(False)
        self.targets = Targets(config.prototypes, config.targets)
        self.ibot_targets = Targets(config.prototypes, config.targets)

    def forward(self, views: Tensor, step: Step) -> dict[str, Tensor]:
        """Return the loss of a batch.

        Args:
            views: (2 * N, 3, H, H): the N first global views, then the N second ones.
            step: temperature, masks, kept branches, local crops.

        Returns:
            loss, with gradient; dino, ibot and koleo or kde, its terms without their weights;
            entropy of the targets in nats, log K where all prototypes are alike; and embedding
            (N, D), the teacher's of the first views, for the collapse watch.
        """
        hidden = step.masks.flatten().nonzero()[:, 0].to(views.device)  # of (2 * N * P)
        target, ibot_target, taught = self.teach(views, hidden, step.temperature)
        embedded, patches, local = self.learn(views, hidden, step)
        classes = torch.cat([embedded, *([] if local is None else [local])])  # (2 * N + L * N, D)
        if self.ibot_head is None:
            logits, ibot_logits = self.head(torch.cat([classes, patches])).split(
                [len(classes), len(patches)]
            )
        else:
            logits, ibot_logits = self.head(classes), self.ibot_head(patches)

        dino = self.image_loss(logits, target)
        share = 1 / step.masks.sum(1, keepdim=True).clamp(min=1).expand_as(step.masks)
        share = share.flatten().to(views.device, dtype=ibot_logits.dtype)[hidden]
        ibot = cross_entropy(ibot_logits, ibot_target, self.config.student_temperature)
        ibot = (share * ibot).sum() / len(views)  # the mean of an image's patches, then of images
        name, weight, spread = self.spread(embedded, taught)
        return {
            "loss": dino + self.config.ibot_weight * ibot + weight * spread,
            "dino": dino.detach(),
            "ibot": ibot.detach(),
            name: spread.detach(),
            "entropy": torch.special.entr(target).sum(1).mean(),
            "embedding": taught.chunk(2)[0],
        }

    @torch.no_grad()
    def teach(
        self, views: Tensor, hidden: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the teacher's targets of views (2 * N, K) and patches (M, K), and embeddings."""
        seen = self.tokens(self.teacher_encoder, views)  # (2 * N, 1 + P, D)
        classes, patches = seen[:, 0], seen[:, 1:].flatten(0, 1)[hidden]
        if self.teacher_ibot_head is None:
            logits = self.teacher_head(torch.cat([classes, patches]))
            logits, ibot_logits = logits.split([len(classes), len(patches)])
        else:
            logits, ibot_logits = self.teacher_head(classes), self.teacher_ibot_head(patches)
        targets = self.targets(logits, temperature), self.ibot_targets(ibot_logits, temperature)
        return *targets, classes

    def learn(
        self, views: Tensor, hidden: Tensor, step: Step
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the student's embeddings of views, of hidden patches and of local crops."""
        share = 1 - self.config.drop_path
        kept, local_kept = step.kept or (None, None)
        masks = step.masks.to(views.device)
        seen = self.tokens(self.encoder, views, masks, self.mask_token, kept, share)
        local = None
        if step.local is not None:
            local = self.tokens(self.encoder, step.local, kept=local_kept, share=share)[:, 0]
        return seen[:, 0], seen[:, 1:].flatten(0, 1)[hidden], local

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

    def spread(self, embedded: Tensor, taught: Tensor) -> tuple[str, float, Tensor]:
        """Return name, weight and sum over the two views of KoLeo or the kernel density."""
        config = self.config
        among = taught.chunk(2) if config.neighbours == "teacher" else (None, None)
        views = list(zip(embedded.chunk(2), among, strict=True))
        if config.koleo_weight is not None:
            return "koleo", config.koleo_weight, sum(koleo(v, others) for v, others in views)
        options = (config.self_pairs, config.kde_reduction)
        terms = [kde(v, config.kappa, others, *options) for v, others in views]
        return "kde", config.kde_weight, sum(terms)

    def follow(self, momentum: float) -> None:
        """Move the teacher: teacher = momentum * teacher + (1 - momentum) * student."""
        student = [*self.encoder.parameters(), *self.head.parameters()]
        teacher = [*self.teacher_encoder.parameters(), *self.teacher_head.parameters()]
        if self.ibot_head:
            student += self.ibot_head.parameters()
            teacher += self.teacher_ibot_head.parameters()
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)
