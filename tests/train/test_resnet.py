"""MoCo v3 with a ResNet: its BatchNorm over the ranks, in checkpoints, in the export."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from evaluate.encoders import open_encoders
from tests.evaluate.encoder_inputs import opened
from tests.train.test_runs import SETTINGS, losses, same_state
from train import checkpoint
from train.batchnorm import BatchNorm2d
from train.config import MocoConfig, configure
from train.config_file import check_same, read_settings
from train.distributed import World
from train.dry_run import describe
from train.encoder import build_encoder, load_encoder
from train.flags import parse
from train.flops import forward_flops
from train.loop import train
from train.memory import Memory
from train.methods import build_model

pytestmark = pytest.mark.usefixtures("alone")

STEPS, ALONE = 4, World(0, 1, torch.device("cpu"))
FLAGS = [*SETTINGS, "--encoder", "resnet18s", "--epoch-samples", str(12 * STEPS)]


def tiny(**settings) -> MocoConfig:
    """Settings of a small run."""
    small = {"data": "d", "out": "o", "encoder": "resnet18s", "batch": 6, "hidden": 32}
    return configure(**small | {"projection": 16} | settings)


def config_of(shards: Path, out: Path) -> MocoConfig:
    """The settings of FLAGS."""
    config = parse(["--data", str(shards), "--out", str(out), *FLAGS])[0]
    assert isinstance(config, MocoConfig)
    return config


@pytest.fixture(scope="module")
def straight(shards_folder, alone, tmp_path_factory) -> Path:
    """An undisturbed run on one rank."""
    out = tmp_path_factory.mktemp("runs") / "resnet"
    assert train(config_of(shards_folder, out), ALONE)
    assert len(set(losses(out))) == STEPS
    return out


# ---- a step --------------------------------------------------------------------------------------


def test_the_encoder_is_timms():
    model = build_encoder("resnet18s", seed=3)
    plain = timm.create_model(model.timm_name, **json.loads(json.dumps(model.timm_arguments)))
    plain.load_state_dict(model.state_dict())
    assert 6.2e6 < sum(p.numel() for p in model.parameters()) < 6.4e6
    assert all(p.requires_grad for p in model.parameters())
    assert model.embed_dim == 384
    assert model.eval()(torch.zeros(2, 3, 40, 40)).shape == (2, 384)
    assert model.forward_features(torch.zeros(1, 3, 40, 40)).shape == (1, 384, 3, 3)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 21 and all(type(m) is BatchNorm2d for m in norms)
    assert torch.equal(build_encoder("resnet18s", seed=3).conv1.weight, model.conv1.weight)
    assert not torch.equal(build_encoder("resnet18s", seed=4).conv1.weight, model.conv1.weight)


def plain_mlp(ours: nn.Sequential) -> nn.Sequential:
    """moco-v3, builder.py, _build_mlp with 2 layers, with the weights of one of our heads."""
    widths = [m.weight.shape for m in ours if isinstance(m, nn.Linear)]
    (hidden, into), (out, _) = widths
    head = nn.Sequential(
        nn.Linear(into, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, out, bias=False),
        nn.BatchNorm1d(out, affine=False),
    ).double()
    head.load_state_dict(ours.state_dict(), strict=False)
    return head


def test_a_step_is_the_one_of_moco_v3s_text():
    """builder.py, MoCo.forward, with torch's own layers: loss, gradients, teacher, statistics."""
    ours = build_model(tiny()).double().train()
    with torch.no_grad():  # not at the start, where every residual branch is 0
        for i, p in enumerate(ours.encoder.parameters()):
            generator = torch.Generator().manual_seed(i)
            p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    name, arguments = ours.encoder.timm_name, ours.encoder.timm_arguments
    base, momentum = (timm.create_model(name, **arguments).double() for _ in range(2))
    base.load_state_dict(ours.encoder.state_dict())
    momentum.load_state_dict(ours.teacher_encoder.state_dict())
    base.fc, momentum.fc = plain_mlp(ours.projector), plain_mlp(ours.teacher_projector)
    predictor = plain_mlp(ours.predictor)
    x1, x2 = torch.rand(12, 3, 40, 40, dtype=torch.float64).chunk(2)

    def ctr_loss(q, k):
        logits = torch.einsum("nc,mc->nm", [F.normalize(q, dim=1), F.normalize(k, dim=1)]) / 0.2
        return nn.CrossEntropyLoss()(logits, torch.arange(6)) * (2 * 0.2)

    q1, q2 = predictor(base(x1)), predictor(base(x2))
    with torch.no_grad():
        for b, m in zip(base.parameters(), momentum.parameters(), strict=True):
            m.data = m.data * 0.9 + b.data * (1.0 - 0.9)
        k1, k2 = momentum(x1), momentum(x2)
    loss = ctr_loss(q1, k2) + ctr_loss(q2, k1)
    loss.backward()

    result = ours(torch.cat([x1, x2]), 0.9)
    result["loss"].backward()
    assert abs(result["loss"].item() - loss.item()) < 1e-10
    for mine, theirs in ((ours.encoder, base), (ours.teacher_encoder, momentum)):
        expected = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
        found = mine.state_dict()
        assert found.keys() == expected.keys()
        for k in found:
            assert torch.allclose(found[k], expected[k], atol=1e-12), k
    assert found["bn1.num_batches_tracked"] == 2  # a view a pass, the teacher in train mode too
    expected = {n: p.grad for n, p in base.named_parameters() if not n.startswith("fc.")}
    for n, p in ours.encoder.named_parameters():
        assert torch.allclose(p.grad, expected[n], atol=1e-10), n
    heads = zip(ours.projector.parameters(), base.fc.parameters(), strict=True)
    assert all(torch.allclose(p.grad, q.grad, atol=1e-10) for p, q in heads)


