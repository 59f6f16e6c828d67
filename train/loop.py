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
from train import augment, run
from train.batches import Batch, Batches, loader
from train.checkpoint import Saver
from train.config import Config
from train.dino import DINO, Step
from train.distributed import World, any_rank
from train.flops import matmul_peak
from train.health import Guard, Watch, health
from train.knn import Knn
from train.method import method_of
from train.moco import MoCo
from train.policy import Policy, policy_for
from train.record import Record
from train.twopass import two_pass

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
    policy = policy_for(config.policy, shards.info)
    knn = Knn(Path(config.probe), VIEW_PX) if config.probe and world.rank == 0 else None
    run.prepare(config, shards.info, world, overwrite)
    method = method_of(config)
    model = method.build().to(world.device)
    # Both rates are the method's to set at every step.
    optimizer = torch.optim.AdamW(
        method.groups(model), lr=0.0, weight_decay=config.weight_decay, fused=True
    )
    start = run.resume(out, model, optimizer)
    if start and world.rank == 0:
        run.catch_up(config, shards.info, start, model, method.travels)
    tune(model, config, world.device)
    step_once = stepper(model, config, world.device)

    part = config.batch // world.size
    rows = range(world.rank * part, (world.rank + 1) * part)  # of the global batch
    local_policy = method.local_policy(policy)
    batches = Batches(
        shards,
        policy,
        config.seed,
        config.batch,
        rows,
        config.skip_corrupt,
        local_policy,
        method.views,
    )
    steps = range(start, config.steps)
    mean, std = (
        torch.tensor(shards.info[k], device=world.device).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    log.info(summary(config, world, shards, model))
    cost, peak = method.flops(model), matmul_peak(world.device, config.precision) * world.size
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
            values = method.schedule(step, optimizer)
            views, local = make_all_views(batch, policy, local_policy, world.device, mean, std)
            optimizer.zero_grad(set_to_none=True)
            result = step_once(views, method.argument(step, rows, values, local))
            guard.note(step, result["loss"])
            method.clip(model)
            optimizer.step()
            method.finish(model, values)

            done, skipped = step + 1, skipped + batch[2]
            progress.update()
            stopping, failed = any_rank(bool(stop), bool(saver.error or record.error))
            if failed:  # rank 0 raises it as it closes them
                return False
            saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
            if saving or done % config.log_every == 0:
                embedding = result.pop("embedding")
                scalars = result | health(embedding)
                if config.skip_corrupt:  # the mean over ranks, times the ranks: all of them
                    scalars["skipped"] = torch.tensor(skipped * world.size, device=world.device)
                epoch = done / config.steps_per_epoch
                line = record.write(done, scalars, epoch=epoch, **values)
                progress.set_postfix(loss=f"{line['loss']:.3f}")
                guard.check(line["loss"])
                if done > method.settled:
                    watch.look(done, line)
            if saving and world.rank == 0:
                run.save(saver, config, shards.info, done, model, method.travels, optimizer)
            if stopping:
                log.info(
                    "stopped by signal %s after step %d; the same command continues", stop, done
                )
                return done == config.steps
            if knn and (done % config.probe_every == 0 or done == config.steps):
                travels = model.encoder if method.travels == "student" else model.teacher_encoder
                record.add("probe", knn.score(travels, mean, std), done)
    return True


def tune(model: MoCo | DINO, config: Config, device: torch.device) -> None:
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
    if config.compile and config.method == "moco":
        for encoder in encoders:
            encoder.compile()
    elif config.compile:  # stochastic depth takes the blocks apart
        for block in (block for encoder in encoders for block in encoder.blocks):
            block.attn.compile()
            block.mlp.compile()


def stepper(
    model: MoCo | DINO, config: Config, device: torch.device
) -> Callable[[Tensor, float | Step], dict[str, Tensor]]:
    """Return what does a step's forward and backward pass, gradients averaged over the ranks."""
    autocast = partial(
        torch.autocast, device.type, torch.bfloat16, enabled=config.precision == "bf16"
    )
    if config.two_pass:
        return partial(two_pass, model, chunk=config.two_pass, autocast=autocast)
    # Buffers, DINO's centres, are the same on all ranks.
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)

    def plain(views: Tensor, argument: float | Step) -> dict[str, Tensor]:
        with autocast():
            result = ddp(views, argument)
        result["loss"].backward()
        return result

    return plain


def build_model(config: Config) -> MoCo | DINO:
    """Build the networks; their weights are a function of the seed alone."""
    return method_of(config).build()


def make_views(
    batch: Batch, policy: Policy, device: torch.device, mean: Tensor, std: Tensor
) -> Tensor:
    """Return the normalised views of a batch: first, then second.

    Args:
        batch: crops (N, 3, 60, 60) uint8 and the draws of each view.
        policy: they were drawn for.
        device: to work on.
        mean: (1, 3, 1, 1), of pixels in [0, 1].
        std: likewise.

    Returns:
        (views * N, 3, V, V) float32, V = policy.view_px.
    """
    crops, draws, _ = batch
    crops = crops.to(device, non_blocking=True)
    shape = (len(draws), len(crops), 3, policy.view_px, policy.view_px)
    views = torch.empty(shape, device=device)
    for out, drawn in zip(views, draws, strict=True):
        augment.apply(crops, drawn, policy, out)
    return views.flatten(0, 1).sub_(mean).div_(std)


def make_all_views(
    batch: Batch,
    policy: Policy,
    local_policy: Policy | None,
    device: torch.device,
    mean: Tensor,
    std: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Return the two global views of a batch, and its local crops if there are any."""
    crops, draws, broken = batch
    views = make_views((crops, draws[:2], broken), policy, device, mean, std)
    if local_policy is None:
        return views, None
    return views, make_views((crops, draws[2:], broken), local_policy, device, mean, std)


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


def summary(config: Config, world: World, shards: Shards, model: MoCo | DINO) -> str:
    """Say what is about to be trained on what."""
    what, against = method_of(config).describe(world.size)
    millions = sum(p.numel() for p in model.encoder.parameters()) / 1e6
    return (
        f"{config.method}, {config.encoder} ({millions:.1f} M parameters), {config.policy}, "
        f"{config.precision}, on "
        f"{len(shards)} cells of {shards.info['slides']} slides; {config.steps} steps of "
        f"{config.batch} images ({config.steps * config.batch / len(shards):.1f} passes), "
        f"{world.size} ranks on {world.device.type}; {what}: {against}"
    )
