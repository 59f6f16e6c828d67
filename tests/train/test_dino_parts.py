"""DINOv2's parts against references: tokens, masks, groups, schedules, settings."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from tests.train.test_dino import METHODS, tiny
from train.config import configure
from train.dino import DINO
from train.encoder import build_encoder
from train.mask import draw_kept, draw_masks, kept_rows
from train.tokens import positions, tokens

pytestmark = pytest.mark.usefixtures("alone")


# ---- tokens --------------------------------------------------------------------------------------


def test_tokens_are_timms_and_positions_are_interpolated():
    encoder = build_encoder("vit_ti8", kind="dinov2", layer_scale=0.1).double().eval()
    images = torch.rand(3, 3, 40, 40, dtype=torch.float64)
    assert torch.allclose(tokens(encoder, images), encoder.forward_features(images), atol=1e-12)
    assert torch.allclose(tokens(encoder, images)[:, 0], encoder(images), atol=1e-12)
    assert tokens(encoder, images[..., :24, :24]).shape == (3, 10, 192)
    assert positions(encoder.pos_embed, 5) is encoder.pos_embed
    # the middle of 3 lies on the middle of 5; bicubic keeps a plane where no border is near
    plane = torch.cat([torch.full((1, 1), 7.0), torch.arange(25.0)[:, None]])[None]
    found = positions(plane, 3)[0, :, 0]
    assert found[0] == 7
    assert found[5].item() == pytest.approx(12)
    encoder.set_grad_checkpointing(True)
    assert torch.allclose(tokens(encoder, images), encoder.forward_features(images), atol=1e-12)


def test_a_masked_patch_is_not_seen():
    encoder = build_encoder("vit_ti8", kind="dinov2")
    masked = torch.zeros(2, 25, dtype=torch.bool)
    masked[:, 7] = True  # row 1, column 2
    images = torch.rand(1, 3, 40, 40).repeat(2, 1, 1, 1)
    images[1, :, 8:16, 16:24] = 0
    a, b = tokens(encoder, images, masked, torch.ones(192))
    assert torch.equal(a, b)
    a, b = tokens(encoder, images)
    assert not torch.allclose(a, b)


def test_dropped_branches_by_hand():
    encoder = build_encoder("vit_ti8", kind="dinov2").double()
    images = torch.rand(4, 3, 40, 40, dtype=torch.float64)
    kept = draw_kept(0, 0, 4, range(4), 1, 12, 0.3)
    kept[:, 5, 1] = False  # a branch that nobody computes
    kept[3] = False
    rows, counts = kept_rows(kept)
    found = tokens(encoder, images, kept=rows.split(counts), share=0.7)
    for i in range(4):  # one image at a time, without indices
        x = encoder.patch_embed(images[i : i + 1])
        x = encoder._pos_embed(x)
        for k, block in zip(kept[i], encoder.blocks, strict=True):
            x = x + (block.attn(block.norm1(x)) / 0.7 if k[0] else 0)
            x = x + (block.mlp(block.norm2(x)) / 0.7 if k[1] else 0)
        assert torch.allclose(found[i], encoder.norm(x)[0], atol=1e-12)


def test_activation_checkpointing_changes_no_gradient():
    encoder = build_encoder("vit_ti8", kind="dinov2", layer_scale=0.1)
    images = torch.rand(6, 3, 40, 40)
    rows, counts = kept_rows(draw_kept(0, 0, 6, range(6), 1, 12, 0.3))
    gradients = []
    for spare in (False, True):
        encoder.zero_grad()
        encoder.set_grad_checkpointing(spare)
        tokens(encoder, images, kept=rows.split(counts), share=0.7).square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    assert all(map(torch.allclose, *gradients))


# ---- groups, schedules, clipping -----------------------------------------------------------------


def test_groups_are_dinov2s():
    """layer_decay ** (13 - layer); embeddings at 0, the patches' a fifth; no decay of biases."""
    model = DINO.build(tiny(ibot_head="separate"))
    groups = model.parameter_groups()
    of = {id(p): g for g in groups for p in g["params"]}
    expected = {
        "encoder.pos_embed": (0.9**13, 1, False),
        "encoder.cls_token": (0.9**13, 1, False),
        "mask_token": (0.9**13, 1, False),
        "encoder.patch_embed.proj.weight": (0.9**13 * 0.2, 1, False),
        "encoder.patch_embed.proj.bias": (0.9**13 * 0.2, 0, False),
        "encoder.blocks.0.attn.qkv.weight": (0.9**12, 1, False),
        "encoder.blocks.11.norm1.weight": (0.9, 0, False),
        "encoder.blocks.11.ls1.gamma": (0.9, 0, False),
        "encoder.norm.weight": (1, 0, False),
        "head.mlp.0.weight": (1, 1, False),
        "ibot_head.mlp.0.bias": (1, 0, False),
        "head.last_layer.weight": (1, 1, True),
        "ibot_head.last_layer_length": (1, 1, True),
    }
    named = dict(model.named_parameters())
    for name, (rate, decay, last) in expected.items():
        group = of[id(named[name])]
        assert group["rate"] == pytest.approx(rate), name
        assert (group["decay"], group["last"]) == (decay, last), name
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert set(of) == trained
    assert sum(len(g["params"]) for g in groups) == len(trained)


