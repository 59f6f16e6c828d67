"""Scripted models as segmenters: the contract, scales, and what breaks it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from extract.segment.options import TorchScript
from extract.segment.torchscript import ScriptedSegmenter
from shards.stain import REFERENCE, REFERENCE_MAX, Stain

STAIN = Stain(REFERENCE, REFERENCE_MAX, fallback=True)


class Squares(nn.Module):
    """Label dark pixels by the 40-px square they lie in."""

    def forward(self, x: Tensor) -> Tensor:
        dark = x.mean(1, keepdim=True) < 0.5
        rows = torch.arange(x.shape[2]).div(40, rounding_mode="floor").unsqueeze(1)
        columns = torch.arange(x.shape[3]).div(40, rounding_mode="floor")
        return (dark * (1 + rows * 1000 + columns)).float()


class Narrow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :-1]


class Negative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True).sub(5).round()


def saved(module: nn.Module, path: Path) -> Path:
    torch.jit.script(module).save(str(path))
    return path


def discs() -> np.ndarray:
    image = np.full((320, 400, 3), 230, np.uint8)
    for x, y in ((60, 60), (220, 60), (140, 220)):
        cv2.circle(image, (x, y), 14, (90, 60, 120), -1)
    return image


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
class TestScripted:
    @pytest.mark.parametrize("mpp", [0.25, 0.5, 0.2])
    def test_labels_lie_where_the_nuclei_are(self, tmp_path: Path, mpp: float):
        model = saved(Squares(), tmp_path / "m.pt")
        labels = ScriptedSegmenter(model, TorchScript("", mpp))(discs(), STAIN)
        dark = discs()[..., 0] < 128
        assert labels.shape == (320, 400) and labels.dtype == np.int32
        assert (labels[dark] > 0).mean() > 0.93
        assert not labels[cv2.dilate(dark.astype(np.uint8), np.ones((7, 7))) == 0].any()

    @pytest.mark.parametrize(
        ("module", "says"),
        [(Narrow(), "returns .* for .*labels are needed"), (Negative(), "negative numbers")],
    )
    def test_a_model_of_another_contract_is_named(self, tmp_path: Path, module, says: str):
        segmenter = ScriptedSegmenter(saved(module, tmp_path / "m.pt"), TorchScript("", 0.25))
        with pytest.raises(ValueError, match=says):
            segmenter(discs(), STAIN)

    def test_extract_takes_one(self, tmp_path: Path, run_stage, painted: Path):
        model = saved(Squares(), tmp_path / "m.pt")
        flags = f"--out {tmp_path}/cells --workers 1 --segmenter torchscript --model {model}"
        words = [*flags.split(), "--model-mpp", "0.25"]
        done = run_stage("extract/main.py", painted / "PAINTED-0001.tiff", *words)
        assert done.returncode == 0, done.stderr
        record = json.loads((tmp_path / "cells" / "PAINTED-0001.json").read_text())
        assert record["segmentation"]["version"].startswith("TorchScript, model ")
        assert record["fates"]["kept"] > 20
