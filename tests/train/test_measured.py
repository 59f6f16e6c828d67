"""The head that predicts handcrafted measures beside MoCo v3's loss."""

import copy
import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from shards.read import Shards
from tests.train.test_runs import SETTINGS, losses, same_state
from train import measured
from train.config import configure
from train.distributed import World
from train.dry_run import describe
from train.flags import parse
from train.loop import train
from train.measured import Measured
from train.measures import measure
from train.methods import build_model
from train.moco import Measurer
from train.twopass import two_pass

pytestmark = pytest.mark.usefixtures("alone")

STEPS, ALONE = 3, World(0, 1, torch.device("cpu"))
FLAGS = [*SETTINGS, "--encoder", "resnet18s", "--epoch-samples", str(12 * STEPS)]
FLAGS += ["--measures-weight", "2"]


def tiny(**settings):
    small = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 6, "hidden": 32}
    return configure(**small | {"projection": 16} | settings)


def config_of(shards: Path, out: Path):
    return parse(["--data", str(shards), "--out", str(out), *FLAGS])[0]


@pytest.fixture(scope="module")
def straight(shards_folder, alone, tmp_path_factory) -> Path:
    """An undisturbed run on one rank."""
    out = tmp_path_factory.mktemp("runs") / "measured"
    assert train(config_of(shards_folder, out), ALONE)
    return out


def test_the_heads_loss_against_numpy():
    head = Measurer(10).double()
    rng = np.random.default_rng(0)
    y, measures = rng.normal(size=(12, 10)), rng.gamma(0.3, 50, size=(6, 76))
    target = (measures - measures.mean(0)) / np.sqrt(measures.var(0) + 1e-5)
    assert target.max() > 1.9
    target = np.tile(np.clip(target, -4, 4), (2, 1))
    found = y @ head.linear.weight.detach().numpy().T + head.linear.bias.detach().numpy()
    off = np.abs(found - target)
    expected = np.where(off < 1, off**2 / 2, off - 0.5).mean()
    loss = head(torch.from_numpy(y), torch.from_numpy(measures))
    assert abs(loss.item() - expected) < 1e-12
    with torch.autocast("cpu", torch.bfloat16):  # in float32 all the same
        low = head.float()(torch.from_numpy(y).bfloat16(), torch.from_numpy(measures).float())
    assert low.dtype == torch.float32 and abs(low.item() - expected) < 0.02


def test_a_measure_far_out_pulls_no_harder_than_four_sds():
    head = Measurer(3)
    measures = torch.zeros(40, 76)
    measures[0] = 1e6
    off = head.standardise(measures)
    assert off.max() > 6
    expected = F.smooth_l1_loss(head.linear(torch.ones(80, 3)), off.clamp(-4, 4).repeat(2, 1))
    assert torch.equal(head(torch.ones(80, 3), measures), expected)


def test_the_loss_is_the_plain_one_and_the_heads():
    torch.manual_seed(0)
    plain, both = build_model(tiny()).train(), build_model(tiny(measures_weight=3.0)).train()
    assert not any("measurer" in name for name in plain.state_dict())
    assert plain.draws is None
    views, measures = torch.rand(12, 3, 40, 40), torch.rand(6, 76)
    alone, result = plain(views, 0.9), both(views, 0.9, measures)
    assert torch.equal(result["contrast"], alone["loss"])  # one seed, one encoder, whatever heads
    features = both.encoder(views)
    assert torch.allclose(result["measures"], both.measurer(features, measures), atol=1e-6)
    assert torch.allclose(result["loss"], alone["loss"] + 3 * result["measures"])
    assert both.chance[0] == "contrast"
    result["loss"].backward()
    assert both.measurer.linear.weight.grad.abs().sum() > 0
    one, other = (m.flops() for m in (plain, both))
    assert other > one


def test_crops_are_measured_once(shards_folder, monkeypatch):
    shards, calls = Shards(str(shards_folder)), []

    def counted(crops):
        calls.append(len(crops))
        return measure(crops)

    monkeypatch.setattr(measured, "measure", counted)
    monkeypatch.setattr(measured, "KEPT", 5)
    planes = shards.read(np.arange(8))
    make, expected = Measured(), measure(planes.transpose(0, 2, 3, 1))
    for order, new in ((range(4), 4), ([3, 1, 2, 0], 0), (range(8), 4), (range(8), 3)):
        got = make(0, range(len(order)), planes[list(order)])
        np.testing.assert_allclose(got.numpy(), expected[list(order)], rtol=1e-6)
        assert (calls.pop() if calls else 0) == new
    assert len(make.known) == 5


def test_the_log_has_both_losses_and_the_dry_run_goes(straight, shards_folder):
    lines = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["loss"] == pytest.approx(line["contrast"] + 2 * line["measures"], rel=1e-5)
    assert "resnet18s" in describe(config_of(shards_folder, straight), 1, torch.device("cpu"))


def test_two_ranks_equal_one(run_ranks, shards_folder, straight, tmp_path):
    two = tmp_path / "two"
    done = run_ranks("--data", shards_folder, "--out", two, *FLAGS, "--workers", "1", ranks=2)
    assert done.returncode == 0, done.stderr
    assert max(abs(a - b) for a, b in zip(losses(straight), losses(two), strict=True)) < 1e-4


def test_resumed_equals_straight(shards_folder, straight, tmp_path):
    out = Path(shutil.copytree(straight, tmp_path / "half", symlinks=True))
    (out / f"step-{STEPS:07d}.pt").unlink()
    assert train(config_of(shards_folder, out), ALONE)
    assert losses(out) == losses(straight)
    assert same_state(out, straight)


def test_the_two_pass_step_measures_too():
    plain = build_model(tiny(measures_weight=3.0)).train()
    parts, views, measures = copy.deepcopy(plain), torch.rand(12, 3, 40, 40), torch.rand(6, 76)
    result = plain(views, 0.9, measures)
    result["loss"].backward()
    again = two_pass(parts, views, 0.9, measures, chunk=5, autocast=nullcontext)
    assert torch.allclose(again["loss"], result["loss"])
    for one, other in zip(plain.parameters(), parts.parameters(), strict=True):
        if one.grad is not None:
            assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_a_resnets_last_stages_are_measured():
    model = build_model(tiny(encoder="resnet18s", measures_weight=1.0)).double().train()
    views, measures = torch.rand(12, 3, 40, 40).double(), torch.rand(6, 76).double()
    maps: list[torch.Tensor] = []
    for stage in (model.encoder.layer2, model.encoder.layer3, model.encoder.layer4):
        stage.register_forward_hook(lambda m, _, y: maps.append(y.mean((2, 3))))
    result = model(views, 0.9, measures)
    features = torch.cat([torch.cat(maps[:3], 1), torch.cat(maps[3:6], 1)])
    assert torch.allclose(result["measures"], model.measurer(features, measures))
    plain = build_model(tiny(encoder="resnet18s")).double().train()
    assert torch.allclose(result["contrast"], plain(views, 0.9)["loss"])


def test_it_belongs_to_moco_alone():
    with pytest.raises(ValueError, match="--measures-weight belongs to moco"):
        configure(data="d", out="o", method="dinov2", measures_weight=1.0)
