"""MoCo v3: two views, a student that predicts, a teacher that follows, keys of all ranks.

Chen, Xie, He: An Empirical Study of Training Self-Supervised Vision Transformers, 2021; the heads,
the 2τ and the order of things as in the official moco-v3/moco/builder.py. Settings: MocoConfig of
train/config.py.
"""

import copy
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from shards.schema import VIEW_PX
from train import schedule
from train.batchnorm import BatchNorm
from train.config import MocoConfig
from train.distributed import gather
from train.encoder import build_encoder
from train.flops import training_flops
from train.measured import Measured
from train.measures import NAMES
from train.method import Method, move_teacher
from train.network import Encoder, stage_means, stage_widths
from train.policy import Policy

FAR = 4.0  # standard deviations, beyond which a measure counts as this far


def mlp(widths: list[int]) -> nn.Sequential:
    """Build a head: Linear without bias, BatchNorm and ReLU; the last BatchNorm without affine.

    Args:
        widths: of input, hidden layers and output.
    """
    layers: list[nn.Module] = []
    for i, (into, out) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        layers += [nn.Linear(into, out, bias=False), BatchNorm(out, affine=not last)]
        layers += [] if last else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Measurer(nn.Module):
    """A linear head that predicts the handcrafted measures of a crop from the features of a view.

    Views turn, mirror, crop and recolour a nucleus; what it looked like before is asked for, so
    that the embedding keeps its shape and texture. Not in the paper.
    """

    def __init__(self, width: int):
        super().__init__()
        self.standardise = BatchNorm(len(NAMES), affine=False)
        self.linear = nn.Linear(width, len(NAMES))

    def forward(self, features: Tensor, measures: Tensor) -> Tensor:
        """Return the mean smooth L1 loss of the measures, standardised over the global batch.

        Args:
            features: (2 * N, D) of both views.
            measures: (N, 76) of the crops.
        """
        with torch.autocast(features.device.type, enabled=False):
            target = self.standardise(measures).clamp(-FAR, FAR)
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            return F.smooth_l1_loss(self.linear(features), torch.cat([target, target]))


