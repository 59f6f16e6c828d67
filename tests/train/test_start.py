"""Runs that start from an encoder, and encoders that are given away."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from train import checkpoint, export, main, shipped
from train.config import configure
from train.config_file import check_same
from train.distributed import World
from train.dry_run import describe
from train.encoder import build_encoder, load_encoder, save_encoder
from train.loop import train
from train.methods import build_model
from train.start import find_encoder, start_from

pytestmark = pytest.mark.usefixtures("alone")

ALONE = World(0, 1, torch.device("cpu"))
COLOURS = [0.7, 0.5, 0.6], [0.2, 0.2, 0.1]


def tiny(**settings):
    """Settings of a small run of 2 steps."""
    small = {"data": "d", "out": "o", "encoder": "resnet18s", "batch": 4, "hidden": 16}
    small |= {"projection": 8, "epoch_samples": 8, "epochs": 1, "warmup_epochs": 0.0, "workers": 0}
    return configure(**small | settings)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> Path:
    """Encoder folders: `resnet`, with statistics that are not the start's, and `vit`."""
    out = tmp_path_factory.mktemp("encoders")
    model = build_encoder("resnet18s", seed=7)
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 40, 40))
    save_encoder(model, out / "resnet", *COLOURS, 0.25, network="student", steps=9)
    save_encoder(build_encoder("vit_ti8", seed=7), out / "vit", *COLOURS, 0.25)
    return out


def test_student_and_teacher_start_from_the_folder(encoders):
    for name, encoder, more in [
        ("resnet", "resnet18s", {}),
        ("vit", "vit_ti8", {}),
        ("vit", "vit_ti8", {"heads": 0, "projector_layers": 2}),
    ]:
        model = build_model(tiny(encoder=encoder, **more))
        fixed = {n for n, p in model.encoder.named_parameters() if not p.requires_grad}
        start_from(str(encoders / name), model)
        expected = load_encoder(encoders / name)[0].state_dict()
        for one in (model.encoder, model.teacher_encoder):
            found = one.state_dict()
            assert all(torch.equal(found[k], expected[k]) for k in expected)
        assert fixed == {n for n, p in model.encoder.named_parameters() if not p.requires_grad}
        assert not any(p.requires_grad for p in model.teacher_encoder.parameters())


def test_dinov2_starts_from_a_vit(encoders):
    small = {"hidden": 16, "bottleneck": 8, "prototypes": 12, "layer_scale": 0.0}
    common = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 4}
    model = build_model(configure(method="dinov2", **common, **small))
    start_from(str(encoders / "vit"), model)
    expected = load_encoder(encoders / "vit")[0]
    assert torch.equal(model.teacher_encoder.cls_token, expected.cls_token)
    assert torch.equal(model.encoder.blocks[3].mlp.fc1.weight, expected.blocks[3].mlp.fc1.weight)
    model = build_model(configure(method="dinov2", **common, **small | {"layer_scale": 0.1}))
    with pytest.raises(ValueError, match=r"init_values is none there, 0\.1 here"):
        start_from(str(encoders / "vit"), model)


@pytest.mark.parametrize(
    ("word", "settings", "error", "message"),
    [
        ("vit", {}, ValueError, "--init .*vit is another .*network is vit_tiny_patch16_224 there"),
        ("resnet", {"encoder": "vit_ti8"}, ValueError, "channels is .48, 96, 192, 384. there"),
        ("vit", {"encoder": "vit_ti8", "heads": 6}, ValueError, "num_heads is none there, 6 here"),
        ("none", {}, FileNotFoundError, "no encoder .*none.*neither a folder with config.json"),
    ],
)
def test_another_encoder_is_refused_by_name(encoders, word, settings, error, message):
    with pytest.raises(error, match=message):
        start_from(str(encoders / word), build_model(tiny(**settings)))


def test_another_input_size_is_refused(tmp_path):
    save_encoder(build_encoder("resnet18s", input_px=56), tmp_path, *COLOURS, 0.25)
    with pytest.raises(ValueError, match="input_px is 56 there, 40 here"):
        start_from(str(tmp_path), build_model(tiny()))


