"""The teacher's targets: sharpened, and kept from collapse by Sinkhorn-Knopp or by a centre."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

ITERATIONS = 3  # of Sinkhorn-Knopp (dinov2)
CENTRE_MOMENTUM = 0.9  # (dinov2)


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
    total, count = q.sum(), torch.tensor(float(len(q)), device=q.device)
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
