"""Fast: peaks of the card; views, training steps, embedding, segmentation against them."""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from bench.card import official
from bench.card.work import MEAN, Card, batch_of, normal, seconds, settings, wait
from train.batches import Batch, Unreadable, loader
from train.config import Config
from train.distributed import World
from train.encoder import build_encoder
from train.memory import Memory
from train.method import Method
from train.methods import build_model
from train.policy import POLICIES
from train.step import stepper, tune
from train.views import make_views

WORKERS = 8


def peaks(card: Card) -> dict[str, float]:
    """Return the measured peaks: a bf16 product in FLOP/s, a copy in bytes/s (read and written)."""
    side, size = (256, 2**20) if card.tiny else (8192, 2**30)
    a = torch.randn(side, side, device=card.device).bfloat16()
    x, y = (torch.empty(size, dtype=torch.uint8, device=card.device) for _ in range(2))
    return {
        "bf16 product, FLOP/s": 2 * side**3 / seconds(card, lambda: a @ a),
        "copy, bytes/s": 2 * size / seconds(card, lambda: y.copy_(x)),
    }


def views(card: Card) -> dict[str, float]:
    """Return nuclei/s of two views of a1+gray, ours and torchvision's."""
    config = settings(card, batch=4096)
    batch, policies = batch_of(config, build_model(settings(card, encoder="vit_ti8", hidden=32)))
    batch = batch if len(batch.crops) == config.batch else batch_of(config, build_model(config))[0]
    batch = pinned(card, batch)
    normals = normal(card.device)
    took = seconds(card, lambda: make_views(batch, policies, card.device, *normals))
    found = {"ours": len(batch.crops) / took}
    few = batch.crops[: 4 if card.tiny else 64]
    for name, device in (("torchvision v2 here", card.device), ("torchvision v2 CPU", "cpu")):
        run = official.views(POLICIES["a1+gray"])
        found[name] = len(few) / seconds(card, partial(run, few.to(device)), 1)
    return found


def training(card: Card, peak: float, compiled: bool = False, **given: object) -> dict[str, Any]:
    """Return images/s of a training step, ours and the official shape's, and what bounds them.

    Args:
        card: what is asked.
        peak: FLOP/s of its bf16 product.
        compiled: torch.compile the encoders.
        given: settings of the run.
    """
    config = settings(card, compile=compiled, **given)
    if card.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build_model(config).to(card.device)
    steps, parts = Steps(card, config, model), {}
    flops = model.flops()
    took = seconds(card, steps.one)
    found = {"images/s": config.batch / took, "share of peak": flops * config.batch / took / peak}
    for name, times in steps.parts().items():
        parts |= {f"{name}, host ms": times[0], f"{name}, device ms": times[1]}
    if card.device.type == "cuda":
        found["peak memory, GiB"] = torch.cuda.max_memory_allocated() / 2**30
    if not compiled and not card.quick:
        found["predicted memory, GiB"] = Memory(config).peak(config.batch) / 2**30
    try:
        found["data wait, share"] = steps.data_wait()
    except Unreadable as error:  # a container's /dev/shm may be too small for batches
        found["data wait"] = f"not measured: {str(error)[:200]}"
    del steps
    if not compiled:
        for amp in (False, True):
            name = "official shape, AMP" if amp else "official shape, fp32"
            try:
                rate = config.batch / _official(card, config, amp)
                found |= {f"{name}, images/s": rate, f"{name}, ratio": found["images/s"] / rate}
            except torch.OutOfMemoryError:
                found[f"{name}, images/s"] = float("nan")  # does not fit
    return found | parts


def _official(card: Card, config: Config, amp: bool) -> float:
    """Return the seconds of a step of the official shape; views are made before."""
    model = build_model(config).to(card.device)
    batch, policies = batch_of(config, model)
    views = make_views(batch, policies, card.device, *normal(card.device))
    values = model.schedule(1, torch.optim.AdamW(model.parameter_groups()))
    inputs = model.step_inputs(batch.drawn, views, values)
    once = official.step(model, amp)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # torch's default, which moco-v3 leaves
    try:
        return seconds(card, lambda: once(views, inputs), 1)
    finally:
        torch.set_float32_matmul_precision(before)


def pinned(card: Card, batch: Batch) -> Batch:
    """Return a batch in the memory that the loader leaves it in."""
    if card.device.type != "cuda":
        return batch
    return torch.utils.data._utils.pin_memory.pin_memory(batch)


