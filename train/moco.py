"""MoCo v3: two views, a student that predicts, a teacher that follows, keys of all ranks.

Chen, Xie, He: An Empirical Study of Training Self-Supervised Vision Transformers, 2021; the heads,
the 2τ and the order of things as in the official moco-v3/moco/builder.py.
"""

import copy
from itertools import pairwise

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from train.batchnorm import BatchNorm
from train.distributed import gather


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


class MoCo(nn.Module):
    """Student (encoder, projector, predictor) and teacher (encoder, projector)."""

    def __init__(self, encoder: nn.Module, temperature: float, hidden: int, out: int):
        """Put heads on an encoder and copy it to a teacher.

        Args:
            encoder: from images to (N, encoder.embed_dim).
            temperature: τ.
            hidden: width of the heads' hidden layers; 4096.
            out: width of projection and prediction; 256.
        """
        super().__init__()
        self.encoder = encoder
        self.projector = mlp([encoder.embed_dim, hidden, hidden, out])
        self.predictor = mlp([out, hidden, out])
        self.teacher_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.teacher_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.temperature = temperature

    def forward(self, views: Tensor, momentum: float) -> dict[str, Tensor]:
        """Return the loss of a batch, after moving the teacher towards the student.

        Queries come from the student before, keys from the teacher after the move; the student
        does not change in between, so the official order is kept. Both views go through the
        backbone at once, since it looks at each image alone.

        Args:
            views: (2 * N, 3, H, W): the N first views, then the N second ones.
            momentum: of the teacher.

        Returns:
            As of `compare`.
        """
        embedded = self.encoder(views)  # (2 * N, D)
        with torch.no_grad():
            self.follow(momentum)
            taught = self.teacher_encoder(views)
        return self.compare(embedded, taught)

    def compare(self, embedded: Tensor, taught: Tensor) -> dict[str, Tensor]:
        """Return the loss of embedded views: heads, and each query against all keys.

        Args:
            embedded: (2 * N, D) by the student's encoder, first views, then second.
            taught: (2 * N, D) by the teacher's.

        Returns:
            loss, with gradient; accuracy, the share of queries whose nearest key is their own; and
            embedding (N, D), the student's of the first views, for the collapse watch.
        """
        y1, y2 = embedded.chunk(2)  # one pass a view in the heads, whose BatchNorm looks at all
        q1, q2 = self.predictor(self.projector(y1)), self.predictor(self.projector(y2))
        with torch.no_grad():
            t1, t2 = taught.chunk(2)
            k1, k2 = self.teacher_projector(t1), self.teacher_projector(t2)
        loss1, accuracy1 = contrast(q1, k2, self.temperature)
        loss2, accuracy2 = contrast(q2, k1, self.temperature)
        return {
            "loss": loss1 + loss2,
            "accuracy": (accuracy1 + accuracy2) / 2,
            "embedding": y1.detach(),
        }

    def follow(self, momentum: float) -> None:
        """Move the teacher: teacher = momentum * teacher + (1 - momentum) * student."""
        student = [*self.encoder.parameters(), *self.projector.parameters()]
        teacher = [*self.teacher_encoder.parameters(), *self.teacher_projector.parameters()]
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)


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
