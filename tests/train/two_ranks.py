"""DINOv2's losses and targets on this rank's part of some embeddings; a script for one rank.

python tests/train/two_ranks.py RANK FOLDER
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
import torch.distributed as dist

from train.losses import Targets, kde, koleo


def parts_of(rank: int, ranks: int) -> dict[str, torch.Tensor]:
    """Return losses, gradients and targets of this rank's part of 12 embeddings."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    y = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    size = 12 // ranks
    rows, found = slice(rank * size, (rank + 1) * size), {}
    terms = {
        "koleo": koleo,
        "koleo within": lambda z: koleo(z, within_rank=True),
        "koleo within teacher": lambda z: koleo(z, y[rows], within_rank=True),
        "koleo teacher": lambda z: koleo(z, y[rows]),
        "kde": lambda z: kde(z, 5.0),
        "kde sum": lambda z: kde(z, 5.0, None, True, "sum"),
        "kde teacher": lambda z: kde(z, 5.0, y[rows]),
    }
    for name, term in terms.items():
        z = x[rows].clone().requires_grad_()
        loss = term(z)
        loss.backward()
        found[name] = loss.detach().expand(size)
        # DDP averages over ranks the gradients of parameters, here the embeddings themselves
        found[f"{name} gradient"] = z.grad / ranks
    # patches: ranks hold unequal numbers, here the first half of rank 1's
    uneven = rows if rank == 0 else slice(rows.start, (rows.start + rows.stop) // 2)
    uneven = slice(0, 9) if ranks == 1 else uneven
    for kind in ("sinkhorn", "centre"):
        targets = Targets(5, kind).double()
        found[kind] = targets(y[uneven] / 10, 0.1)
        found[f"{kind} again"] = targets(y[uneven] / 10, 0.1)
    return found


if __name__ == "__main__":
    rank, folder = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group(
        "gloo", store=dist.FileStore(f"{folder}/store", 2), rank=rank, world_size=2
    )
    torch.save(parts_of(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
