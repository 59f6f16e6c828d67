"""A slide from file to tar and table, through extract's own command as a user runs it."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.card.work import Card, seconds

EXTRACT = Path(__file__).resolve().parents[2] / "extract" / "main.py"
SIDE, PAINTED = 8192, 1024  # px of the slide, and of the field that it shows again and again
WHOLE = 3000  # megapixels of a whole slide
NEEDED = ("openslide", "tifffile", "simplejpeg")


@dataclass(frozen=True)
class Program:
    """The real HoverFast.

    Attributes:
        command: how it is started.
        model: its checkpoint, which ours loads too.
    """

    command: str
    model: str


def slide(card: Card, program: Program | None = None) -> dict[str, Any]:
    """Return how long a painted slide of 8192x8192 px takes, and what share the network has in it.

    Args:
        card: to work on; its machine's cores trace outlines and cut crops.
        program: measured on the same slide where it is given, with the same weights.
    """
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        return {"not measured": f"{', '.join(missing)} not installed"}
    from demo.paint import paint, write_slide

    side, field = (512, 256) if card.tiny else (SIDE, PAINTED)
    megapixels = side * side / 1e6
    rgb, nuclei = paint(field, field, seed=0)
    times = side // field
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tiff"
        write_slide(path, np.tile(rgb, (times, times, 1)))
        model = ["--hoverfast-model", program.model] if program else []
        began = time.perf_counter()
        run([sys.executable, EXTRACT, path, "--out", f"{folder}/cells", *model])
        wall = time.perf_counter() - began
        record = json.loads((Path(folder) / "cells/slide.json").read_text())
        took = record["seconds"]
        found: dict[str, Any] = {
            "cores": len(os.sched_getaffinity(0)),
            "painted nuclei": len(nuclei) * times**2,
            "found nuclei": record["detected"],
            "s": took,
            "MP/s": megapixels / took,
            "network alone, share": network_alone(card, rgb) * megapixels / took,
            "a slide of 3 gigapixels, minutes": WHOLE / megapixels * took / 60,
            "with start-up, s": wall,
        }
        if program:
            Path(f"{folder}/theirs").mkdir()
            words = ["infer_wsi", path, "-m", program.model, "-o", f"{folder}/theirs/"]
            began = time.perf_counter()
            run([*shlex.split(program.command), *words])
            theirs = time.perf_counter() - began
            found |= {"real HoverFast, with start-up, s": theirs, "ratio": theirs / wall}
    return found


def network_alone(card: Card, rgb: np.ndarray) -> float:
    """Return the seconds a megapixel of the network on tiles as extract cuts them."""
    from extract.network.inference import Predictor
    from extract.network.segmenter import CORE_PX
    from extract.network.weights import load_network
    from extract.segment.flags import SHIPPED
    from extract.tiles import MARGIN_PX

    side = len(rgb) if card.tiny else CORE_PX + 2 * MARGIN_PX
    times = -(-side // len(rgb))
    tile = np.ascontiguousarray(np.tile(rgb, (times, times, 1))[:side, :side])
    predictor = Predictor(load_network(SHIPPED), card.device)
    core = side if card.tiny else CORE_PX
    return seconds(card, lambda: predictor(tile)) / (core * core / 1e6)


def run(words: Iterable[object]) -> None:
    """Run a command.

    Raises:
        RuntimeError: it failed; its last words.
    """
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"exit code {done.returncode}: {' '.join(said)}")
