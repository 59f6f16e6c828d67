"""Weights as people give them: wrapped, nested, damaged, or no weights at all."""

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evaluate.networks.weights import fit
from shards.weights import read_state
from train import checkpoint


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        collections.OrderedDict(
            stem=nn.Linear(3, 4), block=nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        )
    )


def under(prefix: str, state: dict) -> dict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


GOOD = network().state_dict()
OTHER = network(1).state_dict()
HEADS = {"head.weight": torch.zeros(2, 4), "head.bias": torch.zeros(2)}

LAYOUTS = {
    "plain": GOOD,
    "DistributedDataParallel": under("module.", GOOD),
    "compiled": under("_orig_mod.", GOOD),
    "compiled, then distributed": under("module._orig_mod.", GOOD),
    "a part compiled": {n.replace("block.", "block._orig_mod."): t for n, t in GOOD.items()},
    "FSDP": under("_fsdp_wrapped_module.", GOOD),
    "state_dict": {"state_dict": GOOD, "epoch": 3, "args": {"lr": 0.1}},
    "state_dict of module": {"state_dict": under("module.", GOOD), "epoch": 3},
    "model": {"model": GOOD, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4, 3)}}}},
    "backbone": under("backbone.", GOOD) | under("projector.", HEADS),
    "Lightning": {"state_dict": under("model.encoder.", GOOD), "callbacks": {}},
    "teacher with a head": {"teacher": under("backbone.", GOOD | HEADS)},
    "student, and a teacher of another width": under("student.", GOOD)
    | under("teacher.", {n: torch.cat([t, t]) for n, t in OTHER.items()}),
    "half precision": {n: t.half() for n, t in under("module.", GOOD).items()},
}


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_wrapped_and_nested_weights_load(tmp_path, layout, kind):
    from safetensors.torch import save_file

    state, path = LAYOUTS[layout], tmp_path / "weights.bin"  # the ending tells nothing
    if kind == "pt":
        torch.save(state, path)
    elif all(isinstance(v, torch.Tensor) for v in state.values()):
        save_file(state, path)
    else:
        return  # safetensors holds no nests
    x = torch.ones(2, 3)
    module = fit(network(2), read_state(path), "it")
    close = 1e-2 if layout == "half precision" else 0
    assert torch.allclose(module(x), network().eval()(x), atol=close, rtol=0)


UNFIT = {
    "two networks": (
        {"student": GOOD, "teacher": OTHER},
        r"any of 2 networks in the file, student\.\*, teacher\.\*: save the one you mean alone",
    ),
    "a weight too few": ({"state_dict": dict(list(GOOD.items())[1:])}, "does not fit: .* missing"),
    "another width": ({n: torch.cat([t, t]) for n, t in GOOD.items()}, "of another shape"),
    "a stranger": (GOOD | {"gate.weight": torch.zeros(3)}, "1 not the architecture's, first gate"),
    "a stranger below": (
        under("backbone.", GOOD | {"gate.weight": torch.zeros(3)}),
        "does not fit",
    ),
    "nothing": ({}, "does not fit: of 6 tensors 6 missing"),
    "no tensors": ({"epoch": 3, "notes": ["a"]}, "does not fit: of 6 tensors 6 missing"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_weights_that_do_not_fit_are_named(tmp_path, case):
    state, said = UNFIT[case]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=said):
        fit(network(), read_state(tmp_path / "w.pt"), "it")


def saved(**options) -> bytes:
    data = io.BytesIO()
    torch.save(GOOD, data, **options)
    return data.getvalue()


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(data, "jpeg")
    return data.getvalue()


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    return data.getvalue()


def script() -> bytes:
    """A TorchScript archive, as far as torch looks."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("x/constants.pkl", pickle.dumps((), 2))
        archive.writestr("x/data.pkl", pickle.dumps({}, 2))
        archive.writestr("x/version", "3\n")
        archive.writestr("x/code/__torch__.py", "")
    return data.getvalue()


def safe(header: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if size is None else size) + header


def flipped() -> bytes:
    """Weights of which one bit is another than torch.save wrote."""
    data, number = saved(), next(t for t in GOOD.values() if t.numel() > 4).numpy().tobytes()
    place = data.index(number) + 5
    return data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 343000000\n" % (b"a" * 64)
NOT_WEIGHTS = {
    "Git LFS pointer": (LFS, r"a Git LFS pointer to 343,000,000 bytes.*git lfs pull"),
    "login page": (b"<!DOCTYPE html><html><title>Sign in</title>", "a web page .*Sign in"),
    "store's error": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "AccessDenied",
    ),
    "empty": (b"", "is empty"),
    "zeros": (b"\0" * 5000, "begins with zeros"),
    "cut short": (saved()[:-100], "cut short"),
    "a flipped bit": (flipped(), "is a damaged zip archive .*is not what was written"),
    "cut short, old format": (saved(_use_new_zipfile_serialization=False)[:-20], "cannot be read"),
    "another pickle": (pickle.dumps({"a": collections.Counter("ab")}), "more than tensors|cannot"),
    "a model, not its weights": (
        None,
        r"more than tensors and plain Python \(torch.nn.*Sequential\)",
    ),
    "one tensor": (b"tensor", "holds one Tensor, no weights by name"),
    "TorchScript": (script(), "a TorchScript program|cannot be read"),
    "an archive": (zipped(), "cannot be read as weights"),
    "an image": (jpeg(), "is no file of weights but a JPEG image"),
    "text": (b"see https://example.org for the weights\n", "is no file of weights but text"),
    "JSON": (b'{"message": "Not Found"}', "is no file of weights but JSON"),
    "numpy": (b"\x93NUMPY\x01\0v\0" + b"x" * 200, "is no file of weights but a NumPy array"),
    "noise": (np.random.default_rng(0).bytes(4000), "is no file of weights|cannot be read"),
    "safetensors cut in its header": (safe(b'{"a":', 400), "cannot be read as weights"),
    "safetensors without its data": (
        safe(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        "cannot be read as weights",
    ),
    "safetensors of nonsense": (safe(b"{nonsense}"), "cannot be read as weights"),
}


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_what_is_no_weights_is_said(tmp_path, case, ending):
    data, said = NOT_WEIGHTS[case]
    path = tmp_path / f"weights.{ending}"
    if data is None:
        torch.save(network(), path)
    elif data == b"tensor":
        torch.save(torch.zeros(3), path)
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=said) as caught:
        read_state(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "weights_only" not in message
    assert "\n" not in message


@pytest.mark.parametrize("case", NOT_WEIGHTS)
def test_a_checkpoint_that_is_none_is_said(tmp_path, case):
    data, _ = NOT_WEIGHTS[case]
    path = Path(tmp_path / "step-0000001.pt")
    if data in (None, b"tensor"):
        return
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"step-0000001\.pt (is|cannot be read)") as caught:
        checkpoint.load(path)
    assert "weights_only" not in str(caught.value)
