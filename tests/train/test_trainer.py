"""What keeps a run sound: two-pass step, watch, guard, saver, online probe, dry run, pictures."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from shards.read import Shards
from tests.train.test_dino import tiny as dino
from train import checkpoint
from train.augment import Draws, apply
from train.batches import Batches
from train.config import MocoConfig, configure
from train.dino import DINO
from train.distributed import World
from train.flops import forward_flops
from train.health import PATIENCE, Collapsed, Diverged, Guard, Progress, Watch, spectrum
from train.knn import K, Knn, neighbours_vote
from train.methods import build_model
from train.moco import contrast
from train.policy import POLICIES
from train.twopass import two_pass

pytestmark = pytest.mark.usefixtures("alone")


def tiny(**settings) -> MocoConfig:
    """Settings of a small run."""
    small = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 8, "hidden": 32}
    return configure(**small | {"projection": 16} | settings)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [3, 5, 16])
def test_the_two_pass_step_equals_the_plain_one(chunk):
    views = torch.rand(16, 3, 40, 40, dtype=torch.float64)
    plain, parts = build_model(tiny()).double(), build_model(tiny()).double()
    result = plain(views, 0.9)
    result["loss"].backward()
    again = two_pass(parts, views, 0.9, chunk=chunk, autocast=nullcontext)
    assert abs(result["loss"].item() - again["loss"].item()) < 1e-10
    assert torch.allclose(result["embedding"], again["embedding"])
    expected, found = gradients(plain), gradients(parts)
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.allclose(expected[name], found[name], atol=1e-9), name
    for a, b in zip(plain.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)  # the teacher moved alike


def test_the_two_pass_step_would_not_hold_with_batchnorm_in_the_backbone():
    """The caveat: a backbone that mixes images of a batch sees other batches in parts."""

    class Mixing(torch.nn.Module):
        embed_dim = 192

        def __init__(self):
            super().__init__()
            self.layer, self.norm = torch.nn.Linear(4800, 192), torch.nn.BatchNorm1d(192)

        def forward(self, x):
            return self.norm(self.layer(x.flatten(1)))

    from train.moco import MoCo

    torch.manual_seed(0)
    model = MoCo(Mixing(), tiny())
    views = torch.rand(16, 3, 40, 40)
    plain = model(views, 1.0)["loss"].item()
    assert (
        abs(two_pass(model, views, 1.0, chunk=4, autocast=nullcontext)["loss"].item() - plain)
        > 1e-4
    )


def test_activation_checkpointing_changes_no_gradient():
    views = torch.rand(16, 3, 40, 40, dtype=torch.float64)
    plain, spare = build_model(tiny()).double(), build_model(tiny()).double()
    spare.encoder.set_grad_checkpointing(True)
    for model in (plain, spare):
        model(views, 0.9)["loss"].backward()
    expected, found = gradients(plain), gradients(spare)
    for name in expected:
        assert torch.allclose(expected[name], found[name], atol=1e-12), name


# ---- watch and guard -----------------------------------------------------------------------------


def test_health_by_hand():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8)) * np.array([4, 3, 2, 1, 1, 0, 0, 0]) + 2
    found = {k: v.item() for k, v in spectrum(torch.from_numpy(x)).items()}
    centred = x - x.mean(0)
    singular = np.linalg.svd(centred, compute_uv=False)
    share = singular / singular.sum()
    share = share[share > 1e-12]
    assert found["rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-3)
    assert found["spread"] == pytest.approx(np.sqrt((centred**2).mean() / (x**2).mean()), rel=1e-4)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosine = np.sqrt(((unit @ unit.T)[~np.eye(100, dtype=bool)] ** 2).mean())
    assert found["cosine"] == pytest.approx(cosine, abs=1e-5)
    line = torch.randn(64, 1) @ torch.randn(1, 16) + 5  # far from the origin, yet on a line
    assert spectrum(line)["cosine"].item() == pytest.approx(1, abs=1e-3)


def test_a_loss_at_chance_is_said_after_each_tenth_until_it_is_left(caplog):
    progress = Progress(100, *build_model(tiny()).chance)
    assert progress.chance == pytest.approx(0.8 * np.log(8))
    for done in range(1, 10):
        progress.look(done, {"loss": progress.chance * 1.002})
    assert not caplog.text
    progress.look(10, {"loss": progress.chance * 0.992})
    assert "step 10 of 100: nothing is learnt yet: loss has not left chance, 1.664" in caplog.text
    assert "--batch" in caplog.text
    caplog.clear()
    for done in range(11, 20):
        progress.look(done, {"loss": progress.chance})
    assert not caplog.text
    progress.look(20, {"loss": progress.chance})
    assert "step 20 of 100" in caplog.text
    caplog.clear()
    progress.look(29, {"loss": progress.chance * 0.98})
    for done in (30, 100):
        progress.look(done, {"loss": progress.chance})
    assert not caplog.text


def test_chance_is_the_loss_of_networks_to_which_all_is_alike():
    queries = torch.ones(16, 4)
    config = tiny(batch=16)
    loss = sum(contrast(queries, queries, config.temperature)[0] for _ in range(2))
    assert build_model(config).chance[1] == pytest.approx(loss.item(), rel=1e-5)
    for method, locals_ in (("dinov2", 2), ("dinov2-no-local", 0)):
        model = DINO.build(dino(method))
        targets = torch.softmax(torch.randn(8, 24), 1)
        same = model.image_loss(torch.zeros(8 + 4 * locals_, 24), targets)
        assert model.chance == ("dino", pytest.approx(same.item(), rel=1e-5))


@pytest.mark.parametrize(
    ("embeddings", "name"),
    [
        (torch.ones(64, 16) + 1e-5 * torch.randn(64, 16), "spread"),
        (torch.randn(64, 1) @ torch.randn(1, 16), "rank"),
    ],
)
def test_the_watch_stops_a_collapsed_run(embeddings, name, caplog):
    watch, values = Watch(), {k: v.item() for k, v in spectrum(embeddings).items()}
    for step in range(1, PATIENCE):
        watch.look(step, values)
    assert name in caplog.text
    with pytest.raises(Collapsed, match=f"{name} is .* Lower --lr"):
        watch.look(PATIENCE, values)


def test_the_watch_leaves_healthy_and_recovering_runs_alone(caplog):
    watch = Watch()
    good = {k: v.item() for k, v in spectrum(torch.randn(64, 16)).items()}
    bad = good | {"rank": 1.0}
    for step in range(20):
        watch.look(step, bad if step % PATIENCE else good)
    caplog.clear()
    for step in range(20):
        watch.look(step, good)
    assert not caplog.text


def test_the_guard_names_the_batch_and_keeps_it(shards_folder, tmp_path):
    config = tiny(data=str(shards_folder), out=str(tmp_path))
    policy = POLICIES[config.policy]
    batches = Batches(Shards(shards_folder), [policy] * 2, 0, 8, range(8))
    guard = Guard(config, World(0, 1, torch.device("cpu")), batches)
    guard.note(3, torch.tensor(1.0))
    guard.check(1.0)
    guard.note(4, torch.tensor(float("inf")))
    guard.note(5, torch.tensor(float("nan")))
    with pytest.raises(Diverged, match=r"step 5 was the first .*diverged-0000004-rank0\.pt"):
        guard.check(float("nan"))
    saved = torch.load(tmp_path / "diverged-0000004-rank0.pt", weights_only=True)
    crops, draws, *_ = batches[4]
    assert torch.equal(saved["crops"], crops)
    replayed = apply(saved["crops"], Draws(*saved["draws"][0]), policy)
    assert torch.equal(replayed, apply(crops, draws[0], policy))


def test_broken_crops_are_passed_over_and_counted_on_request(shards_folder, tmp_path):
    copy = Path(shutil.copytree(shards_folder, tmp_path / "copy"))
    row = pq.read_table(copy / "index.parquet").slice(3, 1).to_pylist()[0]
    with open(copy / f"train-{row['shard']:06d}.tar", "r+b") as file:
        file.seek(row["offset"])
        file.write(bytes(row["size"]))
    shards, policies = Shards(copy), [POLICIES["a1"]] * 2
    count = len(shards)
    with pytest.raises(ValueError, match="the crop of index row 3 at byte"):
        [Batches(shards, policies, 0, count, range(count))[0]]
    crops, _, skipped, _ = Batches(shards, policies, 0, count, range(count), skip_corrupt=True)[0]
    assert skipped == 1
    assert len(crops) == count


# ---- checkpoints ---------------------------------------------------------------------------------


def test_the_saver_keeps_the_newest_and_every_nth(tmp_path):
    saver, after = checkpoint.Saver(tmp_path, keep=2, keep_every=20), []
    weight = torch.zeros(3)
    for step in range(10, 80, 10):
        weight += 1
        saver.save(
            step, {"w": weight, "list": [1, {"x": weight}]}, lambda s: after.append(s["w"][0])
        )
        weight += 100  # the copy was taken before
        weight -= 100
    saver.close()
    steps = [checkpoint.load(p)["step"] for p in checkpoint.checkpoints(tmp_path)]
    assert steps == [20, 40, 60, 70]
    assert torch.equal(checkpoint.load(tmp_path / "latest.pt")["w"], torch.full((3,), 7.0))
    assert after == [1, 2, 3, 4, 5, 6, 7]


def test_a_full_disk_reaches_the_trainer(tmp_path):
    saver = checkpoint.Saver(tmp_path / "none", keep=1, keep_every=0)
    saver.save(1, {"w": torch.zeros(3)}, lambda _: None)
    with pytest.raises(FileNotFoundError):
        saver.close()


# ---- online probe --------------------------------------------------------------------------------


def test_knn_against_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    x = rng.normal(size=(300, 6)) + np.eye(6)[labels] * 1.5
    one = torch.zeros(300, dtype=torch.int64)
    ours = neighbours_vote(torch.from_numpy(x), torch.from_numpy(labels), one, 3).numpy()
    centred = x - x.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    theirs = np.empty(300, int)
    for i in range(300):  # leave one out
        rest = np.arange(300) != i
        model = KNeighborsClassifier(K).fit(unit[rest], labels[rest])
        theirs[i] = model.predict(unit[i : i + 1])[0]
    assert (ours == theirs).mean() > 0.99
    groups = torch.from_numpy(labels)  # each class one group: none of it may vote for itself
    apart = neighbours_vote(torch.from_numpy(x), torch.from_numpy(labels), groups, 3).numpy()
    assert (apart != labels).all()


def test_the_online_probe_scores_a_prepared_folder(tmp_path):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 60, (120, 60, 60, 3), dtype=np.uint8)
    labels = np.repeat(["a", "b", "c"], [45, 40, 35])
    for i, name in enumerate("abc"):
        crops[labels == name, 20:40, 20:40, i] = 255
    np.save(tmp_path / "crops.npy", crops)
    groups = [f"g{i % 4}" for i in range(120)]
    pq.write_table(pa.table({"label": labels, "group": groups}), tmp_path / "cells.parquet")
    knn = Knn(tmp_path, 40)

    class Mean(torch.nn.Module):
        def forward(self, x):
            assert x.shape[1:] == (3, 40, 40)
            return x.mean((2, 3))

    encoder = Mean().train()
    flat = torch.zeros(1, 3, 1, 1)
    assert knn.score(encoder, flat, flat + 1) == 1
    assert encoder.training
    knn.labels = torch.from_numpy(rng.permutation(knn.labels.numpy()))
    predicted = neighbours_vote(
        (knn.crops.float() / 255).mean((2, 3)), knn.labels, knn.groups, knn.classes
    )
    expected = balanced_accuracy_score(knn.labels, predicted)
    assert knn.score(encoder, flat, flat + 1) == pytest.approx(expected)
    with pytest.raises(FileNotFoundError, match=r"no crops\.npy.*prepare"):
        Knn(tmp_path / "none", 40)
    with pytest.raises(ValueError, match="crops of 60 px, 80 needed"):
        Knn(tmp_path, 80)


# ---- the commands --------------------------------------------------------------------------------


def test_flops_of_vit_s8_are_the_papers():
    encoder = build_model(configure(data="d", out="o", hidden=8)).encoder
    counted = forward_flops(encoder, 1, 3, 40, 40) / 2  # multiply-adds
    tokens, dim = 26, 384
    weights = 12 * 12 * dim * dim * tokens + 25 * 192 * dim
    attention = 12 * 2 * tokens * tokens * dim
    assert counted == pytest.approx(weights + attention, rel=1e-6)
    assert 0.5e9 < counted < 0.6e9


def test_dry_run_plot_and_views(run_stage, shards_folder, tmp_path):
    flags = ["--data", shards_folder, "--out", tmp_path / "run", "--encoder", "vit_ti8"]
    done = run_stage("train/main.py", *flags, "--dry-run", "--time-limit-hours", 0.01)
    assert done.returncode == 0, done.stderr
    assert "5.4 M parameters" in done.stdout
    assert "36600 of 4096 images" in done.stdout
    assert "4095 a query" in done.stdout
    assert "does NOT fit" in done.stdout
    assert not (tmp_path / "run").exists()

    done = run_stage("train/main.py", "views", "--data", shards_folder, "--out", tmp_path / "v.png")
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(tmp_path / "v.png"))
    assert picture.std() > 20
    assert picture.shape[0] > 8 * 40

    (tmp_path / "run").mkdir()
    lines = [json.dumps({"step": s, "loss": 3 - s / 10, "lr": 0.1}) for s in (1, 2, 3)]
    lines.insert(2, json.dumps({"step": 2, "probe": 0.5}))
    (tmp_path / "run/log.jsonl").write_text("\n".join(lines) + "\n")
    done = run_stage("train/main.py", "plot", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(tmp_path / "run/curves.png")).std() > 10
    done = run_stage("train/main.py", "plot", tmp_path / "none")
    assert done.returncode == 2
    assert "is no run" in done.stderr
