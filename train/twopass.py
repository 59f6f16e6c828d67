"""The two-pass step: a big contrastive batch on small memory, with the plain step's gradients.

Gradient accumulation would not do: each part would see only its own negatives. Here all features
are computed first, without keeping activations; the loss on all of them gives the gradient at each
embedding; then each part is embedded again and that gradient is sent through it (GradCache, Gao et
al. 2021). Heads and their BatchNorm see the whole batch at once, so the step equals the plain one;
it would not if the backbone itself had BatchNorm.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from train.distributed import average_gradients
from train.moco import MoCo


def two_pass(
    model: MoCo,
    views: Tensor,
    momentum: float,
    measures: Tensor | None = None,
    *,
    chunk: int,
    autocast: Callable[[], AbstractContextManager],
) -> dict[str, Tensor]:
    """Do the forward and backward passes of a step, `chunk` images at a time.

    Args:
        model: not wrapped for DDP; its gradients are averaged over the ranks here.
        views: (2 * N, 3, H, W), as for MoCo.forward.
        momentum: of the teacher.
        measures: as for MoCo.forward.
        chunk: images whose activations fit in memory.
        autocast: makes the context of the forward passes.

    Returns:
        What MoCo.forward returns, the loss detached; gradients are in the parameters.
    """
    parts = views.split(chunk)
    with torch.no_grad(), autocast():
        model.update_teacher(momentum)
        teacher = torch.cat([model.teacher_encoder(p) for p in parts])  # (2 * N, D)
        student = torch.cat([model.encoder(p) for p in parts])
    student.requires_grad_()
    with autocast():
        result = model.compare(student, teacher, measures)
    result["loss"].backward()
    assert student.grad is not None
    for part, gradient in zip(parts, student.grad.split(chunk), strict=True):
        with autocast():
            again = model.encoder(part)
        again.backward(gradient)
    average_gradients(model.parameters())
    return result | {"loss": result["loss"].detach()}
