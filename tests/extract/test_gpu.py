"""GPUs that slides share, as far as that can be tried without one."""

import numpy as np
import pytest
import torch

from extract.gpu import full_memory, take_turn
from extract.network.inference import Predictor
from extract.network.segmenter import NetworkSegmenter
from extract.segment.flags import SHIPPED
from shards.stain import REFERENCE, REFERENCE_MAX, Stain

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has 80 GiB in all"


def test_slides_take_the_gpus_in_turn(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for number in range(5):
        take_turn(number)
    assert taken == [0, 1, 2, 0, 1]


def test_full_memory_is_said_with_the_cure(monkeypatch):
    segmenter = NetworkSegmenter(SHIPPED)

    def fill(*_):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(Predictor, "__call__", fill)
    stain = Stain(REFERENCE, REFERENCE_MAX, fallback=True)
    with pytest.raises(ValueError, match=r"fewer --workers \(CUDA out of memory\. [^\n]*GiB\.\)$"):
        segmenter(np.zeros((8, 8, 3), np.uint8), stain)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="of another kind"), full_memory():
        raise RuntimeError("of another kind")