def test_schedules_are_dinov2s():
    config = configure(data="d", out="o", method="dinov2")
    assert config.peak_lr == pytest.approx(4e-3 * 2)  # sqrt(4096 / 1024)
    scheduled = DINO.build(tiny())
    scheduled.config = config
    model = nn.ParameterDict(
        {"last": nn.Parameter(torch.ones(1)), "w": nn.Parameter(torch.ones(1))}
    )
    groups = [
        {"params": [p], "rate": 0.5, "decay": d, "last": k == "last"}
        for d, (k, p) in enumerate(model.items())
    ]
    optimizer = torch.optim.AdamW(groups)
    last = next(g for g in optimizer.param_groups if g["last"])
    other = next(g for g in optimizer.param_groups if not g["last"])
    total, epoch = config.steps, config.steps_per_epoch
    for step in (0, 1249, 1250, 15 * epoch, 45 * epoch, 100 * epoch, total - 1):
        values = scheduled.schedule(step, optimizer)
        warm = 15 * epoch
        at = (step - warm) / (total - warm)
        lr = 8e-3 * step / warm
        if step >= warm:
            lr = 1e-6 + (8e-3 - 1e-6) * (1 + np.cos(np.pi * at)) / 2
        assert values["lr"] == pytest.approx(lr)
        assert other["lr"] == pytest.approx(lr / 2)
        assert last["lr"] == (0 if step < 1250 else pytest.approx(lr / 2))
        decay = 0.4 + (0.04 - 0.4) * (1 + np.cos(np.pi * step / total)) / 2
        assert values["weight_decay"] == pytest.approx(decay)
        assert [g["weight_decay"] for g in optimizer.param_groups] == [0, pytest.approx(decay)]
        temperature = min(0.07, 0.04 + 0.03 * step / (45 * epoch))
        assert values["temperature"] == pytest.approx(temperature)
        momentum = 1 - (1 - 0.992) * (1 + np.cos(np.pi * step / total)) / 2
        assert values["momentum"] == pytest.approx(momentum)


def test_gradients_are_clipped_part_by_part_and_the_teacher_follows():
    model = DINO.build(tiny(ibot_head="separate", clip=0.5))
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0) if p.requires_grad else None
    model.clip_gradients()
    for part in ([*model.encoder.parameters(), model.mask_token], model.head.parameters()):
        norm = torch.stack([p.grad.norm() for p in part]).norm()
        assert norm.item() == pytest.approx(0.5, rel=1e-4)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.rand_like(p))
    pairs = [
        (name, model.get_parameter(f"teacher_{name}"))
        for name, p in model.named_parameters()
        if not name.startswith("teacher") and name != "mask_token"
    ]
    before = {name: t.clone() for name, t in pairs}
    model.update_teacher(0.9)
    for name, teacher in pairs:
        expected = 0.9 * before[name] + 0.1 * model.get_parameter(name)
        assert torch.allclose(teacher, expected), name


