"""Encoders trained on single nuclei: the released LEMON and VOLTA, written out beside ours."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evaluate.networks import lemon, volta
from tests.evaluate.encoder_inputs import normalised, opened, smooth_crops
from train.vit import sincos_positions


@pytest.fixture(scope="module")
def crops():
    return smooth_crops()


def random_state(shapes: dict[str, tuple], seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw weights small enough for depth; norms' scales and variances are about 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {k: torch.randn(v, generator=generator) * 0.05 for k, v in shapes.items()}
    scale = re.compile(r".*(norm\d?|bn\d)\.weight|.*running_var")
    return {k: v + 1 if scale.fullmatch(k) else v for k, v in state.items()}


def batch_norm(name: str, width: int) -> dict[str, tuple]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


# LEMON


def moco_vit(depth: int, dim: int, patch: int, patches: int) -> dict[str, tuple]:
    """Names and shapes of moco-v3's VisionTransformerMoCo."""
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, patches + 1, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        block = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{block}.{norm}.weight": (dim,), f"{block}.{norm}.bias": (dim,)}
        for layer, out, into in (
            ("attn.qkv", 3 * dim, dim), ("attn.proj", dim, dim),
            ("mlp.fc1", 4 * dim, dim), ("mlp.fc2", dim, 4 * dim),
        ):  # fmt: skip
            shapes |= {f"{block}.{layer}.weight": (out, into), f"{block}.{layer}.bias": (out,)}
    return shapes | {"norm.weight": (dim,), "norm.bias": (dim,)}


def vit_forward(x: torch.Tensor, state: dict, heads: int, depth: int, patch: int) -> torch.Tensor:
    """A pre-norm ViT written out: (N, 3, P, P) to the class token."""

    def linear(name, y):
        return y @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, y):
        y = y - y.mean(-1, keepdim=True)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return y * state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    tokens = F.conv2d(x, kernel, bias, stride=patch).flatten(2).transpose(1, 2)
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), tokens], 1) + state["pos_embed"]
    for i in range(depth):
        qkv = linear(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", tokens))
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (N, heads, T, d)
        attention = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        tokens = tokens + linear(
            f"blocks.{i}.attn.proj", (attention @ v).transpose(1, 2).flatten(2)
        )
        hidden = linear(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", tokens))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        tokens = tokens + linear(f"blocks.{i}.mlp.fc2", hidden)
    return norm("norm", tokens)[:, 0]


MEAN = [0.5626308917999268, 0.3856308162212372, 0.5453570485115051]
STD = [0.1810322254896164, 0.16682660579681396, 0.13694559037685394]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """lemon.pth.tar and mean_std.json as released, and the encoder's weights in it."""
    state = random_state(moco_vit(12, 384, 8, 25))
    state["pos_embed"] = sincos_positions(5, 384)
    heads = {"head.0.weight": (16, 384), "head.1.running_mean": (16,)}
    everything = {f"module.base_encoder.{k}": v for k, v in (state | random_state(heads)).items()}
    everything |= {f"module.momentum_encoder.{k}": v + 1 for k, v in state.items()}
    everything["module.predictor.0.weight"] = torch.zeros(4, 4)
    path = tmp_path_factory.mktemp("LEMON")
    saved = {"epoch": 150, "arch": "vit_small", "state_dict": everything, "optimizer": {}}
    torch.save(saved, path / "lemon.pth.tar")
    (path / "mean_std.json").write_text(json.dumps({"mean": MEAN, "std": STD}))
    return path, state


def test_lemon_has_twelve_heads_and_cuts_forty_pixels(released, crops):
    path, state = released
    encoder = opened(f"lemon:{path}")
    with torch.inference_mode():
        expected = vit_forward(normalised(crops, MEAN, STD), state, 12, 12, 8).numpy()
        six = vit_forward(normalised(crops, MEAN, STD), state, 6, 12, 8).numpy()  # timm's ViT-S
    np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-4)
    assert np.abs(six - expected).max() > 0.01
    wider = np.pad(crops, ((0, 0), (10, 10), (10, 10), (0, 0)))
    np.testing.assert_allclose(encoder.embed(wider), expected, atol=1e-4)  # no resizing
    assert encoder.config["mean"] == MEAN
    by_file = opened(f"lemon:{path / 'lemon.pth.tar'}")
    assert by_file.manifest() == encoder.manifest()


@pytest.mark.parametrize("change", ["missing", "foreign"])
def test_lemon_hides_no_key(released, tmp_path, change):
    saved = torch.load(released[0] / "lemon.pth.tar")
    if change == "missing":
        del saved["state_dict"]["module.base_encoder.blocks.3.attn.qkv.bias"]
    else:
        saved["state_dict"]["module.base_encoder.blocks.3.ls1.gamma"] = torch.zeros(384)
    torch.save(saved, tmp_path / "lemon.pth.tar")
    (tmp_path / "mean_std.json").write_text((released[0] / "mean_std.json").read_text())
    with pytest.raises(ValueError, match=r"1 (missing|not the architecture's), first blocks.3."):
        opened(f"lemon:{tmp_path}")


def test_lemon_needs_both_files(released, tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}}, tmp_path / "lemon.pth.tar")
    with pytest.raises(FileNotFoundError, match=r"no mean_std.json beside"):
        opened(f"lemon:{tmp_path}")
    (tmp_path / "mean_std.json").write_text("{}")
    with pytest.raises(ValueError, match=r"is no LEMON checkpoint: no module.base_encoder.pos"):
        opened(f"lemon:{tmp_path}")
    (tmp_path / "lemon.pth.tar").unlink()
    (tmp_path / "lemon.pth.tar").symlink_to(released[0] / "lemon.pth.tar")
    with pytest.raises(ValueError, match="holds no mean and std of three channels"):
        opened(f"lemon:{tmp_path}")
    assert lemon.HEADS == 12