def test_batchnorm_over_ranks_is_torchs():
    """By the formula for many ranks, on one; what ranks add is in the run of two."""
    ours, theirs = BatchNorm2d(5).double(), nn.BatchNorm2d(5).double()
    with torch.no_grad():
        for module in (ours, theirs):
            module.weight.copy_(torch.linspace(0.5, 2, 5))
            module.bias.copy_(torch.linspace(-1, 1, 5))
    weights, outs, inputs = torch.randn(4, 5, 3, 3, dtype=torch.float64), [], []
    x = 3 * torch.randn(4, 5, 3, 3, dtype=torch.float64) + 5
    for forward in (ours._over_ranks, theirs):
        inputs.append(x.clone().requires_grad_())
        outs.append(forward(inputs[-1]))
        (outs[-1] * weights).sum().backward()
    assert torch.allclose(*outs, atol=1e-12)
    assert torch.allclose(inputs[0].grad, inputs[1].grad, atol=1e-12)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-12)
    for p, q in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(p, q, atol=1e-12)
    assert BatchNorm2d(5)._over_ranks(x.to(torch.bfloat16)).dtype == torch.bfloat16


def test_layers_of_the_projector():
    def widths(**settings):
        model = build_model(tiny(**settings))
        return [m.out_features for m in model.projector if isinstance(m, nn.Linear)]

    assert widths() == [32, 16]  # (moco-v3, builder.py)
    assert widths(projector_layers=3) == widths(encoder="vit_ti8") == [32, 32, 16]
    assert widths(projector_layers=1) == [16]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dinov2"}, "--method dinov2 needs patch tokens, which resnet18s has"),
        ({"heads": 3}, "--heads 3: resnet18s has no attention"),
        ({"activation_checkpointing": True}, "twice in the running statistics"),
        ({"two_pass": 4}, "--two-pass 4 takes a view in parts"),
        ({"compile": True, "cuda_graphs": True}, "--cuda-graphs replays an encoder once a step"),
        ({"projector_layers": -1}, "--projector-layers -1: at least 0"),
    ],
)
def test_what_a_resnet_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        configure(data="d", out="o", encoder="resnet18s", **settings)


# ---- a run ---------------------------------------------------------------------------------------


