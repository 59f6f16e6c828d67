"""The trainer's parts against independent references: encoder, heads, loss, schedules, settings."""

import json
import math
import os
import shutil

import numpy as np
import pytest
import timm
import torch
from torch import nn

from train import checkpoint, schedule
from train.batchnorm import BatchNorm
from train.config import MocoConfig, configure
from train.config_file import check_same, read_settings
from train.encoder import build_encoder, load_encoder, save_encoder
from train.flags import parse
from train.methods import build_model
from train.moco import contrast
from train.vit import sincos_positions

pytestmark = pytest.mark.usefixtures("alone")


def tiny(**settings) -> MocoConfig:
    """Settings of a small run."""
    return configure(
        **{
            "data": "d",
            "out": "o",
            "encoder": "vit_ti8",
            "batch": 8,
            "hidden": 32,
            "projection": 16,
        }
        | settings
    )


# ---- encoder -------------------------------------------------------------------------------------


def test_positions_are_moco_v3s():
    """Token (row i, column j): sines and cosines of i, then of j, each over dim / 4 frequencies."""
    dim, grid = 384, 5
    found = sincos_positions(grid, dim)[0].numpy()
    assert (found[0] == 0).all()
    for i in range(grid):
        for j in range(grid):
            omega = [1 / 10000 ** (k / (dim / 4)) for k in range(dim // 4)]
            expected = [f(p * w) for p in (i, j) for f in (math.sin, math.cos) for w in omega]
            assert np.allclose(found[1 + i * grid + j], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "dim", "heads", "millions"),
    [("vit_ti8", 192, 3, 5.4), ("vit_s8", 384, 12, 21.4), ("vit_b8", 768, 12, 85.2)],
)
def test_encoders_are_moco_v3s(name, dim, heads, millions):
    model = build_encoder(name, seed=3)
    assert model.embed_dim == dim
    assert len(model.blocks) == 12
    assert {b.attn.num_heads for b in model.blocks} == {heads}
    assert {b.mlp.fc1.out_features for b in model.blocks} == {4 * dim}
    assert model.blocks[0].attn.qkv.bias is not None
    assert model.norm.eps == model.blocks[0].norm1.eps == 1e-6
    assert model.pos_embed.shape == (1, 26, dim)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions
    fixed = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    # moco-v3, vits.py: xavier-uniform over q, k, v as three matrices
    bound = math.sqrt(6 / (dim + dim))
    assert bound * 0.99 < model.blocks[0].attn.qkv.weight.abs().max() <= bound
    bound = math.sqrt(6 / (3 * 64 + dim))
    assert bound * 0.98 < model.patch_embed.proj.weight.abs().max() <= bound
    assert model.cls_token.abs().max() < 1e-5
    assert not any(b.attn.qkv.bias.any() or b.mlp.fc1.bias.any() for b in model.blocks)
    assert torch.equal(build_encoder(name, seed=3).cls_token, model.cls_token)
    assert not torch.equal(build_encoder(name, seed=4).cls_token, model.cls_token)


@pytest.mark.parametrize("name", ["vit_ti8", "vit_s8", "resnet18s"])
def test_encoder_folder_opens_without_this_repository(tmp_path, name):
    model = build_encoder(name).eval()
    save_encoder(model, tmp_path, [0.5] * 3, [0.2] * 3, 0.25, network="student")
    plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(plain)
    assert list(data["input_size"]) == [3, 40, 40] and data["crop_pct"] == 1.0
    assert (list(data["mean"]), list(data["std"])) == ([0.5] * 3, [0.2] * 3)
    x = torch.rand(3, 3, 40, 40)
    ours, found = load_encoder(tmp_path)
    assert {k: found[k] for k in ("mpp", "network", "input_px", "format")} == {
        **{"mpp": 0.25, "network": "student"},
        **{"input_px": 40, "format": 2},
    }
    assert found["timm"] == {"name": model.timm_name, "args": model.timm_arguments}
    assert torch.equal(plain(x), model(x))
    assert torch.equal(ours(x), model(x))
    assert ours(x).shape == (3, plain.num_features)
    save_encoder(ours, tmp_path / "again", [0.5] * 3, [0.2] * 3, 0.25, network="student")
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_the_embedding_of_a_vit_is_its_class_token():
    model, x = build_encoder("vit_ti8").eval(), torch.rand(3, 3, 40, 40)
    assert torch.equal(model(x), model.forward_features(x)[:, 0])  # after the last norm


def test_a_folder_of_format_1_is_read(tmp_path):
    model = build_encoder("vit_ti8").eval()
    save_encoder(model, tmp_path, [0.5] * 3, [0.2] * 3, 0.25)
    config = {"format": 1, "timm": {"name": model.timm_name, "args": model.timm_arguments}}
    config |= {"input_px": 40, "mpp": 0.25, "mean": [0.5] * 3, "std": [0.2] * 3, "step": 7}
    (tmp_path / "config.json").write_text(json.dumps(config | {"embedding_dim": 192}))
    x = torch.rand(3, 3, 40, 40)
    ours, found = load_encoder(tmp_path)
    assert torch.equal(ours(x), model(x))
    assert (found["format"], found["step"], ours.embed_dim, ours.input_px) == (1, 7, 192, 40)


def test_a_bad_encoder_folder_is_named(tmp_path):
    folder = tmp_path / "encoder"
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_encoder(folder)
    save_encoder(build_encoder("vit_ti8"), folder, [0.5] * 3, [0.2] * 3, 0.25)
    config = json.loads((folder / "config.json").read_text())
    other = tmp_path / "other"
    save_encoder(build_encoder("vit_s8"), other, [0.5] * 3, [0.2] * 3, 0.25)
    shutil.copy(other / "model.safetensors", folder)
    with pytest.raises(ValueError, match=r"expected \(192,\), found \(384,\)"):
        load_encoder(folder)
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="cannot be read"):
        load_encoder(folder)
    for later in (config | {"lemon": {"format": 99}}, config | {"lemon": {"format": "2"}}):
        (folder / "config.json").write_text(json.dumps(later))
        with pytest.raises(ValueError, match=r"encoder format (99|2); this code reads 1 to 2"):
            load_encoder(folder)
    (folder / "config.json").write_text("no json")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        load_encoder(folder)
    bad = ["{}", "[]", json.dumps(config | {"pretrained_cfg": {}})]
    bad += [json.dumps(config | {"lemon": 3}), json.dumps(config | {"model_args": 3})]
    for text in bad:
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match="no encoder's config"):
            load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "vit_none"}))
    with pytest.raises(ValueError, match="has no model 'vit_none'"):
        load_encoder(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    for index, error, message in [
        (None, FileNotFoundError, r"no model\.safetensors in it"),
        ({"weight_map": {"a": "../b"}}, ValueError, r"names a file elsewhere: '\.\./b'"),
        ({"weight_map": {"a": "b"}}, FileNotFoundError, "names b, which is not there"),
        ({}, ValueError, "is no index of weights"),
    ]:
        if index is not None:
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(error, match=message):
            load_encoder(folder)
    with pytest.raises(ValueError, match="no encoder 'vit_x'"):
        build_encoder("vit_x")
    with pytest.raises(ValueError, match="multiple of the 8-px patch"):
        build_encoder("vit_ti8", input_px=42)


# ---- heads, batch norm, loss ---------------------------------------------------------------------


def test_heads_are_moco_v3s():
    model = build_model(configure(data="d", out="o"))
    projector, predictor = model.projector, model.predictor
    widths = [(m.in_features, m.out_features) for m in projector if isinstance(m, nn.Linear)]
    assert widths == [(384, 4096), (4096, 4096), (4096, 256)]
    widths = [(m.in_features, m.out_features) for m in predictor if isinstance(m, nn.Linear)]
    assert widths == [(256, 4096), (4096, 256)]
    for head in (projector, predictor):
        assert all(m.bias is None for m in head if isinstance(m, nn.Linear))
        norms = [m for m in head if isinstance(m, BatchNorm)]
        assert [m.weight is not None for m in norms] == [True] * (len(norms) - 1) + [False]
        kinds = [type(m).__name__ for m in head]
        assert kinds == (["Linear", "BatchNorm", "ReLU"] * len(norms))[:-1]
    teacher = {
        n for n, p in model.named_parameters() if n.startswith("teacher") and p.requires_grad
    }
    assert not teacher
    student = [*model.encoder.parameters(), *model.projector.parameters()]
    copy = [*model.teacher_encoder.parameters(), *model.teacher_projector.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(student, copy, strict=True))
    assert not any(n.startswith("teacher_predictor") for n, _ in model.named_parameters())


@pytest.mark.parametrize("affine", [True, False])
def test_batchnorm_equals_torchs(affine):
    ours, theirs = BatchNorm(7, affine).double(), nn.BatchNorm1d(7, affine=affine).double()
    if affine:
        with torch.no_grad():
            for module in (ours, theirs):
                module.weight.copy_(torch.linspace(0.5, 2, 7))
                module.bias.copy_(torch.linspace(-1, 1, 7))
    x = torch.randn(33, 7, dtype=torch.float64) * 3 + 5
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    weights = torch.randn(33, 7, dtype=torch.float64)
    (ours(a) * weights).sum().backward()
    (theirs(b) * weights).sum().backward()
    assert torch.allclose(ours(a), theirs(b), atol=1e-12)
    assert torch.allclose(a.grad, b.grad, atol=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-12)


def loss_in_numpy(q: np.ndarray, k: np.ndarray, tau: float) -> float:
    """InfoNCE times 2τ, from the paper's formula."""
    q = q / np.linalg.norm(q, axis=1, keepdims=True)
    k = k / np.linalg.norm(k, axis=1, keepdims=True)
    similarity = np.exp(q @ k.T / tau)
    return 2 * tau * np.mean(-np.log(np.diag(similarity) / similarity.sum(1)))


@pytest.mark.parametrize("tau", [0.07, 0.2, 1.0])
def test_loss_against_numpy(tau):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(12, 5)), rng.normal(size=(12, 5))
    loss, accuracy = contrast(torch.from_numpy(q), torch.from_numpy(k), tau)
    assert abs(loss.item() - loss_in_numpy(q, k, tau)) < 1e-10
    cosine = (q / np.linalg.norm(q, axis=1)[:, None]) @ (k / np.linalg.norm(k, axis=1)[:, None]).T
    assert accuracy.item() == pytest.approx(np.mean(cosine.argmax(1) == np.arange(12)))
    assert contrast(torch.eye(8), torch.eye(8), 0.01)[0].item() < 1e-6


