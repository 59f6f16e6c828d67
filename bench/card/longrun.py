"""A real run of so many minutes, and its encoder in small float16 files."""

import json
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.card.fast import Steps
from bench.card.work import Card, seconds
from train.config import Config, configure
from train.distributed import World
from train.encoder import OWN
from train.loop import train
from train.methods import build_model

MOST = 15_000_000  # bytes of a file
SAVED = 2.5  # minutes between checkpoints
SHARE = 0.9  # of the minutes that are planned for steps; the rest starts, compiles and saves


def long_run(card: Card, minutes: float, shards: Path, out: Path, batch: int) -> dict[str, Any]:
    """Train MoCo v3 for some minutes and leave `out/encoder` and `out/log.jsonl`.

    Args:
        card: to train on.
        minutes: by the clock, after which it saves and stops at the latest.
        shards: of nuclei.
        out: folder of the results.
        batch: images.
    """
    common = {"data": str(shards), "batch": batch, "epoch_samples": batch}
    common |= {"encoder": "vit_ti8", "hidden": 32, "workers": 0} if card.tiny else {"workers": 12}
    with tempfile.TemporaryDirectory() as folder:
        trial = configure(**common, out=folder, epochs=2, warmup_epochs=0)
        took = seconds(card, Steps(card, trial, build_model(trial).to(card.device)).one)
        steps = max(2, int(SHARE * minutes * 60 / took))
        config = configure(
            **common,
            out=f"{folder}/run",
            epochs=steps,
            warmup_epochs=steps / 8,
            checkpoint_every=max(1, int(60 * SAVED / took)),
        )
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the timer's, while none trains
        stop = threading.Timer(60 * minutes, os.kill, (os.getpid(), signal.SIGTERM))
        stop.start()
        said: dict[str, Any] = {"steps planned": steps}
        try:
            train(config, World(0, 1, card.device))
        except Exception as error:  # whatever it is, what was saved before is worth keeping
            if not (Path(config.out) / "encoder").exists():
                raise
            said["stopped by"] = f"{type(error).__name__}: {error}"
        finally:
            stop.cancel()
            signal.signal(signal.SIGTERM, before)
        return said | leave(config, out)


def leave(config: Config, out: Path) -> dict[str, float]:
    """Copy a run's log, and its encoder as float16 in files of at most MOST bytes."""
    run, there = Path(config.out), out / "encoder"
    there.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "log.jsonl", out)
    shutil.copy(run / "config.json", out)
    about = json.loads((run / "encoder/config.json").read_text())
    about[OWN] |= {"weights": "float16"}
    del about[OWN]["sha256"]  # of the float32 file
    (there / "config.json").write_text(json.dumps(about, indent=1) + "\n")
    files = write_shards(load_file(run / "encoder/model.safetensors"), there)
    last = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    return {"steps": last["step"], "loss": last["loss"], "files": files}


def write_shards(state: dict[str, Tensor], folder: Path, most: int = MOST) -> int:
    """Write tensors as float16 in files of at most so many bytes, and the index of Hugging Face.

    Returns:
        How many files.
    """
    parts: list[dict[str, Tensor]] = [{}]
    room = most - 65536  # of a file's header
    for name, tensor in state.items():
        half = tensor.to(torch.float16).contiguous()
        if sum(t.nbytes for t in parts[-1].values()) + half.nbytes > room and parts[-1]:
            parts.append({})
        parts[-1][name] = half
    where, total = {}, sum(t.nbytes for part in parts for t in part.values())
    for i, part in enumerate(parts, 1):
        name = f"model-{i:05d}-of-{len(parts):05d}.safetensors"
        if len(parts) == 1:
            name = "model.safetensors"
        save_file(part, folder / name)
        where |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    if len(parts) > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    return len(parts)