class Steps:
    """The trainer's step on painted batches."""

    def __init__(self, card: Card, config: Config, model: Method):
        self.card, self.config, self.model = card, config, model
        batch, self.policies = batch_of(config, model)
        self.batch = pinned(card, batch)
        self.optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.0, fused=True)
        tune(model, config, card.device)
        self.once, self.normal = stepper(model, config, card.device), normal(card.device)

    def one(self, batch: Batch | None = None, mark: Callable[[], None] = lambda: None) -> dict:
        """Do a step, as train/loop.py does; `mark` is called between its parts."""
        batch = batch or self.batch
        mark()
        values = self.model.schedule(1, self.optimizer)
        views = make_views(batch, self.policies, self.card.device, *self.normal)
        mark()
        self.optimizer.zero_grad(set_to_none=True)
        result = self.once(*self.model.step_inputs(batch.drawn, views, values))
        mark()
        self.model.update(self.optimizer, values)
        mark()
        return result

    def parts(self) -> dict[str, tuple[float, float]]:
        """Return the milliseconds of a step's parts, of the host and of the device."""
        host, events, cuda = [], [], self.card.device.type == "cuda"

        def mark() -> None:
            host.append(time.perf_counter())
            if cuda:
                events.append(torch.cuda.Event(enable_timing=True))
                events[-1].record()

        wait(self.card.device)
        self.one(mark=mark)
        wait(self.card.device)
        spent = [1e3 * (b - a) for a, b in pairwise(host)]
        device = [a.elapsed_time(b) for a, b in pairwise(events)] if cuda else spent
        names = ("views", "forward and backward", "update")
        return dict(zip(names, zip(spent, device, strict=True), strict=True))

    def data_wait(self) -> float:
        """Return the share of the time spent waiting for batches that workers decode and draw."""
        turns = 2 if self.card.tiny else 6 * WORKERS  # of which the workers hold two each ready
        painted, began, waited = Painted(self.config, self.model, self.batch), 0.0, 0.0
        world = World(0, 1, self.card.device)
        batches = loader(painted, range(turns), world, 0 if self.card.tiny else WORKERS)  # pyright: ignore[reportArgumentType]
        for turn in range(turns):
            wait(self.card.device)  # or the host runs ahead, and waits for what nobody needs yet
            if turn == turns // 2:  # what was ready when the workers had started is used up
                began, waited = time.perf_counter(), 0.0
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            self.one(batch)
        wait(self.card.device)
        return waited / (time.perf_counter() - began)


class Painted(Dataset):
    """Batches whose crops are decoded from JPEGs in memory, as a reader of shards does."""

    def __init__(self, config: Config, model: Method, batch: Batch):
        import simplejpeg

        crops = batch.crops[:64].permute(0, 2, 3, 1).contiguous().numpy()
        self.jpegs = [simplejpeg.encode_jpeg(c, 95, colorsubsampling="444") for c in crops]
        self.config, self.draws, self.kinds = (
            config,
            model.draws,
            model.policies(POLICIES[config.policy]),
        )

    def __getitem__(self, step: int) -> Batch:
        import simplejpeg

        from train.augment import draw, join

        c, rows = self.config, range(self.config.batch)
        jpegs = (self.jpegs[i % len(self.jpegs)] for i in rows)
        crops = torch.from_numpy(np.stack([simplejpeg.decode_jpeg(j) for j in jpegs]))
        draws = []
        for kind in dict.fromkeys(self.kinds):
            views = [v for v, policy in enumerate(self.kinds) if policy == kind]
            draws.append(join([draw(kind, v, c.seed, step, c.batch, rows) for v in views]))
        drawn = self.draws(step, rows) if self.draws else None
        return Batch(crops.permute(0, 3, 1, 2), draws, 0, drawn)


def embedding(card: Card) -> dict[str, float]:
    """Return images/s of ViT-S/8's embeddings of uint8 crops, in bf16."""
    count = 16 if card.tiny else 8192
    encoder = build_encoder("vit_ti8" if card.tiny else "vit_s8").eval().to(card.device)
    images = torch.randint(0, 256, (count, 3, 40, 40), dtype=torch.uint8).to(card.device)
    mean, std = normal(card.device)

    @torch.inference_mode()
    def embed() -> None:
        with torch.autocast(card.device.type, torch.bfloat16):
            encoder((images.float() / 255 - mean) / std)

    return {"images/s": count / seconds(card, embed)}


def segmentation(card: Card) -> dict[str, float]:
    """Return megapixels/s of the segmentation network on one image, with random weights."""
    from extract.network.architecture import HoverFast
    from extract.network.inference import Predictor

    side = 64 if card.tiny else 1024
    predictor = Predictor(HoverFast(), str(card.device))
    image = np.full((side, side, 3), [round(255 * m) for m in MEAN], np.uint8)
    return {"MP/s": side * side / 1e6 / seconds(card, lambda: predictor(image))}
