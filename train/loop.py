"""The training loop: batches in; steps, checkpoints and an encoder out."""

import logging
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from shards.progress import Bar
from shards.read import Shards
from shards.schema import VIEW_PX
from train import run
from train.batches import Batches, loader
from train.checkpoint import Saver, checkpoints
from train.config import Config
from train.distributed import World, any_rank
from train.flops import matmul_peak
from train.health import Health
from train.knn import Knn
from train.method import Method
from train.methods import build_model
from train.policy import adjusted, policy_for
from train.record import Record
from train.start import start_from
from train.step import stepper, tune
from train.views import make_views

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
        FileNotFoundError: no shards, no benchmark to probe, or no encoder to start from.
        ValueError: the settings do not fit the data, the ranks, or the run to be resumed.
        Diverged: the loss is infinite or no number.
        Collapsed: the embeddings have collapsed.
    """
    shards, rows, out = Shards(config.data), rows_of(config, world), Path(config.out)
    policy = adjusted(
        policy_for(config.policy, shards.info), config.second_blur, config.erase_ratio
    )
    probe = Knn(Path(config.probe), VIEW_PX) if config.probe and world.rank == 0 else None
    model = build_model(config)
    if config.init and (overwrite or not checkpoints(out)):  # or a checkpoint has its weights
        start_from(config.init, model)
    run.prepare(config, shards.info, world, overwrite)
    model = model.to(world.device)
    optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.0, fused=True)
    start = run.resume(out, model, optimizer)
    if start and world.rank == 0:
        run.catch_up(config, shards.info, start, model)
    tune(model, config, world.device)
    step_once, policies = stepper(model, config, world.device), model.policies(policy)
    batches = Batches(
        shards, policies, config.seed, config.batch, rows, config.skip_corrupt, model.draws
    )
    log.info(summary(config, world, shards, model))
    peak = matmul_peak(world.device, config.precision) * world.size
    record = Record(out, start, config.batch, world.rank, model.flops(), peak)
    health, skipped = Health(config, world, batches, model.first_checked, model.chance), 0
    saver = Saver(out, config.keep, config.keep_every)
    mean, std = normalisation(shards, world.device)
    bar = progress_bar(config, start, world)

    def judge(line: dict[str, float] | None) -> None:
        if line:
            bar.set_postfix(loss=f"{line['loss']:.3f}")
            health.check(int(line["step"]), line)

    with closing(saver), bar, closing(record), _stop_signals() as stop:
        steps = range(start, config.steps)
        loaded = record.timed(loader(batches, steps, world, config.workers))
        for step, batch in zip(steps, loaded, strict=True):
            values = model.schedule(step, optimizer)
            views = make_views(batch, policies, world.device, mean, std)
            optimizer.zero_grad(set_to_none=True)
            result = step_once(*model.step_inputs(batch.drawn, views, values))
            health.note(step, result["loss"])
            model.update(optimizer, values)

            done, skipped = step + 1, skipped + batch.skipped
            bar.update()
            stopping, failed = any_rank(bool(stop), bool(saver.error or record.error))
            if failed:  # rank 0 raises it as it closes them
                return False
            saving = stopping or done % config.checkpoint_every == 0 or done == config.steps
            judge(record.line())  # noted a step ago: the device has this one to do meanwhile
            if saving or done % config.log_every == 0:
                counts = {"skipped": skipped} if config.skip_corrupt else {}
                epoch = done / config.steps_per_epoch
                record.note(done, result, counts, epoch=epoch, **values)
            if saving:  # nothing is saved that is not sound
                judge(record.line())
            if saving and world.rank == 0:
                run.save(saver, config, shards.info, done, model, optimizer)
            if stopping:
                log.info(
                    "stopped by signal %s after step %d; the same command continues", stop, done
                )
                return done == config.steps
            if probe and (done % config.probe_every == 0 or done == config.steps):
                record.add("probe", probe.score(model.exported_encoder, mean, std), done)
    return True


def rows_of(config: Config, world: World) -> range:
    """Return this rank's places in the global batch.

    Raises:
        ValueError: the batch cannot be shared out.
    """
    if config.batch % world.size or config.batch < 2 * world.size:
        raise ValueError(
            f"--batch {config.batch} is for all ranks together: it must be a multiple of the "
            f"{world.size} ranks and give each at least 2 images"
        )
    share = config.batch // world.size
    return range(world.rank * share, (world.rank + 1) * share)


def normalisation(shards: Shards, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and sd of the data set's pixels in [0, 1], (1, 3, 1, 1) each."""
    mean, std = (
        torch.tensor(shards.info[k], device=device).view(1, 3, 1, 1) for k in ("mean", "std")
    )
    return mean, std


def progress_bar(config: Config, start: int, world: World) -> Bar:
    """Return a bar of the steps, of rank 0."""
    return Bar(None, "train", "steps", total=config.steps, done=start, shown=world.rank == 0)


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


def summary(config: Config, world: World, shards: Shards, model: Method) -> str:
    """Say what is about to be trained on what."""
    what, against = model.compared_with(world.size)
    millions = sum(p.numel() for p in model.encoder.parameters()) / 1e6
    return (
        f"{config.method}, {config.encoder} ({millions:.1f} M parameters), {config.policy}, "
        f"{config.precision}, on "
        f"{len(shards)} cells of {shards.info['slides']} slides; {config.steps} steps of "
        f"{config.batch} images ({config.steps * config.batch / len(shards):.1f} passes), "
        f"{world.size} ranks on {world.device.type}; {what}: {against}"
    )
