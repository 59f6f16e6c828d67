"""The training loop: batches in; steps, checkpoints and an encoder out."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from shards.read import Shards
from shards.schema import VIEW_PX
from train import augment, run, schedule
from train.batches import Batch, Batches, loader
from train.checkpoint import Saver
from train.config import Config
from train.distributed import World, any_rank
from train.encoder import build_encoder
from train.flops import matmul_peak, training_flops
from train.guard import Guard
from train.knn import Knn
from train.moco import MoCo
from train.policy import Policy, policy_for
from train.record import Record
from train.twopass import two_pass
from train.watch import Watch, health

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
        FileNotFoundError: no shards, or no benchmark to probe.
        ValueError: the settings do not fit the data, the ranks, or the run to be resumed.
        Diverged: the loss is infinite or no number.
        Collapsed: the embeddings have collapsed.
    """
    shards, out = Shards(config.data), Path(config.out)
    if config.batch % world.size or config.batch < 2 * world.size:
        raise ValueError(
            f"--batch {config.batch} is for all ranks together: it must be a multiple of the "
            f"{world.size} ranks and give each at least 2 images"
        )
    knn = Knn(Path(config.probe), VIEW_PX) if config.probe and world.rank == 0 else None
    run.prepare(config, shards.info, world, overwrite)
    model = build_model(config).to(world.device)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.0,  # set at every step
        weight_decay=config.weight_decay,
        fused=True,
    )
    start = run.resume(out, model, optimizer)
    tune(model, config, world.device)
    step_once = stepper(model, config, world.device)

    part = config.batch // world.size
    rows = range(world.rank * part, (world.rank + 1) * part)  # of the global batch
    policy = policy_for(config.policy, shards.info)
    batches = Batches(shards, policy, config.seed, config.batch, rows, config.skip_corrupt)
    steps = range(start, config.steps)
    mean, std = (
        torch.tensor(shards.info[k], device=world.device).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    log.info(summary(config, world, shards, model))
    cost, peak = step_flops(model), matmul_peak(world.device, config.precision) * world.size
    record = Record(out, start, config.batch, world.rank, cost, peak)
    guard, watch, skipped = Guard(config, world, batches), Watch(), 0
    saver = Saver(out, config.keep, config.keep_every)
    progress = tqdm(
        total=config.steps,
        initial=start,
        desc="train",
        unit="step",
        disable=True if world.rank else None,
    )
    with closing(saver), progress, closing(record), _stop_signals() as stop:
        loaded = record.timed(loader(batches, steps, world, config.workers))
        for step, batch in zip(steps, loaded, strict=True):
            lr = schedule.learning_rate(step, config.steps, config.warmup_steps, config.peak_lr)
            momentum = schedule.momentum(step, config.steps, config.momentum)
            for group in optimizer.param_groups:
                group["lr"] = lr
            views = make_views(batch, policy, world.device, mean, std)
            optimizer.zero_grad(set_to_none=True)
            result = step_once(views, momentum)
            guard.note(step, result["loss"])
            optimizer.step()

            done, skipped = step + 1, skipped + batch[2]
            progress.update()
            stopping = any_rank(bool(stop))
            saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
            if saving or done % config.log_every == 0:
                scalars = {k: result[k] for k in ("loss", "accuracy")} | health(result["embedding"])
                if config.skip_corrupt:  # the mean over ranks, times the ranks: all of them
                    scalars["skipped"] = torch.tensor(skipped * world.size, device=world.device)
                epoch = done / config.steps_per_epoch
                line = record.write(done, scalars, epoch=epoch, lr=lr, momentum=momentum)
                progress.set_postfix(loss=f"{line['loss']:.3f}")
                guard.check(line["loss"])
                if done > config.warmup_steps:
                    watch.look(done, line)
            if saving and world.rank == 0:
                run.save(saver, config, shards.info, done, model, optimizer)
            if stopping:
                log.info(
                    "stopped by signal %s after step %d; the same command continues", stop, done
                )
                return done == config.steps
            if knn and (done % config.probe_every == 0 or done == config.steps):
                record.add("probe", knn.score(model.encoder, mean, std), done)
    return True


def tune(model: MoCo, config: Config, device: torch.device) -> None:
    """Set what changes speed and memory, not results."""
    encoders = (model.encoder, model.teacher_encoder)
    if device.type == "cpu":  # there the fused attention's backward is slow at 26 tokens
        for encoder in encoders:
            for block in encoder.blocks:
                block.attn.fused_attn = False
    elif config.precision == "bf16":
        torch.set_float32_matmul_precision("high")  # TF32 where autocast leaves fp32
    if config.activation_checkpointing:
        model.encoder.set_grad_checkpointing(True)
    if config.compile:
        for encoder in encoders:
            encoder.compile()


def stepper(
    model: MoCo, config: Config, device: torch.device
) -> Callable[[Tensor, float], dict[str, Tensor]]:
    """Return what does a step's forward and backward pass, gradients averaged over the ranks."""
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=config.precision == "bf16"
    )
    if config.two_pass:
        return partial(two_pass, model, chunk=config.two_pass, autocast=autocast)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)  # no buffers to sync

    def plain(views: Tensor, momentum: float) -> dict[str, Tensor]:
        with autocast():
            result = ddp(views, momentum)
        result["loss"].backward()
        return result

    return plain


def step_flops(model: MoCo) -> int:
    """Return the floating-point operations of a step for one image of its batch."""
    heads = (*model.projector.parameters(), *model.predictor.parameters())
    weights = sum(p.numel() for p in heads if p.ndim == 2)
    return training_flops(model.teacher_encoder, VIEW_PX, weights)


def build_model(config: Config) -> MoCo:
    """Build the networks; their weights are a function of the seed alone."""
    encoder = build_encoder(config.encoder, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return MoCo(encoder, config.temperature, config.hidden, config.projection)


def make_views(
    batch: Batch, policy: Policy, device: torch.device, mean: Tensor, std: Tensor
) -> Tensor:
    """Return the normalised views of a batch: first, then second.

    Args:
        batch: crops (N, 3, 60, 60) uint8 and both views' draws.
        policy: they were drawn for.
        device: to work on.
        mean: (1, 3, 1, 1), of pixels in [0, 1].
        std: likewise.

    Returns:
        (2 * N, 3, 40, 40) float32.
    """
    crops, draws, _ = batch
    crops = crops.to(device, non_blocking=True)
    views = torch.empty((2, len(crops), 3, VIEW_PX, VIEW_PX), device=device)
    for out, drawn in zip(views, draws, strict=True):
        augment.apply(crops, drawn, policy, out)
    return views.flatten(0, 1).sub_(mean).div_(std)


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


def summary(config: Config, world: World, shards: Shards, model: MoCo) -> str:
    """Say what is about to be trained on what."""
    millions = sum(p.numel() for p in model.encoder.parameters()) / 1e6
    return (
        f"{config.encoder} ({millions:.1f} M parameters), {config.policy}, {config.precision}, on "
        f"{len(shards)} cells of {shards.info['slides']} slides; {config.steps} steps of "
        f"{config.batch} images ({config.steps * config.batch / len(shards):.1f} passes), "
        f"{world.size} ranks on {world.device.type}, {config.batch - 1} negatives a query"
    )