def batchnorm_in_numpy(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)


def head_in_numpy(head: nn.Sequential, x: np.ndarray) -> np.ndarray:
    """Run a head whose BatchNorms are at their initial weights."""
    linears = [m.weight.detach().numpy() for m in head if isinstance(m, nn.Linear)]
    for i, weight in enumerate(linears):
        x = batchnorm_in_numpy(x @ weight.T)
        x = x if i == len(linears) - 1 else np.maximum(x, 0)
    return x


def test_whole_forward_against_numpy_with_an_updated_teacher():
    """Queries of the student, keys of the teacher after its move, both ways, one pass a view."""
    model = build_model(tiny()).double()
    with torch.no_grad():
        for p in model.teacher_encoder.parameters():
            p.add_(0.01 * torch.randn_like(p))
    teacher_before = [p.clone() for p in model.teacher_encoder.parameters()]
    views = torch.rand(16, 3, 40, 40, dtype=torch.float64)
    result = model(views, momentum=0.9)
    student = list(model.encoder.parameters())
    for before, now, source in zip(
        teacher_before, model.teacher_encoder.parameters(), student, strict=True
    ):
        assert torch.allclose(now, 0.9 * before + 0.1 * source, atol=1e-12)

    with torch.no_grad():  # views one at a time, as the official code has them
        y = [model.encoder(v).numpy() for v in views.split(8)]
        t = [model.teacher_encoder(v).numpy() for v in views.split(8)]
    q = [head_in_numpy(model.predictor, head_in_numpy(model.projector, v)) for v in y]
    k = [head_in_numpy(model.teacher_projector, v) for v in t]
    expected = loss_in_numpy(q[0], k[1], 0.2) + loss_in_numpy(q[1], k[0], 0.2)
    assert abs(result["loss"].item() - expected) < 1e-9

    result["loss"].backward()
    assert all(p.grad is None for n, p in model.named_parameters() if n.startswith("teacher"))
    assert model.encoder.patch_embed.proj.weight.grad is None
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is not None for n, p in model.named_parameters() if n in trained)


