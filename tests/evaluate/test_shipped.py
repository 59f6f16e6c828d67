"""Every encoder that comes with the clone: its files, its hash, its card, one score."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluate import main
from evaluate.encoders import open_encoders
from train.encoder import build_encoder, load_encoder, read_config, save_encoder, weight_files
from train.export import LARGEST, score
from train.shipped import DEFAULT, FOLDER, shipped_names

FOLDERS = [FOLDER / name for name in shipped_names()]
CARD = "MODEL_CARD.md"


def check(folder: Path) -> None:
    """Fail where a folder is not what a shipped encoder has to be."""
    config, (weights,) = read_config(folder), weight_files(folder)
    assert folder.name.startswith("lemon-"), "its name"
    assert weights.stat().st_size <= LARGEST + 100_000, "its size"  # and a header
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert config["sha256"] == found, "its hash"
    card = (folder / CARD).read_text()
    assert found in card, "the hash in its card"
    assert config["knn"]["benchmark"] and 0 < config["knn"]["score"] < 1, "its score"
    (encoder,) = open_encoders([str(folder)])
    embedded = encoder.embed(np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), np.uint8))
    assert embedded.std() > 0, "its embeddings"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_encoder_is_whole(folder):
    check(folder)


def test_the_default_is_among_those_that_there_are():
    assert not FOLDERS or DEFAULT in shipped_names()


@pytest.fixture(scope="session")
def prepared(data, tmp_path_factory):
    """Prepare a benchmark of the real data by its name, once."""
    done: dict[str, Path] = {}

    def prepare(name: str) -> Path:
        if not (data / name).is_dir():
            pytest.skip(f"no {name} in {data}")
        if name not in done:
            done[name] = tmp_path_factory.mktemp("prepared") / name
            assert main.main(["prepare", str(data / name), "--out", str(done[name])]) == 0
        return done[name]

    return prepare


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_score_of_a_shipped_encoder_is_found_again(folder, prepared):
    model, config = load_encoder(folder)
    said = config["knn"]
    found = score(model, config, prepared(said["benchmark"]))
    assert found["cells"] == said["cells"]
    assert found["score"] == pytest.approx(said["score"], abs=0.01)  # processors round otherwise


def test_a_shipped_encoder_that_was_changed_is_seen(tmp_path):
    folder = tmp_path / "lemon-x"
    facts = {"knn": {"benchmark": "consep", "cells": 9, "score": 0.5}}
    save_encoder(build_encoder("resnet18s"), tmp_path / "whole", [0.5] * 3, [0.2] * 3, 0.25)
    with pytest.raises(AssertionError, match="its name"):
        check(tmp_path / "whole")
    model = build_encoder("resnet18s")
    state = {k: v.half() if v.ndim > 1 else v for k, v in model.state_dict().items()}
    save_encoder(model, folder, [0.5] * 3, [0.2] * 3, 0.25, state, **facts)
    own = json.loads((folder / "config.json").read_text())["lemon"]
    (folder / CARD).write_text(f"sha256 `{own['sha256']}`")
    check(folder)
    other = Path(shutil.copytree(folder, tmp_path / "other/lemon-x"))
    (other / CARD).write_text("no hash")
    with pytest.raises(AssertionError, match="the hash in its card"):
        check(other)
    damaged = bytearray((folder / "model.safetensors").read_bytes())
    damaged[-1] ^= 1
    (folder / "model.safetensors").write_bytes(damaged)
    with pytest.raises(AssertionError, match="its hash"):
        check(folder)
