"""A step on a GPU: no waiting, few launches, true float32; by fake tensors, without a GPU."""

import json

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data._utils.pin_memory import pin_memory

from shards.read import Shards
from tests.train.fake_gpu import CUDA, Launches, Made, Waited, fake_gpu, tensors_of, to_gpu
from train import augment, constants
from train.batches import Batch, Batches
from train.checkpoint import Saver, load
from train.config import Config, configure
from train.health import Guard
from train.host_copy import HostCopy
from train.methods import build_model
from train.policy import policy_for
from train.record import Record
from train.step import stepper, tune
from train.views import make_views

pytestmark = pytest.mark.usefixtures("alone")

WAITED = (Waited, DataDependentOutputException, DynamicOutputShapeException)
SMALL = {"data": "d", "out": "o", "encoder": "vit_ti8", "batch": 8, "hidden": 32}
DINO = {"bottleneck": 16, "prototypes": 24, "precision": "fp32"}
RECIPES = {
    "moco": {"method": "moco", "projection": 16, "precision": "fp32"},
    "stains": {"method": "moco", "projection": 16, "precision": "fp32", "policy": "a1+gmm10"},
    "dinov2": {"method": "dinov2", **DINO},
    "centre, batch": {
        "method": "dinov2", "targets": "centre", "koleo_over": "batch", "ibot_head": "separate",
        **DINO,
    },
    "kde": {"method": "dinov2-no-local-kde", "drop_path": 0.0, **DINO},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_fake_constants():
    """What is kept for a device that was fake is forgotten."""
    yield
    for kept in (constants.constant, augment._view_grid, augment._bands):
        kept.cache_clear()


def batch_of(config: Config, shards: Shards) -> tuple[Batch, list, torch.nn.Module]:
    """Return a batch as the loader makes it, its policies and the model."""
    model = build_model(config)
    for encoder in (model.encoder, model.teacher_encoder):
        encoder.blocks = encoder.blocks[:2]
    policies = model.policies(policy_for(config.policy, shards.info))
    rows = range(config.batch)
    return Batches(shards, policies, 0, config.batch, rows, False, model.draws)[0], policies, model


def step(config: Config, shards: Shards) -> Launches:
    """Do views, forward pass and update on a fake GPU; what they launch is returned by part.

    Autograd's engine asks for a true device, so the backward pass, which is torch's own but for
    sums over ranks, is left out.
    """
    batch, policies, model = batch_of(config, shards)
    launches = Launches({t.data_ptr() for t in tensors_of(batch)})
    with fake_gpu():
        to_gpu(model)
        optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.0, fused=True)
        values = model.schedule(0, optimizer)
        mean = std = torch.empty(1, 3, 1, 1, device=CUDA)
        first = torch.full((), -1, device=CUDA)
        views = make_views(batch, policies, CUDA, mean, std)  # constants are put there once
        guard = Guard.__new__(Guard)
        guard._first = first
        with Made(), launches:
            views = make_views(batch, policies, CUDA, mean, std)
            launches.views, launches.counts = launches.counts.total(), type(launches.counts)()
            result = model(*model.step_inputs(batch.drawn, views, values))
            guard.note(0, result["loss"])
            model.update(optimizer, values)
    return launches


@pytest.fixture(scope="module")
def shards(shards_folder) -> Shards:
    return Shards(shards_folder)


# View by view the same counts were 438 and 47 for MoCo's two views, 2737 and 293 with eight local
# crops, and the copies blocked.
@pytest.mark.parametrize(
    ("name", "views", "copies"),
    [("moco", 320, 4), ("stains", 360, 4), ("dinov2", 640, 12), ("centre, batch", 640, 12),
     ("kde", 320, 7)],
)  # fmt: skip
def test_a_step_waits_for_no_gpu_and_launches_little(name, views, copies, shards):
    launches = step(configure(**SMALL | RECIPES[name]), shards)
    assert 100 < launches.views <= views
    assert launches.copied == copies
    assert launches.counts["_fused_adamw_"] >= 1


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x + torch.ones(3).to(CUDA, non_blocking=True),  # not pinned
        lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=CUDA),
        lambda x: torch.linalg.svdvals(x[None]),
        lambda x: x.index_put_((torch.zeros(1, dtype=torch.long, device=CUDA),), torch.tensor(2.0)),
    ],
)
def test_what_waits_is_seen(wait):
    with fake_gpu():
        x = torch.zeros(3, device=CUDA)
        with pytest.raises(WAITED), Made(), Launches(set()):
            wait(x)