def test_an_encoder_of_the_clone_is_found_by_its_name(encoders, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", encoders)
    assert find_encoder("resnet") == encoders / "resnet"
    with pytest.raises(FileNotFoundError, match="with the clone come resnet, vit"):
        find_encoder("lemon-none")


def test_a_run_starts_so_resumes_without_the_folder_and_says_so(encoders, shards_folder, tmp_path):
    """The first step's rate is 0, so that after it the student is still what it started from."""
    folder = Path(shutil.copytree(encoders / "resnet", tmp_path / "given"))
    expected = load_encoder(folder)[0]
    out = tmp_path / "run"
    words = {"data": str(shards_folder), "out": str(out), "init": str(folder), "keep": 9}
    config = tiny(**words, warmup_epochs=0.5, checkpoint_every=1, precision="fp32")
    assert "start          the weights of" in describe(config, 1, torch.device("cpu"))
    assert train(config, ALONE)
    first = checkpoint.load(out / "step-0000001.pt")["model"]
    assert torch.equal(first["encoder.conv1.weight"], expected.conv1.weight)
    assert torch.allclose(first["teacher_encoder.conv1.weight"], expected.conv1.weight, atol=1e-6)
    last = checkpoint.load(out / "latest.pt")["model"]
    assert not torch.equal(last["encoder.conv1.weight"], expected.conv1.weight)
    assert json.loads((out / "config.json").read_text())["settings"]["init"] == str(folder)
    assert load_encoder(out / "encoder")[1]["init"] == str(folder)
    shutil.rmtree(folder)
    (out / "step-0000002.pt").unlink()
    assert train(config, ALONE)
    again = checkpoint.load(out / "latest.pt")["model"]
    assert all(torch.equal(again[k], last[k]) for k in last)
    with pytest.raises(ValueError, match=r"--init was .*given, is"):
        check_same(tiny(**words | {"init": ""}), out / "config.json")
    wrong = tiny(**words | {"out": str(tmp_path / "other"), "init": str(encoders / "vit")})
    with pytest.raises(ValueError, match=r"--init .* is another encoder"):
        train(wrong, ALONE)
    assert not (tmp_path / "other").exists()  # the corrected command finds no run in its way


# ---- export --------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path) -> Path:
    """A prepared benchmark of three colours."""
    folder = tmp_path / "colours"
    folder.mkdir()
    crops = np.random.default_rng(0).integers(0, 60, (90, 60, 60, 3), dtype=np.uint8)
    labels = np.repeat(["a", "b", "c"], 30)
    for i, name in enumerate("abc"):
        crops[labels == name, 20:40, 20:40, i] += 120
    np.save(folder / "crops.npy", crops)
    groups = [f"g{i % 4}" for i in range(90)]
    pq.write_table(pa.table({"label": labels, "group": groups}), folder / "cells.parquet")
    return folder


def test_an_export_is_half_as_large_embeds_alike_and_says_its_score(
    encoders, prepared, tmp_path, capsys
):
    out = tmp_path / "lemon-x"
    words = [str(encoders / "resnet"), "--out", str(out), "--float16", "--probe", str(prepared)]
    assert main.main(["export", *words]) == 0
    assert "12.7 MB" in capsys.readouterr().out
    before, after = ((encoders / "resnet"), out)
    one, other = (load_encoder(folder) for folder in (before, after))
    x = torch.rand(6, 3, 40, 40)
    with torch.inference_mode():
        a, b = one[0](x), other[0](x)
    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.9999
    assert torch.equal(one[0].bn1.running_var, other[0].bn1.running_var)
    own = json.loads((out / "config.json").read_text())["lemon"]
    weights = (out / "model.safetensors").read_bytes()
    assert own["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (own["weights"], own["steps"], own["network"]) == ("float16", 9, "student")
    assert own["knn"] == export.score(other[0], other[1], prepared)
    assert own["knn"]["cells"] == 90 and own["knn"]["score"] > 0.5
    again = tmp_path / "again"
    assert main.main(["export", str(out), "--out", str(again), "--float16"]) == 0
    assert (again / "model.safetensors").read_bytes() == weights


def test_what_is_too_large_or_does_not_fit_is_refused(encoders, tmp_path, capsys):
    assert main.main(["export", str(encoders / "resnet"), "--out", str(tmp_path / "x")]) == 2
    said = "would be 25.2 MB, and a file that comes with a clone has at most 15 MB: give --float16"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    model = build_encoder("resnet18s")
    with torch.no_grad():
        model.conv1.weight[0, 0, 0, 0] = 1e6
    save_encoder(model, tmp_path / "wide", *COLOURS, 0.25)
    with pytest.raises(ValueError, match=r"conv1\.weight does not fit into float16"):
        export.export(str(tmp_path / "wide"), tmp_path / "y", half=True)
    assert main.main(["export", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 2
