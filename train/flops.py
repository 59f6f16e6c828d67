"""Floating-point operations: what an image costs, and what the machine can do."""

import time

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product shows the machine's peak
SECONDS = 0.3  # that the peak is measured for


def forward_flops(module: nn.Module, *shape: int) -> int:
    """Count a forward pass, 2 operations a multiply-add, by torch's own counter.

    Args:
        module: on the CPU or a GPU.
        shape: of its input, with a batch of 1.
    """
    x = torch.zeros(shape, device=next(module.parameters()).device)
    # The counter sees matrix products, not what a fused attention does inside.
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.no_grad(),
    ):
        module.eval()(x)
    module.train()
    return counter.get_total_flops()


def training_flops(encoder: nn.Module, input_px: int, head_weights: int) -> int:
    """Count what a step costs for one image of a batch.

    Two views, each through the student forward and (twice as dear) backward and the teacher
    forward; the heads likewise, where a weight is a multiply-add.

    Args:
        encoder: the student's.
        input_px: side of a view, px.
        head_weights: in projector and predictor.
    """
    return 2 * 4 * (forward_flops(encoder, 1, 3, input_px, input_px) + 2 * head_weights)


def matmul_peak(device: torch.device, precision: str) -> float:
    """Measure the FLOP/s of a large matrix product on a device.

    Args:
        device: of this rank.
        precision: `bf16` or `fp32`.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = SIDE[device.type]
    a = torch.rand(side, side, device=device, dtype=dtype)
    torch.mm(a, a)  # warm
    _wait(device)
    best, end = float("inf"), time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < end:
        torch.mm(a, a)
        _wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