def test_bf16_autocast_stays_close():
    model = build_model(tiny())
    views = torch.rand(64, 3, 40, 40)
    exact = model(views, 1.0)["loss"].item()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(views, 1.0)
    assert result["loss"].dtype == torch.float32
    assert abs(result["loss"].item() - exact) < 0.05 * exact


# ---- schedules and settings ----------------------------------------------------------------------


def test_schedules_are_moco_v3s():
    """main_moco.py, with e = epoch + i / iterations, E = 300, W = 40, 100 iterations an epoch."""
    for step in (0, 1, 99, 100, 3999, 4000, 12345, 29999):
        e = step / 100
        lr = 2.4e-3 * e / 40 if e < 40 else 2.4e-3 * 0.5 * (1 + math.cos(math.pi * (e - 40) / 260))
        assert schedule.learning_rate(step, 30000, 4000, 2.4e-3) == pytest.approx(lr, rel=1e-12)
        m = 1 - 0.5 * (1 + math.cos(math.pi * e / 300)) * (1 - 0.99)
        assert schedule.momentum(step, 30000, 0.99) == pytest.approx(m, rel=1e-12)
    assert schedule.learning_rate(0, 100, 10, 1.0) == 0
    assert schedule.learning_rate(0, 100, 0, 1.0) == 1