def test_the_loader_pins_all_that_a_step_takes(shards, monkeypatch):
    batch, _, _ = batch_of(configure(**SMALL | RECIPES["dinov2"]), shards)
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t, *_: (pinned.append(t), t)[1])
    again = pin_memory(batch)
    assert isinstance(again, Batch) and isinstance(again.draws[0], augment.Draws)
    assert len(pinned) == len(list(tensors_of(batch))) == 12
    assert again.draws[0].counts == batch.draws[0].counts


def test_views_are_made_in_true_float32(shards):
    batch, policies, _ = batch_of(configure(**SMALL | RECIPES["moco"]), shards)
    found = set()

    class Precision(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket.__name__ in ("mm", "bmm"):
                found.add(torch.get_float32_matmul_precision())
            return function(*args, **kwargs or {})

    flat = torch.ones(1, 3, 1, 1)
    torch.set_float32_matmul_precision("high")
    try:
        with Precision():
            make_views(batch, policies, torch.device("cpu"), flat, flat)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == {"highest"}


def test_views_made_together_are_those_made_apart(shards):
    batch, policies, _ = batch_of(configure(**SMALL | RECIPES["dinov2"]), shards)
    for number, (first, last) in enumerate(((0, 2), (2, 10))):
        policy, draws = policies[first], batch.draws[number]
        together = augment._apply(batch.crops, draws, policy)  # as on a GPU
        apart = [
            augment.apply(batch.crops, augment.draw(policy, view, 0, 0, 8, range(8)), policy)
            for view in range(first, last)
        ]
        assert torch.allclose(together, torch.cat(apart), atol=1e-6)
        assert torch.equal(augment.apply(batch.crops, draws, policy), torch.cat(apart))


def test_a_copy_is_of_the_moment_and_a_line_waits_for_the_next_step(tmp_path):
    weight = torch.zeros(3)
    copy = HostCopy([weight])
    saver = Saver(tmp_path, keep=1, keep_every=0)
    saver.save(1, {"w": weight, "groups": [{"lr": 0.5}]}, lambda _: None)
    weight += 1
    assert not copy.wait()[0].any()
    saver.close()
    saved = load(tmp_path / "latest.pt")
    assert not saved["w"].any() and saved["groups"] == [{"lr": 0.5}]

    record = Record(tmp_path, 0, 8, 0, 1.0, 1.0)
    assert record.line() is None
    result = {"loss": torch.tensor(2.0), "embedding": torch.randn(8, 4)}
    record.note(1, result, {"skipped": 3}, lr=0.1)
    result["loss"] += 5
    assert not (tmp_path / "log.jsonl").read_text()
    line = record.line()
    assert (line["loss"], line["skipped"], line["lr"], line["step"]) == (2, 3, 0.1, 1)
    assert {"rank", "spread", "cosine"} <= line.keys()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == line
    assert record.line() is None


def test_cuda_graphs_are_for_the_compiled_plain_step(monkeypatch):
    with pytest.raises(ValueError, match=r"--cuda-graphs .*give --compile too"):
        configure(**SMALL, cuda_graphs=True)
    modes, marks = [], []
    for graphs in (False, True):
        config = configure(**SMALL | RECIPES["moco"], compile=True, cuda_graphs=graphs)
        model = build_model(config)
        for encoder in (model.encoder, model.teacher_encoder):
            monkeypatch.setattr(encoder, "compile", lambda mode=None: modes.append(mode))
        tune(model, config, torch.device("cpu"))
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
        stepper(model, config, torch.device("cpu"))(torch.rand(16, 3, 40, 40), 0.9)
        assert len(marks) == graphs
    assert modes == [None, None, "reduce-overhead", "reduce-overhead"]
