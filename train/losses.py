"""DINOv2's losses: targets and cross-entropy, and what spreads the features over the sphere.

The teacher's targets are sharpened, and kept from collapse by Sinkhorn-Knopp or by a centre. KoLeo
and the paper's kernel density look at the images of all ranks, in float32 whatever the autocast
(float64 stays); each rank returns its own images' part, so that the mean over ranks is the loss of
the global batch.
"""

import math

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from train.distributed import gather, gather_with_gradient

ITERATIONS = 3  # of Sinkhorn-Knopp (dinov2)
CENTRE_MOMENTUM = 0.9  # (dinov2)
EPS = 1e-8  # of lengths, differences and distances (dinov2)


def sinkhorn(logits: Tensor, temperature: float) -> Tensor:
    """Assign rows to prototypes so that, over all ranks, each prototype is used alike.

    Source: dinov2, loss/dino_clstoken_loss.py and ibot_patch_loss.py. The last step is over
    prototypes: rows sum to 1.

    Args:
        logits: (N, K) float of this rank; ranks may hold different N.
        temperature: of the teacher.

    Returns:
        (N, K).
    """
    q = torch.exp(logits / temperature)
    total, count = q.sum(), torch.full((), float(len(q)), device=q.device)
    dist.all_reduce(total)
    dist.all_reduce(count)
    q = q / total
    for _ in range(ITERATIONS):
        used = q.sum(0)  # (K,)
        dist.all_reduce(used)
        q = q / used / q.shape[1]
        q = q / q.sum(1, keepdim=True) / count
    return q * count


class Targets(nn.Module):
    """Turn the teacher's logits into distributions over prototypes."""

    centre: Tensor  # (K,), a buffer

    def __init__(self, prototypes: int, kind: str):
        """Choose how.

        Args:
            prototypes: K.
            kind: `sinkhorn` or `centre`.
        """
        super().__init__()
        self.kind = kind
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return the targets (N, K) of logits (N, K); the centre moves after it was used.

        dinov2 averages a GPU's patches first, then GPUs; here all ranks' rows count alike.
        """
        if self.kind == "sinkhorn":
            return sinkhorn(logits, temperature)
        targets = torch.softmax((logits - self.centre) / temperature, dim=1)
        total = torch.cat([logits.sum(0), logits.new_full((1,), len(logits))])
        dist.all_reduce(total)
        mean = torch.where(total[-1] > 0, total[:-1] / total[-1].clamp(min=1), self.centre)
        self.centre.mul_(CENTRE_MOMENTUM).add_(mean, alpha=1 - CENTRE_MOMENTUM)
        return targets


def cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Return each row's cross-entropy (N,) of the student's logits with the targets."""
    return -(targets * torch.log_softmax(logits / temperature, dim=1)).sum(1)


def koleo(x: Tensor, others: Tensor | None = None, within_rank: bool = False) -> Tensor:
    """Push each embedding from its nearest neighbour: the mean of -log of their distance.

    Kozachenko-Leonenko, as dinov2's loss/koleo_loss.py.
    Paper leaves open: section 1.1 has squared distances, summed, of the teacher's embeddings, which
    carry no gradient; here: the official code's.

    Args:
        x: (N, D) of this rank, with gradient.
        others: (N, D) of the same images, among which neighbours are sought, without gradient;
            None seeks them in x, with gradient.
        within_rank: seek them among this rank's images only, as dinov2 does.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, others, own = _sphere(x, others, within_rank)
        with torch.no_grad():
            cosine = x @ others.T
            cosine.scatter_(1, own[:, None], -2.0)  # a GPU waits for a number put at indices
            nearest = cosine.argmax(1)
        distance = (x - others[nearest] + EPS).norm(dim=1)
        return -torch.log(distance + EPS).mean()


def kde(
    x: Tensor,
    kappa: float,
    others: Tensor | None = None,
    self_pairs: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """Spread embeddings: over z, the log of the density of all z' under a von Mises-Fisher kernel.

    Paper, section 2.2 and A.2: sum over z of log sum over z' of exp(κ z·z'); κ 5, weight 0.05.

    Args:
        x: (N, D) of this rank, with gradient.
        kappa: κ, concentration of the kernel.
        others: as for `koleo`.
        self_pairs: let z' be z too.
        reduction: `mean` over z of the log of the mean over z', or `sum` of both, as printed.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, others, own = _sphere(x, others)
        exponent = kappa * x @ others.T  # (N, ranks * N)
        count = exponent.shape[1]
        if not self_pairs:
            hidden = torch.zeros_like(exponent, dtype=torch.bool)
            hidden.scatter_(1, own[:, None], True)
            exponent, count = exponent.masked_fill(hidden, -torch.inf), count - 1
        density = torch.logsumexp(exponent, dim=1)
        if reduction == "sum":
            return density.sum() * dist.get_world_size()
        return (density - math.log(count)).mean()


def _sphere(
    x: Tensor, others: Tensor | None, within_rank: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit rows of x, those of others (of all ranks), and where x's own are among these."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    x = F.normalize(x.to(wide), dim=1, eps=EPS)
    if within_rank:
        own = torch.arange(len(x), device=x.device)
        if others is not None:
            others = F.normalize(others.detach().to(wide), dim=1, eps=EPS)
        return x, x if others is None else others, own
    if others is None:
        everybody = gather_with_gradient(x)
    else:
        everybody = gather(F.normalize(others.detach().to(wide), dim=1, eps=EPS))
    own = torch.arange(len(x), device=x.device) + len(x) * dist.get_rank()
    return x, everybody, own