def test_two_ranks_equal_one(run_ranks, shards_folder, straight, tmp_path):
    done = run_ranks("--data", shards_folder, "--out", tmp_path / "two", *FLAGS, ranks=2)
    assert done.returncode == 0, done.stderr
    one, two = losses(straight), losses(tmp_path / "two")
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4
    states = [checkpoint.load(out / "latest.pt")["model"] for out in (straight, tmp_path / "two")]
    for name in states[0]:
        if "running" in name:
            assert torch.allclose(states[0][name], states[1][name], rtol=1e-2, atol=1e-3), name
        if name.endswith("num_batches_tracked"):
            assert states[0][name] == states[1][name] == 2 * STEPS


def test_resumed_equals_straight(shards_folder, straight, tmp_path):
    out = Path(shutil.copytree(straight, tmp_path / "half", symlinks=True))
    (out / f"step-{STEPS:07d}.pt").unlink()
    assert train(config_of(shards_folder, out), ALONE)
    assert losses(out) == losses(straight)
    assert same_state(out, straight)


def test_the_export_is_the_students_and_embeds_alike_everywhere(straight):
    """Weights and statistics; by evaluate from the folder, the run and the checkpoint."""
    state = checkpoint.load(straight / "latest.pt")["model"]
    encoder, config = load_encoder(straight / "encoder")
    for k, v in encoder.state_dict().items():
        assert torch.equal(v, state[f"encoder.{k}"]), k
    assert not torch.equal(state["encoder.bn1.running_mean"], torch.zeros(64))
    assert not torch.equal(
        state["encoder.bn1.running_mean"], state["teacher_encoder.bn1.running_mean"]
    )
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (5, 60, 60, 3), dtype=np.uint8)
    x = (crops[:, 10:50, 10:50] / 255 - config["mean"]) / config["std"]
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(x).permute(0, 3, 1, 2).float()).numpy()
    assert expected.std(axis=0).mean() > 0
    timms = timm.create_model(f"local-dir:{straight / 'encoder'}", pretrained=True).eval()
    with torch.inference_mode():
        found = timms(torch.from_numpy(x).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_array_equal(found, expected)
    for word in (straight, straight / "encoder", straight / f"step-{STEPS:07d}.pt"):
        np.testing.assert_allclose(opened(str(word)).embed(crops), expected, atol=1e-4)
    _, untrained = open_encoders([str(straight), "untrained"])
    assert untrained.facts["architecture"] == "resnet18s"
    assert untrained.embed(crops).shape == (5, 384)
    with pytest.raises(ValueError, match=r"a ResNet has no class token .* take \+stages"):
        opened(f"{straight}+mean")


def test_what_a_run_would_take_is_said(straight, shards_folder):
    config = replace(config_of(shards_folder, straight), precision="bf16")
    text = describe(config, 1, torch.device("cpu"))
    assert "resnet18s: 6.3 M parameters" in text
    assert "11 a query" in text
    assert Memory(config).peak(16) > Memory(config).peak(8) > 4 * 6.3e6 * 5


def test_flops_are_those_of_the_convolutions():
    encoder, macs = build_encoder("resnet18s"), []
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda m, _, y: macs.append(m.weight[0].numel() * y.numel())
            )
    assert forward_flops(encoder, 1, 3, 40, 40) == 2 * sum(macs)
    assert encoder.training
    assert encoder.bn1.num_batches_tracked == 0


def test_a_run_begun_before_a_setting_came_goes_on(straight, shards_folder, tmp_path):
    config = config_of(shards_folder, straight)
    held = json.loads((straight / "config.json").read_text())
    del held["settings"]["projector_layers"]
    (tmp_path / "config.json").write_text(json.dumps(held))
    assert "projector_layers" not in read_settings(tmp_path / "config.json")
    check_same(config, tmp_path / "config.json")
    with pytest.raises(ValueError, match="--projector-layers was 0, is 3"):
        check_same(replace(config, projector_layers=3), tmp_path / "config.json")


def test_bf16_stays_close_and_copies_keep_their_statistics():
    model = build_model(tiny(batch=16))
    views = torch.rand(32, 3, 40, 40)
    exact = copy.deepcopy(model)(views, 1.0)["loss"].item()
    with torch.autocast("cpu", torch.bfloat16):
        result = model(views, 1.0)
    assert result["loss"].dtype == torch.float32
    assert abs(result["loss"].item() - exact) < 0.05 * exact
    assert result["embedding"].shape == (16, 384)