# VOLTA


def volta_shapes() -> dict[str, tuple]:
    """Names and shapes of VOLTA's backbones/resnet/model.py, preact_resnet18."""
    shapes = {"conv1.weight": (64, 3, 3, 3)}
    into = 64
    for layer, out in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            shapes |= batch_norm(f"{name}.bn1", into) | batch_norm(f"{name}.bn2", out)
            shapes |= {f"{name}.conv1.weight": (out, into, 3, 3)}
            shapes |= {f"{name}.conv2.weight": (out, out, 3, 3)}
            if into != out:
                shapes |= {f"{name}.shortcut.0.weight": (out, into, 1, 1)}
            into = out
    return shapes


def volta_forward(x: torch.Tensor, state: dict) -> torch.Tensor:
    """The same network by functions: activation before convolution, the last one without."""

    def active(name, y):
        parts = (state[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(y, *parts))

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for layer in range(1, 5):
        for block in range(2):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = active(f"{name}.bn1", x)
            if f"{name}.shortcut.0.weight" in state:
                x = F.conv2d(y, state[f"{name}.shortcut.0.weight"], stride=stride)
            y = F.conv2d(y, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            x = x + F.conv2d(active(f"{name}.bn2", y), state[f"{name}.conv2.weight"], padding=1)
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def test_volta_is_its_momentum_encoder(tmp_path, crops):
    state = random_state(volta_shapes())
    saved = {f"module.encoder_k.{k}": v for k, v in state.items()}
    saved |= {f"module.encoder_q.{k}": v + 1 for k, v in state.items()}
    saved |= {"module.queue": torch.zeros(64, 8), "module.queue_ptr": torch.zeros(1)}
    saved |= {"module.k_projection_head.0.weight": torch.zeros(128, 512)}
    file = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 500, "arch": "preact_resnet18", "state_dict": saved}, file)
    encoder = opened(f"volta:{file}")
    small = np.stack(
        [cv2.resize(c.astype(np.float32), (32, 32), interpolation=cv2.INTER_CUBIC) for c in crops]
    )
    with torch.inference_mode():
        expected = volta_forward(normalised(small, volta.MEAN, volta.STD), state).numpy()
    assert expected.shape == (6, 512)
    np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-4)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ValueError, match=r"no VOLTA checkpoint: no module.encoder_k.\* under"):
        opened(f"volta:{file}")
