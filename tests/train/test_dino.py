"""DINOv2's parts against independent numpy: losses, targets, tokens, masks, groups, schedules."""

import numpy as np
import pytest
import torch
from torch import nn

from train.config import DinoConfig, configure
from train.dino import DINO, StepInputs
from train.losses import CENTRE_MOMENTUM, Targets, cross_entropy, kde, koleo, sinkhorn
from train.tokens import tokens

pytestmark = pytest.mark.usefixtures("alone")
RNG = np.random.default_rng(0)
METHODS = ("dinov2", "dinov2-no-local", "dinov2-no-local-kde")


def tiny(method: str = "dinov2-no-local", **settings) -> DinoConfig:
    """Settings of a small run."""
    small = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 8, "hidden": 32}
    small |= {"bottleneck": 16, "prototypes": 24, "epochs": 1, "epoch_samples": 80}
    return configure(method=method, **small | {"warmup_epochs": 0.2} | settings)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


# ---- KoLeo and kernel density --------------------------------------------------------------------


def koleo_in_numpy(x: np.ndarray, others: np.ndarray) -> float:
    """The official formula, its two epsilons and all."""
    x, others = unit(x), unit(others)
    total = 0.0
    for i, z in enumerate(x):
        nearest = max((o for j, o in enumerate(others) if j != i), key=lambda o: z @ o)
        total -= np.log(np.sqrt(((z - nearest + 1e-8) ** 2).sum()) + 1e-8)
    return total / len(x)


def kde_in_numpy(x: np.ndarray, others: np.ndarray, kappa: float, self_pairs: bool, mean: bool):
    x, others = unit(x), unit(others)
    terms = []
    for i, z in enumerate(x):
        kernel = [np.exp(kappa * z @ o) for j, o in enumerate(others) if self_pairs or j != i]
        terms.append(np.log(np.mean(kernel) if mean else np.sum(kernel)))
    return np.mean(terms) if mean else np.sum(terms)


@pytest.mark.parametrize("teacher", [False, True])
def test_koleo_and_density_against_numpy(teacher):
    x, t = RNG.normal(size=(12, 6)), RNG.normal(size=(12, 6))
    others = torch.from_numpy(t) if teacher else None
    x_torch = torch.from_numpy(x)
    expected = koleo_in_numpy(x, t if teacher else x)
    assert abs(koleo(x_torch, others).item() - expected) < 1e-6
    for self_pairs in (False, True):
        for reduction in ("mean", "sum"):
            found = kde(x_torch, 5.0, others, self_pairs, reduction).item()
            other = t if teacher else x
            expected = kde_in_numpy(x, other, 5.0, self_pairs, reduction == "mean")
            assert abs(found - expected) < 1e-6


@pytest.mark.parametrize("loss", [koleo, lambda x: kde(x, 5.0), lambda x: kde(x, 5.0, None, True)])
def test_gradients_are_the_finite_differences_and_spread(loss):
    x = torch.from_numpy(RNG.normal(size=(7, 4))).requires_grad_()
    assert torch.autograd.gradcheck(loss, (x,), eps=1e-6, atol=1e-5)
    before = loss(x).item()
    loss(x).backward()
    assert loss(x - 0.01 * x.grad).item() < before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [koleo, lambda x: kde(x, 5.0)], ids=["koleo", "kde"])
def test_identical_crops_give_finite_losses_and_gradients(loss, dtype):
    for row in (torch.randn(1, 32), torch.zeros(1, 32)):
        x = row.repeat(8, 1).to(dtype).requires_grad_()
        value = loss(x)
        value.backward()
        assert value.isfinite()
        assert x.grad.isfinite().all()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    with torch.autocast("cpu", torch.bfloat16):  # a whole step computes them in float32 too
        y = torch.randn(8, 32)
        assert torch.equal(loss(y), _outside(loss, y))


