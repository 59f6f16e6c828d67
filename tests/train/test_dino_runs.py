"""DINOv2 under several ranks and resumed: the same losses, the same weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.train.test_runs import ROOT, SETTINGS, losses, same_state
from tests.train.two_ranks import parts_of
from train import checkpoint
from train.config import DinoConfig, configure
from train.config_file import read_settings
from train.dino import DINO
from train.distributed import World
from train.dry_run import describe
from train.encoder import load_encoder
from train.health import Collapsed
from train.loop import train
from train.plot import plot

STEPS = 6
AT = SETTINGS.index("--projection")
SHARED = SETTINGS[:AT] + SETTINGS[AT + 2 :]  # but for MoCo's own
# Everything that must agree: local crops, masks, dropped branches, gathered KoLeo, centres.
FLAGS = f"""
    --method dinov2 --epoch-samples {12 * STEPS} --checkpoint-every 3 --keep 9 --bottleneck 32
    --prototypes 48 --local-crops 2 --targets centre --koleo-over batch --ibot-head separate
    --layer-scale 0.1 --freeze-last-epochs 0.2 --temperature-epochs 0.5 --drop-path 0.3
""".split()


@pytest.fixture(scope="module")
def dino(run_ranks, shards_folder):
    """Run 6 steps."""

    def go(out: Path, ranks: int = 1) -> None:
        done = run_ranks("--data", shards_folder, "--out", out, *SHARED, *FLAGS, ranks=ranks)
        assert done.returncode == 0, done.stderr

    return go


@pytest.fixture(scope="module")
def straight(dino, tmp_path_factory) -> Path:
    """An undisturbed run on one rank."""
    out = tmp_path_factory.mktemp("runs") / "dino"
    dino(out)
    assert len(set(losses(out))) == STEPS
    return out


def test_the_teacher_is_exported_and_the_terms_are_logged(straight):
    encoder, config = load_encoder(straight / "encoder")
    assert (config["network"], config["method"]) == ("teacher", "dinov2")
    assert config["timm"]["args"]["init_values"] == 0.1
    state = checkpoint.load(straight / "latest.pt")["model"]
    assert all(
        torch.equal(v, state[f"teacher_encoder.{k}"]) for k, v in encoder.state_dict().items()
    )
    assert not torch.equal(state["encoder.cls_token"], state["teacher_encoder.cls_token"])
    assert state["targets.centre"].any()
    assert state["ibot_targets.centre"].any()
    lines = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    for line in lines:
        assert {"dino", "ibot", "koleo", "entropy", "rank", "spread"} <= line.keys()
        total = line["dino"] + line["ibot"] + 0.1 * line["koleo"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    assert lines[-1]["temperature"] == pytest.approx(0.07)
    assert lines[0]["weight_decay"] == pytest.approx(0.04)


def test_two_ranks_equal_one(dino, straight, tmp_path):
    dino(tmp_path / "two", ranks=2)
    one, two = losses(straight), losses(tmp_path / "two")
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-4


def test_resumed_equals_straight(dino, straight, tmp_path):
    out = Path(shutil.copytree(straight, tmp_path / "half", symlinks=True))
    (out / f"step-{STEPS:07d}.pt").unlink()
    dino(out)
    assert losses(out) == losses(straight)
    assert same_state(out, straight)


def test_the_dry_run_and_the_curves(straight, tmp_path, alone):
    config = replace(config_of(straight), batch=12)
    text = describe(config, 2, torch.device("cpu"))
    assert "4 views, student and teacher" in text
    assert "48 for 24 views' targets of 2 ranks (centre), 2 local crops of 24 px" in text
    # 52 + 20 tokens a student, 52 a teacher; a weight is a multiply-add; the heads are small
    weights = 12 * 12 * 192 * 192
    tokens = 3 * (52 + 20) * 0.7 + 52
    assert DINO.build(config).flops() == pytest.approx(2 * weights * tokens, rel=0.15)
    plot([straight], tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png"))
    assert picture.std() > 10
    assert picture.shape[0] > 1500  # four rows: DINO's terms too


def test_a_collapse_stops_the_run_once_the_teacher_has_forgotten_its_start(
    straight, tmp_path, alone
):
    """Layer scale starts all images alike; nothing is learnt, and the watch sees the teacher."""
    still = {"layer_scale": 1e-5, "lr": 1e-9, "end_lr": 0.0, "momentum": 0.5, "out": str(tmp_path)}
    still |= {"epoch_samples": 120}
    config = replace(config_of(straight), **still, warmup_epochs=0.0, drop_path=0.0)
    assert DINO.build(config).first_checked == 6
    assert DINO.build(replace(config, momentum=0.9)).first_checked == pytest.approx(30)
    with pytest.raises(Collapsed, match=r"spread is .* at step 9"):
        train(config, World(0, 1, torch.device("cpu")))


def config_of(run: Path) -> DinoConfig:
    return configure(**read_settings(run / "config.json"))


def test_losses_and_targets_of_two_ranks_are_those_of_one(alone, forks, tmp_path):
    whole = parts_of(0, 1)
    script = str(ROOT / "tests/train/two_ranks.py")
    children = [forks["train"].start([script, str(rank), str(tmp_path)]) for rank in (0, 1)]
    for done in [child.wait() for child in children]:
        assert done.returncode == 0, done.stderr
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name, expected in whole.items():
        one, two = (part[name] for part in parts)
        if "within" in name:  # each rank's loss is that of its images alone
            assert not torch.allclose(torch.cat([one, two]), expected)
            continue
        if name in ("koleo", "koleo teacher", "kde", "kde sum", "kde teacher"):
            found = (one[0] + two[0]) / 2
            assert found.item() == pytest.approx(expected[0].item(), rel=1e-9), name
        else:
            assert torch.allclose(torch.cat([one, two]), expected, atol=1e-12), name
