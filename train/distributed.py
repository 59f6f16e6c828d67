"""Many processes as one: who we are, and sums and gathers among the ranks.

A process started without torchrun is a group of one, so that nothing else has to ask.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

PR_SET_PDEATHSIG = 1  # linux/prctl.h
GONE = r"Connection closed by peer|Connection reset by peer|Broken pipe"  # gloo's words


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device


def start() -> World:
    """Join the process group: gloo on CPU, NCCL beside it where there is a GPU.

    Reads torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK). CPU tensors always go through
    gloo, so that the ranks can agree on a flag without waiting for the device.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    else:
        device, backend = torch.device("cpu"), "gloo"
    if "RANK" in os.environ:
        _die_with_torchrun()
        dist.init_process_group(backend)
    else:
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    return World(dist.get_rank(), dist.get_world_size(), device)


def _die_with_torchrun() -> None:
    """Have the kernel kill this worker when torchrun dies.

    torchrun starts workers in sessions of their own: killed by -9 or for lack of memory, it would
    leave them training on, and writing to the folder that the resumed run writes to.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_alone(error: RuntimeError) -> bool:
    """Tell whether gloo failed because the process at the other end is gone."""
    return "gloo" in str(error) and re.search(GONE, str(error)) is not None


def stop() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def gather(x: Tensor) -> Tensor:
    """Concatenate the ranks' tensors along the first axis, without gradient.

    Args:
        x: (N, …), of equal shape on all ranks.

    Returns:
        (ranks * N, …), in the order of the ranks.
    """
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Sum(torch.autograd.Function):
    """Sum over the ranks; the gradient of every rank's loss reaches every rank's part."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum a tensor over the ranks, differentiably."""
    return _Sum.apply(x)


class _Gather(torch.autograd.Function):
    """Concatenate over the ranks; the gradient of every rank's loss reaches every rank's part."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather_with_gradient(x: Tensor) -> Tensor:
    """Concatenate the ranks' tensors (N, …) to (ranks * N, …), differentiably."""
    return _Gather.apply(x)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the ranks, in one exchange."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [g.numel() for g in gradients]
    for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(mean.view_as(gradient))


def any_rank(*flags: bool) -> list[bool]:
    """Tell which flags are up on any rank; all ranks get the same answer."""
    up = torch.tensor([int(flag) for flag in flags])
    dist.all_reduce(up, dist.ReduceOp.MAX)
    return [bool(flag) for flag in up]
