"""A run's folder: made or recognised, resumed from, saved to."""

import json
import logging
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from shards.json_file import read_json
from shards.write import atomic
from train import checkpoint
from train.config import Config
from train.config_file import FORMAT, check_same
from train.distributed import World
from train.encoder import FORMAT as ENCODER_FORMAT
from train.encoder import read_config, save_encoder
from train.method import Method

log = logging.getLogger(__name__)


def prepare(config: Config, info: dict, world: World, overwrite: bool) -> None:
    """Make the run's folder, or check that it is this run's; write config.json.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    out = Path(config.out)
    path = out / "config.json"
    if overwrite and world.rank == 0:
        shutil.rmtree(out / "encoder", ignore_errors=True)
        for pattern in (
            "step-*.pt",
            "latest.pt",
            "log.jsonl",
            "config.json",
            "events.out.*",
            "diverged-*.pt",
        ):
            for old in out.glob(pattern):
                old.unlink()
    dist.barrier()
    if path.exists():
        check_same(config, path)
        before = read_json(path, "name another --out").get("dataset")
        if before != _identity(info):
            raise ValueError(
                f"{out} was trained on other shards than {config.data}; name another --out, or "
                "give --overwrite to start anew"
            )
    dist.barrier()  # nobody writes before everybody has looked
    if world.rank > 0:
        return
    out.mkdir(parents=True, exist_ok=True)
    for folder in (out, out / "encoder"):
        for torn in folder.glob("*.tmp"):  # of a run that was killed while it saved
            torn.unlink()
    described = {
        "format": FORMAT,
        "settings": config.settings,
        "dataset": _identity(info),
        "command": " ".join(sys.argv),
        "git": _git_sha(),
        "ranks": world.size,
        "versions": {p: version(p) for p in ("torch", "timm", "numpy")},
    }
    with atomic(path, "w") as file:
        json.dump(described, file, indent=1)


def _identity(info: dict) -> dict:
    """Return what tells one data set from another."""
    return {k: info[k] for k in ("samples", "seed")} | {
        "sha256": [shard["sha256"] for shard in info["shards"][:3]]
    }


def _git_sha() -> str | None:
    """Return the commit of the code, or None outside a clone or without git."""
    git = shutil.which("git")
    if git is None:
        return None
    found = subprocess.run(
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return found.stdout.strip() or None


def resume(out: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint, if any; return the steps done.

    Raises:
        ValueError: it cannot be read.
    """
    found = checkpoint.checkpoints(out)
    if not found:
        return 0
    state = checkpoint.load(found[-1])
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    log.info("resuming from %s", found[-1])
    return state["step"]


def save(
    saver: checkpoint.Saver,
    config: Config,
    info: dict,
    done: int,
    model: Method,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint and the encoder's folder, in the background.

    Args:
        saver: of the run.
        config: of the run.
        info: the data set's dataset.json.
        done: steps done.
        model: of the run.
        optimizer: its state.
    """
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "settings": config.settings,
    }
    saver.save(done, state, partial(publish, config, info, done, model))


def publish(config: Config, info: dict, done: int, model: Method, state: dict) -> None:
    """Write the encoder's folder of a checkpoint.

    Args:
        config: of the run.
        info: the data set's dataset.json.
        done: steps done.
        model: of the run; says the architecture.
        state: of the checkpoint, whose `model` holds the weights.
    """
    prefix = {"student": "encoder.", "teacher": "teacher_encoder."}[model.exported]
    weights = {k.removeprefix(prefix): v for k, v in state["model"].items() if k.startswith(prefix)}
    save_encoder(
        model.encoder,
        Path(config.out) / "encoder",
        info["mean"],
        info["std"],
        info["mpp"],
        weights,
        encoder=config.encoder,
        network=model.exported,
        method=config.method,
        policy=config.policy,
        step=done,
        steps=config.steps,
        images=done * config.batch,
        data={k: info[k] for k in ("samples", "slides", "projects")},
        **({"init": config.init} if config.init else {}),
    )


def catch_up(config: Config, info: dict, done: int, model: Method) -> None:
    """Write the encoder and `latest.pt` of the checkpoint resumed from, if a save got no further.

    A kill or a full disk may have come between, or the encoder is of an earlier format; a finished
    run saves no more.
    """
    try:
        written = read_config(Path(config.out) / "encoder")
    except (FileNotFoundError, ValueError):
        written = {}
    if (written.get("step"), written.get("format")) != (done, ENCODER_FORMAT):
        publish(config, info, done, model, {"model": model.state_dict()})
    checkpoint.point(Path(config.out) / checkpoint.name(done))