def test_the_papers_recipes_and_foreign_settings():
    local, none, density = (DINO.build(tiny(m)) for m in METHODS)
    assert {k: v.shape for k, v in local.state_dict().items()} == {
        k: v.shape for k, v in density.state_dict().items()
    }
    assert (none.config.global_weight, none.config.koleo_weight) == (pytest.approx(2 / 3), 0.1)
    assert (density.config.kde_weight, density.config.kappa) == (0.05, 5)
    assert "koleo_weight" not in density.config.settings
    assert none.config.local_crops == 0
    assert "local_crops" not in none.config.settings
    for method, settings, message in [
        ("moco", {"koleo_weight": 0.1}, "--koleo-weight belongs to dinov2, dinov2-no-local;"),
        ("dinov2", {"projection": 16}, "--projection belongs to moco; --method is dinov2"),
        ("dinov2-no-local", {"local_px": 24}, "--local-px belongs to dinov2;"),
        ("dinov2-no-local-kde", {"koleo_weight": 0.1}, "--koleo-weight belongs to"),
        ("dinov2", {"two_pass": 4}, "--two-pass belongs to moco"),
        ("dinov2", {"local_px": 25}, "no multiple of the 8-px patch"),
        ("dinov2", {"mask_ratio_least": 0.6}, "--mask-ratio-least is more than --mask-ratio-most"),
        ("dinov2", {"targets": "sharp"}, "--targets sharp: there are sinkhorn, centre"),
        ("dinov2", {"drop_path": 1.0}, "--drop-path 1.0: from 0 to below 1"),
        ("simclr", {}, "--method simclr: there are moco, dinov2"),
    ]:
        with pytest.raises(ValueError, match=message):
            configure(data="d", out="o", method=method, **settings)


# ---- masks ---------------------------------------------------------------------------------------


def test_masks_follow_dinov2s_law():
    """Half the images, ratios spread evenly between the limits, nowhere preferred."""
    images = 4000
    masks = draw_masks(0, 0, images, np.arange(images), 0.5, (0.1, 0.5), 5)
    count = masks.sum(1)
    assert ((count > 0).sum() / images).item() == pytest.approx(0.5, abs=0.01)
    assert count.max() <= 12
    masked = count[count > 0].float()
    assert masked.mean().item() == pytest.approx(7.0, abs=0.3)  # the mean of int(25 * U(0.1, 0.5))
    square = masks.view(-1, 5, 5).float().mean(0)
    assert (square - square.flip(0)).abs().max() < 0.03  # nowhere preferred but the middle
    assert (square - square.T).abs().max() < 0.03


def official_mask(target: int, rng: random.Random, grid: int = 5) -> np.ndarray:
    """The algorithm of dinov2's data/masking.py, one block and one image at a time."""
    mask = np.zeros((grid, grid), bool)
    while mask.sum() < target:
        room = min(target - mask.sum(), 0.5 * grid * 8 // 8 * grid * 8 // 8)
        for _ in range(10):
            area = rng.uniform(4, room)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h >= grid or w >= grid:
                continue
            top, left = rng.randint(0, grid - h), rng.randint(0, grid - w)
            block = np.zeros_like(mask)
            block[top : top + h, left : left + w] = True
            if 0 < (block & ~mask).sum() <= room:
                mask |= block
                break
        else:
            return mask
    return mask


@pytest.mark.parametrize("target", [2, 5, 7, 10, 12])
def test_masks_are_shaped_as_dinov2s(target):
    """How many patches, how many of them side by side, and how often each one."""
    n, rng = 3000, random.Random(0)
    ratio = (target + 0.5) / 25
    ours = draw_masks(1, 0, n, np.arange(n), 1.0, (ratio, ratio), 5).view(n, 5, 5).numpy()
    theirs = np.stack([official_mask(target, rng) for _ in range(n)])
    for statistic in (
        lambda m: m.sum((1, 2)),
        lambda m: (m[:, 1:] & m[:, :-1]).sum((1, 2)),
        lambda m: (m[:, :, 1:] & m[:, :, :-1]).sum((1, 2)),
        lambda m: m[:, 2, 2],
        lambda m: m[:, 0, 0],
    ):
        a, b = statistic(ours).astype(float), statistic(theirs).astype(float)
        error = np.sqrt((a.var() + b.var()) / n)
        assert abs(a.mean() - b.mean()) <= 4 * error + 1e-9


@pytest.mark.parametrize("cuts", [(0, 16), (0, 5, 16), (0, 8, 12, 16)])
def test_masks_and_branches_do_not_depend_on_the_ranks(cuts):
    whole = draw_masks(3, 9, 16, np.arange(16), 0.5, (0.1, 0.5), 5)
    parts = [draw_masks(3, 9, 16, np.arange(a, b), 0.5, (0.1, 0.5), 5) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)
    kept = draw_kept(3, 9, 16, range(16), 3, 12, 0.3).view(3, 16, 12, 2)
    for a, b in pairwise(cuts):
        part = draw_kept(3, 9, 16, range(a, b), 3, 12, 0.3).view(3, b - a, 12, 2)
        assert torch.equal(part, kept[:, a:b])
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.05)
    assert not torch.equal(whole, draw_masks(3, 10, 16, np.arange(16), 0.5, (0.1, 0.5), 5))
