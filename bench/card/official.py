"""The official codes' shape, to compare with: written anew, a forward a view and network."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from train.dino import DINO
from train.method import Method
from train.moco import MoCo, contrast
from train.policy import Policy


def step(model: Method, amp: bool) -> Callable[..., None]:
    """Return a step: default AdamW, the teacher moved parameter by parameter.

    Args:
        model: of a method, on its device.
        amp: fp16 autocast and a scaler, as moco-v3; else float32.
    """
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=1e-4)
    device = next(model.parameters()).device.type
    amp = amp and device == "cuda"
    scaler = torch.amp.GradScaler(device, enabled=amp)

    def once(views: list[Tensor], inputs: tuple) -> None:
        with torch.autocast(device, torch.float16) if amp else nullcontext():
            loss = _moco(model, views[0]) if isinstance(model, MoCo) else model(*inputs)["loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if isinstance(model, DINO):
            _move(model.teacher_encoder, model.encoder)
            _move(model.teacher_head, model.head)

    return once


def _moco(model: MoCo, views: Tensor) -> Tensor:
    x1, x2 = views.chunk(2)
    q1 = model.predictor(model.projector(model.encoder(x1)))
    q2 = model.predictor(model.projector(model.encoder(x2)))
    with torch.no_grad():
        _move(model.teacher_encoder, model.encoder)
        _move(model.teacher_projector, model.projector)
        k1 = model.teacher_projector(model.teacher_encoder(x1))
        k2 = model.teacher_projector(model.teacher_encoder(x2))
    tau = model.config.temperature
    return contrast(q1, k2, tau)[0] + contrast(q2, k1, tau)[0]


def _move(teacher: torch.nn.Module, student: torch.nn.Module) -> None:
    for t, p in zip(teacher.parameters(), student.parameters(), strict=True):
        t.data = t.data * 0.99 + p.data * 0.01


def views(policy: Policy) -> Callable[[Tensor], Tensor]:
    """Return two views through torchvision v2, image by image on the images' device."""
    from torchvision.transforms import v2

    from bench.card.work import MEAN, STD

    def view(blur_p: float) -> v2.Compose:
        return v2.Compose(
            [
                v2.RandomRotation(180, v2.InterpolationMode.BILINEAR),
                v2.CenterCrop(policy.view_px),
                v2.RandomResizedCrop(policy.view_px, policy.scale),
                v2.RandomApply([v2.ColorJitter(*policy.jitter)], policy.jitter_p),
                v2.RandomGrayscale(policy.grey_p),
                v2.RandomApply([v2.GaussianBlur(policy.blur_kernel, policy.blur_sigma)], blur_p),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.RandomErasing(policy.erase_p, policy.erase_scale, policy.erase_ratio),
                v2.Normalize(MEAN, STD),
            ]
        )

    first, second = map(view, policy.blur_p)

    def both(crops: Tensor) -> Tensor:
        return torch.stack([v(c) for v in (first, second) for c in crops])

    return both