def _outside(loss, y: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return loss(y)


# ---- targets -------------------------------------------------------------------------------------


def sinkhorn_in_numpy(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The paper of SwAV's: rows of the (K, B) matrix to 1 / K, columns to 1 / B, three times."""
    q = np.exp(logits / temperature).T
    prototypes, count = q.shape
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdims=True) * prototypes
        q /= q.sum(0, keepdims=True) * count
    return (q * count).T


def test_sinkhorn_against_numpy():
    logits = RNG.uniform(-1, 1, (20, 6))
    found = sinkhorn(torch.from_numpy(logits), 0.07).numpy()
    assert np.abs(found - sinkhorn_in_numpy(logits, 0.07)).max() < 1e-12
    assert np.allclose(found.sum(1), 1)
    logits[:, 0] += 0.5  # a prototype that everyone likes is shared out all the same
    even = sinkhorn(torch.from_numpy(logits), 0.07).sum(0) / 20
    plain = torch.softmax(torch.from_numpy(logits) / 0.07, 1).sum(0) / 20
    assert (even - 1 / 6).abs().max() < 0.1 < plain[0] - 1 / 6
    assert sinkhorn(torch.zeros(0, 6), 0.07).shape == (0, 6)
    extreme = sinkhorn(torch.from_numpy(np.sign(logits)).float(), 0.04)
    assert extreme.isfinite().all()


def test_the_centre_moves_after_it_was_used():
    targets, logits = Targets(5, "centre").double(), RNG.normal(size=(2, 9, 5))
    centre = np.zeros(5)
    for batch in logits:
        found = targets(torch.from_numpy(batch), 0.1).numpy()
        expected = np.exp(log_softmax((batch - centre) / 0.1))
        assert np.abs(found - expected).max() < 1e-12
        centre = CENTRE_MOMENTUM * centre + (1 - CENTRE_MOMENTUM) * batch.mean(0)
        assert np.abs(targets.centre.numpy() - centre).max() < 1e-12
    targets(torch.zeros(0, 5, dtype=torch.float64), 0.1)  # no patch was masked
    assert np.abs(targets.centre.numpy() - centre).max() < 1e-12
    assert "centre" in targets.state_dict()  # a resumed run goes on with it


def test_cross_entropy_against_numpy():
    logits, target = RNG.normal(size=(6, 4)), RNG.dirichlet(np.ones(4), 6)
    found = cross_entropy(torch.from_numpy(logits), torch.from_numpy(target), 0.1).numpy()
    assert np.abs(found + (target * log_softmax(logits / 0.1)).sum(1)).max() < 1e-12


# ---- the whole loss ------------------------------------------------------------------------------


def step_inputs(model: DINO, images: int, step: int = 0) -> tuple[torch.Tensor, StepInputs]:
    """Return float64 views of some images and what else the model takes."""
    torch.manual_seed(step)
    views = [torch.rand(2 * images, 3, 40, 40, dtype=torch.float64)]
    if count := model.config.local_crops:
        views.append(torch.rand(count * images, 3, 24, 24, dtype=torch.float64))
    return model.step_inputs(model.draws(step, range(images)), views, {"temperature": 0.05})


def head_in_numpy(head: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        hidden = unit(head.mlp(x).numpy())
    prototypes = unit(head.last_layer.weight.detach().numpy())
    return hidden @ (prototypes * head.last_layer_length.detach().numpy()).T


@pytest.mark.parametrize(
    ("method_name", "ibot_head"),
    [("dinov2", "shared"), ("dinov2-no-local", "separate"), ("dinov2-no-local-kde", "shared")],
)
def test_the_whole_loss_against_numpy(method_name, ibot_head):
    """From the networks' tokens on, image by image and pair by pair, as the paper writes it."""
    locals_ = {"local_crops": 2} if method_name == "dinov2" else {}
    # without layer scale, which starts all images alike
    config = tiny(method_name, ibot_head=ibot_head, drop_path=0, layer_scale=0, **locals_)
    model, n = DINO.build(config).double(), 5
    with torch.no_grad():
        for p in [*model.teacher_encoder.parameters(), *model.teacher_head.parameters()]:
            p.add_(0.02 * torch.randn_like(p))
        model.mask_token.normal_()
        model.head.last_layer_length.uniform_(0.5, 1.5)
    views, step = step_inputs(model, n)
    result = model(views, step)

    with torch.no_grad():
        student = tokens(model.encoder, views, step.masks, model.mask_token)
        teacher = tokens(model.teacher_encoder, views)
        crops = [] if step.local is None else tokens(model.encoder, step.local, offset=0.1)[:, 0]
    heads = model.ibot_head or model.head, model.teacher_ibot_head or model.teacher_head
    logits = head_in_numpy(model.teacher_head, teacher[:, 0])
    target = sinkhorn_in_numpy(logits, 0.05)
    log_p = log_softmax(head_in_numpy(model.head, student[:, 0]) / 0.1)
    pairs = [-(target[n + i] * log_p[i]).sum() for i in range(n)]
    pairs += [-(target[i] * log_p[n + i]).sum() for i in range(n)]
    if step.local is None:
        dino = 2 / 3 * np.mean(pairs)  # 2 / (2 + max(0, 1))
    else:
        log_l = log_softmax(head_in_numpy(model.head, crops) / 0.1).reshape(2, n, -1)
        terms = [
            np.mean([-(target[g * n + i] * log_l[c, i]).sum() for i in range(n)])
            for c in range(2)
            for g in range(2)
        ]
        dino = (np.mean(pairs) * 2 + sum(terms)) / (2 + 4)
    assert abs(result["dino"].item() - dino) < 1e-6

    masks = step.masks.numpy()
    patches = head_in_numpy(heads[1], teacher[:, 1:].flatten(0, 1)[masks.ravel()])
    patch_target = sinkhorn_in_numpy(patches, 0.05)
    log_m = log_softmax(head_in_numpy(heads[0], student[:, 1:].flatten(0, 1)[masks.ravel()]) / 0.1)
    at, ibot = 0, 0.0
    for mask in masks:
        own = slice(at, at + mask.sum())
        if mask.any():
            ibot += np.mean(-(patch_target[own] * log_m[own]).sum(1)) / (2 * n)
        at += mask.sum()
    assert abs(result["ibot"].item() - ibot) < 1e-6

    z = student[:, 0].numpy()
    halves = (z[:n], z[n:])
    if method_name == "dinov2-no-local-kde":
        spread = 0.05 * sum(kde_in_numpy(h, h, 5.0, False, True) for h in halves)
    else:
        spread = 0.1 * sum(koleo_in_numpy(h, h) for h in halves)
    assert abs(result["loss"].item() - (dino + ibot + spread)) < 1e-6
    entropy = np.mean(-(target * np.log(target)).sum(1))
    assert abs(result["entropy"].item() - entropy) < 1e-6
    assert torch.allclose(result["embedding"], teacher[:n, 0])

    result["loss"].backward()
    named = dict(model.named_parameters())
    assert all(p.grad is None for k, p in named.items() if k.startswith("teacher"))
    assert all(p.grad.abs().sum() > 0 for p in named.values() if p.requires_grad)


@pytest.mark.parametrize("method_name", METHODS)
def test_equal_images_are_finite_in_bf16(method_name):
    model = DINO.build(tiny(method_name))
    views, step = step_inputs(model, 8)
    views = views[:1].float().repeat(16, 1, 1, 1)
    local = None if step.local is None else step.local[:1].float().repeat(len(step.local), 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        result = model(views, step._replace(local=local))
    assert result["loss"].dtype == torch.float32
    result["loss"].backward()
    model.clip_gradients()
    assert result["loss"].isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("method_name", METHODS)
def test_an_update_leaves_the_teacher_out_of_the_graph(method_name):
    """Else the graph grows by a node a step and a parameter, and memory with it."""
    model = DINO.build(tiny(method_name))
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.0)
    for step in range(2):
        model.update(optimizer, model.schedule(step, optimizer))
    for network in (model.teacher_encoder, model.teacher_head):
        for parameter in network.parameters():
            assert parameter.is_leaf and not parameter.requires_grad
