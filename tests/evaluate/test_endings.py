"""Endings of encoders' names, encoders that come with the clone, and a probe fair to both."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.preprocessing import StandardScaler

from evaluate import main
from evaluate.encoders import read_spec
from evaluate.endings import described
from evaluate.probes import probe
from evaluate.results import read_facts, read_rows
from tests.evaluate.encoder_inputs import opened
from train import shipped
from train.encoder import build_encoder, load_encoder, save_encoder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of another method, with an untrained ViT-Ti/8."""
    path = tmp_path_factory.mktemp("runs") / "x"
    model = build_encoder("vit_ti8", seed=3, kind="dinov2")
    save_encoder(model, path / "encoder", [0.7, 0.5, 0.6], [0.2, 0.2, 0.1], 0.25, network="student")
    return path


@pytest.fixture(scope="module")
def crops(benchmark):
    return benchmark.crops[:5]


def test_endings_combine_in_one_order(run):
    spec = read_spec(f"{run}+morphology+mean+tta")
    assert (spec.name, spec.kind, spec.readout) == ("x+mean+tta+morphology", "run", "class+mean")
    assert read_spec(f"{run}+mean+tta+morphology") == spec
    assert read_spec("uni-center+tta").name == "uni-center+tta"
    assert read_spec(f"mine={run}+tta").name == "mine"
    assert read_spec(f"virchow2+mean:{run}+tta").name == "virchow2+mean+tta"


def test_a_folder_whose_name_ends_so_is_itself(tmp_path, run):
    (tmp_path / "y+tta").symlink_to(run)
    spec = read_spec(str(tmp_path / "y+tta"))
    assert (spec.endings, read_spec(f"{tmp_path}/y+tta+tta").endings) == ((), ("+tta",))


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("untrained+tta+tta", r"\+tta stands there twice"),
        ("untrained+mean+tta+mean", r"\+mean stands there twice"),
        ("morphology+mean", r"morphology is no network; leave \+mean and \+stages out"),
        ("untrained+stages", r"has no stages of growing width; take \+mean"),
        ("untrained+mean+stages", r"are readouts of which one can be had"),
        ("efficientnet-lite0+mean", r"has no class token beside patches.*; take \+stages"),
        ("pixels+morphology", r"reduced by a PCA .*; put \+morphology behind a network's name"),
        ("uni-center+mean", r"central tokens, \+mean and \+stages are readouts of which one"),
        ("nowhere/x+tta", r"no encoder 'nowhere/x': neither"),
    ],
)
def test_what_does_not_take_an_ending_says_so(word, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        opened(word)


def test_each_ending_is_what_it_says(run, crops):
    plain, both = opened(str(run)), opened(f"{run}+mean")
    model, config = load_encoder(run / "encoder")
    x = torch.from_numpy((crops / 255 - config["mean"]) / config["std"]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        tokens = model.forward_features(x).numpy()
    found = both.embed(crops)
    np.testing.assert_allclose(found[:, :192], plain.embed(crops), atol=1e-5)
    np.testing.assert_allclose(found[:, 192:], tokens[:, 1:].mean(axis=1), atol=1e-4)
    averaged = opened(f"{run}+tta")
    views = [np.rot90(c, k, axes=(1, 2)) for c in (crops, crops[:, ::-1]) for k in range(4)]
    expected = np.mean([plain.embed(np.ascontiguousarray(v)) for v in views], axis=0)
    np.testing.assert_allclose(averaged.embed(crops), expected, atol=1e-5)
    for view in views:
        np.testing.assert_allclose(averaged.embed(view), expected, atol=1e-5)
    measures, all_of_them = opened("morphology"), opened(f"{run}+mean+tta+morphology")
    found = all_of_them.embed(crops)
    assert all_of_them.blocks(found.shape[1]) == (192, 192, 76)
    np.testing.assert_array_equal(found[:, 384:], measures.embed(crops))
    np.testing.assert_array_equal(found[:, :384], opened(f"{run}+mean+tta").embed(crops))
    assert plain.manifest() != both.manifest() != averaged.manifest() != all_of_them.manifest()
    assert described(plain.manifest()) == ""
    assert described(all_of_them.manifest()) == (
        "class token and mean of patches, average over 8 flips and rotations, 76 handcrafted "
        "measures beside it"
    )


def test_stages_are_the_means_of_the_last_three(tmp_path, crops):
    model = build_encoder("resnet18s", seed=1)
    save_encoder(model, tmp_path / "r" / "encoder", [0.5] * 3, [0.2] * 3, 0.25, network="student")
    encoder = opened(f"{tmp_path / 'r'}+stages+morphology")
    found = encoder.embed(crops)
    x = torch.from_numpy((crops / 255 - 0.5) / 0.2).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        model.eval()
        x = model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(x)))))
        two = model.layer2(x)
        three = model.layer3(two)
        expected = [stage.mean(dim=(2, 3)) for stage in (two, three, model.layer4(three))]
    widths = tuple(stage.shape[1] for stage in expected)
    assert encoder.blocks(found.shape[1]) == (*widths, 76)
    np.testing.assert_allclose(found[:, :-76], torch.cat(expected, 1).numpy(), atol=1e-4)
    plain = opened(str(tmp_path / "r"))
    np.testing.assert_allclose(found[:, sum(widths[:2]) : -76], plain.embed(crops), atol=1e-4)
    assert described(encoder.manifest()) == (
        "means of the last three stages, 76 handcrafted measures beside it"
    )