def test_the_papers_run():
    config = configure(data="d", out="o")
    assert (config.encoder, config.policy, config.batch) == ("vit_s8", "a1+gray", 4096)
    assert config.steps_per_epoch == 244
    assert config.steps == 36600
    assert config.peak_lr == pytest.approx(2.4e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "resnet"}, "--encoder resnet: there are vit_ti8"),
        ({"policy": "a2"}, "--policy a2"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"batch": 0}, "--batch 0: at least 1"),
        ({"epoch_samples": 4}, "hold no batch of 8"),
        ({"warmup_epochs": 150}, "leaves nothing"),
        ({"momentum": 1.5}, "--momentum 1.5: from 0 to 1"),
        ({"lr": -1.0}, "--lr -1.0: above 0"),
        ({"workers": -1}, "--workers -1: at least 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        tiny(**settings)


def test_flags_win_over_config_and_unknown_keys_are_errors(tmp_path, capsys):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"settings": {"data": "d", "batch": 64, "lr": 1.0}}))
    config, flags = parse(["--config", str(path), "--out", "o", "--batch", "32"])
    assert (config.data, config.batch, config.lr, flags.overwrite) == ("d", 32, 1.0, False)
    path.write_text(json.dumps({"settings": {"dta": "d"}}))
    with pytest.raises(ValueError, match="unknown here: dta"):
        parse(["--config", str(path), "--out", "o"])
    path.write_text("no json")
    with pytest.raises(ValueError, match="no run's config"):
        read_settings(path)
    with pytest.raises(ValueError, match="needs --data"):
        parse(["--out", "o"])
    with pytest.raises(SystemExit):
        parse(["--bach", "3"])
    assert "--bach" in capsys.readouterr().err


def test_resuming_under_other_settings_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"settings": tiny().settings}))
    check_same(tiny(workers=0, log_every=1), path)
    with pytest.raises(ValueError, match=r"--lr was 0\.00015, is 1\.0.*--overwrite"):
        check_same(tiny(lr=1.0), path)


def test_checkpoints_unpickle_nothing(tmp_path):
    for step in (5, 10, 15):
        checkpoint.point(checkpoint.write(tmp_path, step, {"x": torch.ones(3)}))
    assert checkpoint.load(tmp_path / "latest.pt")["step"] == 15
    assert os.readlink(tmp_path / "latest.pt") == "step-0000015.pt"
    (tmp_path / "step-0000015.pt").write_bytes(b"cut off")
    with pytest.raises(ValueError, match=r"step-0000015\.pt cannot be read"):
        checkpoint.load(tmp_path / "step-0000015.pt")