class MoCo(Method):
    """Student (encoder, projector, predictor) and teacher (encoder, projector)."""

    exported = "student"  # (moco-v3, main_lincls.py)

    def __init__(self, encoder: Encoder, config: MocoConfig):
        """Put heads on an encoder and copy it to a teacher.

        Args:
            encoder: from images to (N, encoder.embed_dim).
            config: settings of the run.
        """
        super().__init__()
        self.config, hidden, out = config, config.hidden, config.projection
        self.encoder = encoder
        # A BatchNorm in the backbone looks at all images of a view, as those of the heads do.
        self.one_view_a_pass = any(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
        layers = config.projector_layers or (2 if self.one_view_a_pass else 3)
        self.projector = mlp([encoder.embed_dim, *[hidden] * (layers - 1), out])
        self.predictor = mlp([out, hidden, out])
        self.measurer = Measurer(self.width) if config.measures_weight else None
        self.teacher_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)

    @property
    def width(self) -> int:
        """Of `features`, of which the embedding is the last: a ResNet's stages are measured too."""
        if self.config.measures_weight and self.one_view_a_pass:
            return sum(stage_widths(self.encoder))
        return self.encoder.embed_dim

    @classmethod
    def build(cls, config: MocoConfig) -> "MoCo":
        """Build the networks; their weights are a function of the seed alone."""
        encoder = build_encoder(config.encoder, seed=config.seed, heads=config.heads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return cls(encoder, config)

    # ---- a step ----------------------------------------------------------------------------------

    def forward(
        self, views: Tensor, momentum: float, measures: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the loss of a batch, after moving the teacher towards the student.

        Queries come from the student before, keys from the teacher after the move; the student
        does not change in between, so the official order is kept. Both views go through a ViT at
        once, since it looks at each image alone, and one after the other through a ResNet.

        Args:
            views: (2 * N, 3, H, W): the N first views, then the N second ones.
            momentum: of the teacher.
            measures: as of `compare`.

        Returns:
            As of `compare`.
        """
        student = self.features(self.encoder, views)
        with torch.no_grad():
            self.update_teacher(momentum)
            teacher = self.features(self.teacher_encoder, views)
        return self.compare(student, teacher, measures)

    def features(self, encoder: nn.Module, views: Tensor) -> Tensor:
        """Return an encoder's features (2 * N, width) of both views."""
        if not self.one_view_a_pass:
            return encoder(views)
        views = views.contiguous(memory_format=torch.channels_last)  # convolutions like it so
        read = partial(stage_means, encoder) if self.measurer else encoder
        return torch.cat([read(view) for view in views.chunk(2)])

    def compare(
        self, student: Tensor, teacher: Tensor, measures: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the loss of features: heads, and each query against all keys.

        Args:
            student: (2 * N, width) features of its encoder, first views, then second.
            teacher: (2 * N, width), likewise.
            measures: (N, 76) of the crops, with `measures_weight`.

        Returns:
            loss, with gradient; accuracy, the share of queries whose nearest key is their own;
            embedding (N, D), the student's of the first views, for the check for collapse; with
            measures, `measures`, the loss of their head.
        """
        width = self.encoder.embed_dim
        # One pass a view in the heads, whose BatchNorm looks at all.
        y1, y2 = student[:, -width:].chunk(2)
        q1, q2 = self.predictor(self.projector(y1)), self.predictor(self.projector(y2))
        with torch.no_grad():
            t1, t2 = teacher[:, -width:].chunk(2)
            k1, k2 = self.teacher_projector(t1), self.teacher_projector(t2)
        loss1, accuracy1 = contrast(q1, k2, self.config.temperature)
        loss2, accuracy2 = contrast(q2, k1, self.config.temperature)
        result = {
            "loss": loss1 + loss2,
            "accuracy": (accuracy1 + accuracy2) / 2,
            "embedding": y1.detach(),
        }
        if self.measurer and measures is not None:
            result["measures"] = self.measurer(student, measures)
            result["contrast"] = result["loss"].detach()
            result["loss"] = result["loss"] + self.config.measures_weight * result["measures"]
        return result

    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student; running statistics are each network's own."""
        pairs = [(self.teacher_encoder, self.encoder), (self.teacher_projector, self.projector)]
        move_teacher(pairs, momentum)

    # ---- a run -----------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's one group: all that is trained, biases and norms too (moco-v3)."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [{"params": trained, "weight_decay": self.config.weight_decay}]

    def policies(self, policy: Policy) -> list[Policy]:
        """Return how each view of an image is drawn."""
        return [policy] * 2

    def schedule(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Set the optimiser's one rate for a step; return rate and momentum."""
        c = self.config
        lr = schedule.learning_rate(step, c.steps, c.warmup_steps, c.peak_lr)
        for group in optimizer.param_groups:
            group["lr"] = lr
        return {"lr": lr, "momentum": schedule.momentum(step, c.steps, c.momentum)}

    @property
    def draws(self) -> Measured | None:
        """What measures the crops of a batch in the loader."""
        return Measured() if self.measurer else None

    def step_inputs(
        self, drawn: Tensor | None, views: Sequence[Tensor], values: dict[str, float]
    ) -> tuple[Tensor, float] | tuple[Tensor, float, Tensor]:
        """Return what `forward` takes."""
        if drawn is None:
            return views[0], values["momentum"]
        return views[0], values["momentum"], drawn.to(views[0].device, non_blocking=True)

    def update(self, optimizer: torch.optim.Optimizer, values: dict[str, float]) -> None:
        """Take the optimiser's step; the teacher was moved within `forward`."""
        optimizer.step()

    @property
    def first_checked(self) -> float:
        """The steps after which embeddings are checked for collapse."""
        return self.config.warmup_steps

    @property
    def chance(self) -> tuple[str, float]:
        """The loss where every key is as near as its own: two directions, 2τ each (`contrast`)."""
        term = "contrast" if self.measurer else "loss"
        return term, 4 * self.config.temperature * math.log(self.config.batch)

    def flops(self) -> int:
        """Return the floating-point operations of a step for one image of its batch."""
        heads = (self.projector, self.predictor, *([self.measurer] if self.measurer else []))
        weights = sum(p.numel() for head in heads for p in head.parameters() if p.ndim == 2)
        return training_flops(self.teacher_encoder, VIEW_PX, weights)

    def compared_with(self, ranks: int) -> tuple[str, str]:
        """Return a word and a phrase on what an image is compared with."""
        return "negatives", f"{self.config.batch - 1} a query, gathered from {ranks} ranks"


def contrast(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return 2τ times the InfoNCE loss against the keys of all ranks, and the accuracy.

    Paper, section 1.1; moco-v3, builder.py, contrastive_loss. In float32 whatever the autocast
    (float64 stays), since bfloat16 resolves a cosine to 0.004.

    Args:
        queries: (N, D) of this rank.
        keys: (N, D) of this rank, in the same order, without gradient.
        temperature: τ.

    Returns:
        Two scalars, means over this rank's queries.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        logits = queries @ gather(keys).T / temperature  # (N, ranks * N)
        own = torch.arange(len(queries), device=queries.device) + len(queries) * dist.get_rank()
        loss = 2 * temperature * F.cross_entropy(logits, own)
    return loss, (logits.argmax(1) == own).float().mean().detach()
