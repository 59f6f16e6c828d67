"""The peak memory of a step, by fake tensors: what is in it, what fits, what is said."""

from types import SimpleNamespace

import pytest
import torch

from train import distributed, loop, main, memory
from train.config import configure
from train.memory import LIBRARIES, Living, Memory

pytestmark = pytest.mark.usefixtures("alone")

SMALL = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 8, "hidden": 32}


def measured(monkeypatch, **settings) -> Memory:
    """Return the memory of a run whose encoder has two blocks."""
    build = memory.build_model

    def shallow(config):
        model = build(config)
        for encoder in (model.encoder, model.teacher_encoder):
            encoder.blocks = encoder.blocks[:2]
        return model

    monkeypatch.setattr(memory, "build_model", shallow)
    return Memory(configure(**SMALL | settings))


def test_living_tensors_are_counted_until_they_die():
    with Living() as living:
        x = torch.zeros(1024)  # 4 KiB
        y = x + 1
        z = y.view(32, 32)  # no memory of its own
        del y
        assert living.now == 8192
        del z
        assert (living.now, living.peak) == (4096, 8192)
        x + 1
    assert living.peak == 8192


def test_the_peak_holds_weights_activations_and_logits(monkeypatch):
    moco = measured(monkeypatch, method="moco", projection=16)
    trained = sum(p.numel() for p in moco._model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in moco._model.parameters())
    state = 4 * (everything + 3 * trained)
    small, large = moco.peak(8), moco.peak(32)
    assert state < small - LIBRARIES < large - LIBRARIES
    # logits of DINO's views over prototypes: at least student's, teacher's, a softmax, a gradient
    few = measured(monkeypatch, method="dinov2-no-local-kde", bottleneck=16, prototypes=64).peak(16)
    many = measured(
        monkeypatch, method="dinov2-no-local-kde", bottleneck=16, prototypes=16384
    ).peak(16)
    assert many - few > 4 * 32 * 16384 * 4


def test_the_peak_holds_the_head_that_predicts_measures(monkeypatch):
    without = measured(monkeypatch, method="moco", projection=16)
    peak = measured(monkeypatch, method="moco", projection=16, measures_weight=4.0).peak(8)
    assert peak - without.peak(8) > 3 * 4 * 76 * without._model.width  # its weights and moments


def test_the_largest_batch_fits_and_a_larger_does_not(monkeypatch):
    found = measured(monkeypatch, method="moco", projection=16)
    card = 2**30
    images = found.largest(card)
    assert found.peak(images) <= memory.ROOM * card < found.peak(round(1.06 * images) + 1)
    assert found.advice(card) == (
        f"the largest batch that fits a card of 1 GiB is {images} images a rank: --batch {images} "
        "for 1 ranks"
    )
    assert "no batch fits" in found.advice(2**20)


def test_a_torch_without_fake_steps_says_so(monkeypatch):
    def refused(*_):
        raise RuntimeError("Input type (c10::BFloat16) and bias type (float) should be the same")

    found = measured(monkeypatch, method="moco", projection=16)
    monkeypatch.setattr(found, "_step", refused)
    with pytest.raises(memory.NotPredicted, match="not predicted by torch"):
        found.peak(8)
    monkeypatch.setattr(Memory, "_step", refused)
    monkeypatch.setattr(memory, "card_bytes", lambda _: 80 * 2**30)
    said = memory.out_of_memory(found.config, torch.device("cpu"))
    assert said.startswith("out of memory on cpu with 8 images a rank. Lower --batch")


def test_out_of_memory_ends_with_the_batch_that_fits(monkeypatch, capsys):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(loop, "train", full)
    monkeypatch.setattr(memory, "card_bytes", lambda _: 80 * 2**30)
    monkeypatch.setattr(Memory, "largest", lambda *_: 512)
    world = distributed.World(0, 1, torch.device("cpu"))
    monkeypatch.setattr(distributed, "start", lambda: world)
    monkeypatch.setattr(distributed, "stop", SimpleNamespace)
    assert main.main(["--data", "d", "--out", "o", "--encoder", "vit_ti8", "--hidden", "32"]) == 1
    said = capsys.readouterr().err
    assert "rank 0: out of memory on cpu with 4096 images a rank: the largest batch" in said
    assert "a card of 80 GiB is 512 images a rank: --batch 512 for 1 ranks. Lower --batch" in said
    assert "--two-pass" in said and "Traceback" not in said
