"""The training loop: batches in; steps, checkpoints and an encoder out."""

import logging
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from shards.read import Shards
from train import augment, run, schedule
from train.batches import Batch, Batches, loader
from train.config import Config
from train.distributed import World, any_rank
from train.encoder import build_encoder
from train.moco import MoCo
from train.policy import POLICIES, Policy
from train.record import Record

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)  # not USR1: it kills torchrun

log = logging.getLogger(__name__)


def train(config: Config, world: World, overwrite: bool = False) -> bool:
    """Train, from the newest checkpoint if there is one.

    Args:
        config: settings of the run.
        world: this process.
        overwrite: start anew.

    Returns:
        True when the run is finished, False when a signal stopped it.

    Raises:
        FileNotFoundError: no shards.
        ValueError: the settings do not fit the data, the ranks, or the run to be resumed.
        Diverged: the loss is infinite or no number.
    """
    shards = Shards(config.data)
    if config.batch % world.size or config.batch < 2 * world.size:
        raise ValueError(
            f"--batch {config.batch} is for all ranks together: it must be a multiple of the "
            f"{world.size} ranks and give each at least 2 images"
        )
    run.prepare(config, world, overwrite)
    model = build_model(config).to(world.device)
    if world.device.type == "cpu":  # there the fused attention's backward is slow at 26 tokens
        for block in [*model.encoder.blocks, *model.teacher_encoder.blocks]:
            block.attn.fused_attn = False
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.0,  # set at every step
        weight_decay=config.weight_decay,
        fused=True,
    )
    start = run.resume(Path(config.out), model, optimizer)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)  # no buffers to sync

    part = config.batch // world.size
    rows = range(world.rank * part, (world.rank + 1) * part)  # of the global batch
    policy = POLICIES[config.policy]
    batches = Batches(shards, policy, config.seed, config.batch, rows)
    steps = range(start, config.steps)
    mean, std = (
        torch.tensor(shards.info[k], device=world.device).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    log.info(_summary(config, world, shards, model))
    progress = tqdm(
        total=config.steps,
        initial=start,
        desc="train",
        unit="step",
        disable=True if world.rank else None,
    )
    record = Record(Path(config.out), start, config.batch, world.rank)
    with progress, closing(record), _stop_signals() as stop:
        loaded = record.timed(loader(batches, steps, world, config.workers))
        for step, batch in zip(steps, loaded, strict=True):
            lr = schedule.learning_rate(step, config.steps, config.warmup_steps, config.peak_lr)
            momentum = schedule.momentum(step, config.steps, config.momentum)
            for group in optimizer.param_groups:
                group["lr"] = lr
            views = (make_views(batch, policy, world.device) - mean) / std
            with torch.autocast(
                world.device.type, torch.bfloat16, enabled=config.precision == "bf16"
            ):
                result = ddp(views, momentum)
            optimizer.zero_grad(set_to_none=True)
            result["loss"].backward()
            optimizer.step()

            done = step + 1
            progress.update()
            stopping = any_rank(bool(stop))
            saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
            if saving or done % config.log_every == 0:
                epoch = done / config.steps_per_epoch
                line = record.write(done, result, epoch=epoch, lr=lr, momentum=momentum)
                progress.set_postfix(loss=f"{line['loss']:.3f}")
            if saving and world.rank == 0:
                run.save(config, shards.info, done, model, optimizer)
            if stopping:
                log.info(
                    "stopped by signal %s after step %d; the same command continues", stop, done
                )
                return done == config.steps
    return True


def build_model(config: Config) -> MoCo:
    """Build the networks; their weights are a function of the seed alone."""
    encoder = build_encoder(config.encoder, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MoCo(encoder, config.temperature, config.hidden, config.projection)


def make_views(batch: Batch, policy: Policy, device: torch.device) -> Tensor:
    """Return the views of a batch, (2 * N, 3, 40, 40) float32 in [0, 1]: first, then second."""
    crops, draws = batch
    crops = crops.to(device, non_blocking=True)  # (N, 3, 60, 60) uint8
    return torch.cat([augment.apply(crops, d, policy) for d in draws])


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect the names of signals that ask for a stop, instead of dying of them."""
    caught: list[str] = []
    before = {
        s: signal.signal(s, lambda number, _: caught.append(signal.Signals(number).name))
        for s in STOP_SIGNALS
    }
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _summary(config: Config, world: World, shards: Shards, model: MoCo) -> str:
    """Say what is about to be trained on what."""
    millions = sum(p.numel() for p in model.encoder.parameters()) / 1e6
    return (
        f"{config.encoder} ({millions:.1f} M parameters), {config.policy}, {config.precision}, on "
        f"{len(shards)} cells of {shards.info['slides']} slides; {config.steps} steps of "
        f"{config.batch} images ({config.steps * config.batch / len(shards):.1f} passes), "
        f"{world.size} ranks on {world.device.type}, {config.batch - 1} negatives a query"
    )
