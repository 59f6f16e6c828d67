"""Files given for a segmenter's weights: read whatever wrapped them, or called what they are."""

import pickle
import warnings
from pathlib import Path

import pytest
import torch

from extract.network.architecture import HoverFast
from extract.network.weights import FIXED, load_network, save_checkpoint
from extract.segment.options import TorchScript
from extract.segment.torchscript import ScriptedSegmenter

NETWORK = HoverFast(2, 2)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 99\n"


def checkpoint(prefix: str = "", scale: float = 1, **more) -> dict:
    state = NETWORK.state_dict()
    state = {k: v * scale if v.is_floating_point() else v for k, v in state.items()}
    named = {prefix + name: value for name, value in state.items()}
    return {"epoch": 0, **FIXED, "depth": 2, "wf": 2, "model_dict": named, **more}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("zipped", [True, False])
def test_wrapped_weights_load(tmp_path, prefix, zipped):
    path = tmp_path / "w.pth"
    torch.save(checkpoint(prefix), path, _use_new_zipfile_serialization=zipped)
    found = load_network(path).state_dict()
    assert all(torch.equal(found[k], v) for k, v in NETWORK.state_dict().items())


REFUSED = {
    "LFS": (LFS, "is a Git LFS pointer to 99 bytes"),
    "a page": (b"<!doctype html><title>404</title>", "is a web page .'404'."),
    "empty": (b"", "is empty"),
    "text": (b"hello", "is no file of weights but text"),
    "a pickle": (pickle.dumps({"a": 1}), "cannot be read as weights"),
    "bytes": (bytes(range(256)) * 9, "cannot be read as weights"),
    "bare": (NETWORK.state_dict(), "holds no model_dict, depth and wf"),
    "a list": ([1, 2], "holds one list, no weights by name"),
    "the module": (NETWORK, r"more than tensors and plain Python \(extract.*HoverFast\)"),
    "a path": (checkpoint(args=Path("/x")), r"more than tensors .*pathlib"),
    "no size": (checkpoint(depth=None), "depth None and wf 2 are no sizes"),
    "size as text": (checkpoint(wf="two"), "depth 2 and wf 'two' are no sizes"),
    "another size": (checkpoint(depth=3), "does not fit HoverFast's network"),
    "another dict": ({"state_dict": {}}, "holds no model_dict, depth and wf"),
    "another block": (checkpoint(conv_block="unet"), "conv_block is 'unet'.*--hoverfast-command"),
    "no numbers": (checkpoint(scale=float("nan")), "hold.? weights that are no numbers .NaN"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, case):
    content, message = REFUSED[case]
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        with pytest.raises(ValueError, match=message) as error:
            load_network(path)
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_checkpoint_that_was_cut_is_told(tmp_path, ending):
    path = tmp_path / f"w{ending}"
    save_checkpoint(NETWORK, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(ValueError, match="cut short at 9,000 bytes"):
        load_network(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "a Git LFS pointer"),
        (b"<html>", "a web page"),
        (b"", "is empty"),
        (b"PK\x03\x04cut", "a zip archive cut short"),
        (b"\x08\x07\x12\x07pytorch" + bytes(99), "is no TorchScript model, but a file of an"),
        (NETWORK.state_dict(), "is no TorchScript model, but a zip archive"),
    ],
)
def test_what_is_no_scripted_model_is_called_what_it_is(tmp_path, content, message):
    path = tmp_path / "m.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        ScriptedSegmenter(path, TorchScript("x", 0.5))