def test_tables_say_what_an_encoder_was_made_of(run, own, tmp_path):
    words = ["probe", "--encoder", str(run), f"mine={run}+mean+morphology", "--benchmark", str(own)]
    words += ["--out", str(tmp_path), "--folds", "3", "--C", "inner", "--bootstrap", "0"]
    assert main.main(words) == 0
    assert {row["encoder"] for row in read_rows(tmp_path)} == {"x", "mine"}
    assert read_facts(tmp_path)["encoders"]["own"]["mine"]["config"]["readout"] == "class+mean"
    line = "mine: class token and mean of patches, 76 handcrafted measures beside it."
    assert line in (tmp_path / "table.md").read_text()
    assert main.main(["report", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    assert line in (tmp_path / "r.html").read_text()


def test_an_encoder_of_the_clone_is_found_by_its_name(run, crops, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    shutil.copytree(run / "encoder", tmp_path / "lemon-tiny")
    weights = tmp_path / "lemon-tiny/model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights)
    encoder = opened("lemon-tiny")
    assert encoder.name == "lemon-tiny"
    expected = opened(str(run)).embed(crops)
    np.testing.assert_allclose(encoder.embed(crops), expected, rtol=0.02, atol=0.02)
    assert opened("lemon-tiny+tta").name == "lemon-tiny+tta"
    with pytest.raises(FileNotFoundError, match=r"no encoder 'lemon-small'.*untrained, lemon-tiny"):
        opened("lemon-small")


@pytest.mark.parametrize("parts", [1, 2])
def test_timms_own_layout_in_one_file_or_several(parts, crops, tmp_path, monkeypatch):
    import timm

    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    folder = tmp_path / "lemon-hub"
    folder.mkdir()
    name, arguments = "vit_tiny_patch16_224", {"img_size": 40, "patch_size": 8}
    facts = {"architecture": name, "num_classes": 0, "global_pool": "token"}
    data = {"input_size": [3, 40, 40], "mean": [0.6, 0.5, 0.4], "std": [0.2, 0.2, 0.1]}
    own = {"mpp": 0.25, "method": "dinov2"}
    whole = facts | {"model_args": arguments, "pretrained_cfg": data, "lemon": own}
    (folder / "config.json").write_text(json.dumps(whole))
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, global_pool="token", **arguments
    )
    state = {k: v.half() for k, v in model.state_dict().items()}
    names = [f"model-{i}.safetensors" for i in range(parts)] if parts > 1 else ["model.safetensors"]
    where = {key: names[i % parts] for i, key in enumerate(state)}
    for file in names:
        save_file({k: v for k, v in state.items() if where[k] == file}, folder / file)
    if parts > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    else:  # timm reads it too
        other = timm.create_model(f"local-dir:{folder}", pretrained=True)
        assert all(torch.equal(v.half(), state[k]) for k, v in other.state_dict().items())
    model.load_state_dict(state)
    x = torch.from_numpy((crops / 255 - data["mean"]) / data["std"]).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        expected = model.eval()(x).numpy()
    encoder = opened("lemon-hub")
    np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-4)
    assert encoder.manifest()["config"]["method"] == "dinov2"
    assert opened("lemon-hub+mean").embed(crops).shape == (5, 384)
    (folder / names[-1]).unlink()
    with pytest.raises(FileNotFoundError, match=r"lemon-hub"):
        opened("lemon-hub")


def test_c_by_an_inner_split_is_fair_to_narrow_blocks(benchmark):
    """scikit-learn, on blocks scaled to a variance of 1 each, gives the same predictions and C."""
    rng = np.random.default_rng(0)
    labels = np.array([benchmark.classes.index(label) for label in benchmark.labels.tolist()])
    useful = (labels - 0.5)[:, None] * rng.uniform(0.7, 1.0, 3) + rng.standard_normal(
        (len(labels), 3)
    )
    x = np.concatenate([rng.standard_normal((len(labels), 160)) * 7, useful], axis=1)
    tests = probe.folds(benchmark, "stratified", 4, 0)
    found = probe.predict(x, benchmark, tests, probe.Model(strength=None, blocks=(160, 3)))
    width = np.sqrt(np.repeat([160, 3], [160, 3]))

    def fitted(train, held, c):
        scaler = StandardScaler().fit(x[train])
        model = LogisticRegression(C=c, tol=1e-10, max_iter=10000)
        model.fit(scaler.transform(x[train]) / width, labels[train])
        return model.predict_proba(scaler.transform(x[held]) / width)

    def outside(*out):
        return np.setdiff1d(np.arange(len(x)), np.concatenate(out))

    for i, test in enumerate(tests):
        others = [t for j, t in enumerate(tests) if j != i]
        scored = [
            balanced_accuracy_score(
                np.concatenate([labels[t] for t in others]),
                np.concatenate([fitted(outside(test, t), t, c).argmax(1) for t in others]),
            )
            for c in probe.GRID
        ]
        c = probe.GRID[int(np.argmax(scored))]
        assert found.strengths[i] == c
        np.testing.assert_allclose(
            found.probabilities[test], fitted(outside(test), test, c), atol=2e-3
        )
    right = (found.probabilities.argmax(1) == labels).mean()
    alike = probe.predict(x, benchmark, tests, probe.Model(strength=None))
    assert right > (alike.probabilities.argmax(1) == labels).mean()
