"""Right: the card's results against the CPU's in float64 or float32, with stated tolerances."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from bench.card.work import Card, batch_of, crops_of, normal, settings
from train import augment
from train.encoder import build_encoder
from train.methods import build_model
from train.policy import POLICIES
from train.views import make_views

METHODS = ("moco", "dinov2", "dinov2-no-local", "dinov2-no-local-kde")
# Share of the reference's norm by which float32 may differ; TF32 has 10 bits of 23.
TOLERANCES = {"float32": 1e-3, "TF32": 3e-2}
PIXELS = 2e-4  # of pixels in [0, 1], at the 99.9th percentile; where hues jump a pixel may differ


def right(card: Card) -> dict[str, dict]:
    """Compare; each entry holds difference, tolerance and whether it is within."""
    found: dict[str, dict] = {}

    def judge(name: str, difference: float, tolerance: float) -> None:
        within = difference <= tolerance  # no number is not
        found[name] = {"difference": difference, "tolerance": tolerance, "right": within}

    for name, difference in _operations(card):
        judge(f"augmentation {name}", difference, PIXELS)
    for tf32 in (False, True):
        kind = "TF32" if tf32 else "float32"
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        try:
            for policy in ("a0", "a1+gray"):
                judge(f"views {policy}, {kind} allowed", _views(card, policy), PIXELS)
            for method in METHODS:
                loss, gradient = _step(card, method)
                judge(f"{method} loss, {kind}", loss, TOLERANCES[kind])
                judge(f"{method} gradients, {kind}", gradient, TOLERANCES[kind])
            judge(f"embedding, {kind}", _embedding(card), TOLERANCES[kind])
        finally:
            torch.set_float32_matmul_precision(before[0])
            torch.backends.cudnn.allow_tf32 = before[1]
    judge(f"sum over one rank, {'NCCL' if card.device.type == 'cuda' else 'gloo'}", _sum(card), 0.0)
    return found


def _operations(card: Card) -> list[tuple[str, float]]:
    """Return the pixels' difference of each operation of train/augment.py by itself."""
    images = crops_of(64)[:, :, 10:50, 10:50].float() / 255
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(64, 1, generator=generator)
    box = torch.tensor([[5.0, 6.0, 12.0, 14.0]]).repeat(64, 1)
    lab = torch.tensor([[60.0, 20.0, -10.0, 12.0, 8.0, 8.0]]).repeat(64, 1)
    operations: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
        "brightness": (augment.brightness, 0.5 + one),
        "contrast": (augment.contrast, 0.5 + one),
        "saturation": (augment.saturation, 0.5 + one),
        "hue": (augment.hue, one / 2 - 0.25),
        "grey": (augment.to_grey, one),
        "erase": (partial(augment.erase, value=0.0), box),
        "blur": (partial(augment.blur, kernel=9), 0.1 + 1.9 * one),
        "solarize": (augment.solarize, one),
        "stain": (augment.reinhard, lab),
    }
    found = []
    for name, (operation, values) in operations.items():
        there = operation(images.clone().to(card.device), values.to(card.device)).cpu()
        found.append((name, _most(there.double(), operation(images.double(), values.double()))))
    return found


def _most(a: Tensor, b: Tensor) -> float:
    return float(torch.quantile((a - b).abs().flatten()[:1_000_000], 0.999))


def _views(card: Card, policy: str) -> float:
    """Return how far pixels of views lie from the CPU's."""
    config = settings(card, policy=policy, batch=64)
    batch, policies = batch_of(config, build_model(settings(card, encoder="vit_ti8", hidden=32)))
    draws = augment.join(
        [augment.draw(POLICIES[policy], v, 0, 0, config.batch, range(config.batch)) for v in (0, 1)]
    )
    batch, policies = batch._replace(draws=[draws]), [POLICIES[policy]] * 2
    views = [
        make_views(batch, policies, device, *normal(device))[0].cpu().double()
        for device in (card.device, torch.device("cpu"))
    ]
    return _most(*views)


def _step(card: Card, method: str) -> tuple[float, float]:
    """Return the relative differences of loss and gradients of a step in float32 from float64."""
    config = settings(card, method=method, encoder="vit_ti8", batch=16, hidden=64, precision="fp32")
    if method != "moco":
        config = replace(config, prototypes=256, bottleneck=32, layer_scale=0.1)
    results = []
    for device, dtype in ((card.device, torch.float32), (torch.device("cpu"), torch.float64)):
        model = build_model(config).to(device, dtype)
        batch, policies = batch_of(config, model)
        views = make_views(batch, policies, torch.device("cpu"), *normal(torch.device("cpu")))
        views = [v.to(device, dtype) for v in views]
        values = model.schedule(1, torch.optim.AdamW(model.parameter_groups(), lr=0.0))
        loss = model(*model.step_inputs(batch.drawn, views, values))["loss"]
        loss.backward()
        grown = [p.grad for p in model.parameters() if p.grad is not None]
        gradients = torch.cat([g.flatten().cpu().double() for g in grown])
        results.append((loss.detach().cpu().double(), gradients))
    (loss, gradients), (true, trues) = results
    return float((loss - true).abs() / true.abs()), float((gradients - trues).norm() / trues.norm())


def _embedding(card: Card) -> float:
    """Return the relative difference of embeddings in float32 from float64's."""
    encoder = build_encoder("vit_ti8" if card.tiny else "vit_s8").eval()
    images = torch.rand(32, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        there = encoder.to(card.device)(images.to(card.device)).cpu().double()
        true = encoder.cpu().double()(images.double())
    return float((there - true).norm() / true.norm())


def _sum(card: Card) -> float:
    """Return how far a sum over one rank lies from gloo's."""
    x = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    there, here = x.to(card.device), x.clone()
    dist.all_reduce(there)
    dist.all_reduce(here)
    return float((there.cpu() - here).abs().max())
