"""Compute against quality (paper, Fig. 2): what an embedding costs, and how well it is probed.

Products are counted by torch's own counter on the meta device, where weights take no memory, so
that giants cost nothing. The paper's "FLOPs" are multiply-adds of layers: its 295.9 G of
H-optimus-0 leaves out the products of tokens with tokens inside attention, 8.4 G more. Here `GMAC`
is the whole, `GMAC of layers` what compares with the paper.
"""

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluate.report.figures import label, save_figure, save_table
from evaluate.results import rank, read_facts, read_rows
from evaluate.tables.table import PAPER_SPLIT
from shards.json_file import read_json
from shards.schema import VIEW_PX
from shards.write import write_text

if TYPE_CHECKING:
    from torch import nn

SECONDS = 2.0  # that an encoder's speed is measured for
FAMILIES = {  # as in the paper's figure, and its colour
    "cells": "#0072b2",
    "tiles": "#d55e00",
    "natural images": "#009e73",
    "untrained": "#8a949e",
}


@dataclass(frozen=True)
class Cost:
    """What one image costs, its resampling not counted."""

    family: str  # of FAMILIES
    input_px: int
    parameters: int
    macs: int  # multiply-adds in all matrix products and convolutions
    attention: int  # of those, products of tokens with tokens


def count(module: "nn.Module", px: int) -> tuple[int, int]:
    """Count a forward pass of one image.

    Args:
        module: on any device, the meta device too.
        px: side of its input.

    Returns:
        Multiply-adds in all, and those of them inside attention.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, 3, px, px, device=next(module.parameters()).device)
    # The counter sees matrix products, not what a fused attention does inside.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module.eval()(x)
    found = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
    inside = sum(flops for op, flops in found.items() if "bmm" in op)
    return counter.get_total_flops() // 2, inside // 2


def cost_of(manifest: dict) -> Cost | None:
    """Count what an encoder costs by its manifest alone, without its weights.

    Returns:
        None for what is no network, such as handcrafted measures.

    Raises:
        ValueError: a network that cannot be built by what its manifest says.
    """
    built = _build(manifest)
    if built is None:
        return None
    module, px, family = built
    macs, attention = (n * manifest.get("views", 1) for n in count(module, px))
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(family, px, parameters, macs, attention)


def _build(manifest: dict) -> tuple | None:
    """Return a module, the side of its input and its family."""
    import timm
    import torch

    from evaluate.networks import tile, volta
    from train.encoder import build_encoder

    kind, config = manifest.get("kind", ""), manifest.get("config", {})
    if kind in tile.TILES:
        own = "natural images" if kind.startswith("dinov2") else "tiles"
        own = "cells" if kind.startswith("dinobloom") else own
        return tile.build(kind), tile.INPUT_PX, own
    with torch.device("meta"):
        if kind == "volta":
            return volta.PreActResNet18(), volta.INPUT_PX, "cells"
        if "timm" in config:
            px = config.get("input_px") or config["resize_px"]
            module = timm.create_model(
                config["timm"]["name"], num_classes=0, **_settings(config["timm"])
            )
            return module, px, "cells" if kind in ("run", "lemon") else "natural images"
    if "architecture" in manifest:
        px, own = config["input_px"], "cells" if kind == "cells" else "untrained"
        return build_encoder(manifest["architecture"], input_px=px), px, own
    if config:
        raise ValueError(f"{manifest.get('name')}: a network of kind {kind!r} is not known here")
    return None


def _settings(described: dict) -> dict:
    return {k: v for k, v in described.get("args", {}).items() if k != "num_classes"}


def measure_speed(encoder, px: int = 40, seconds: float = SECONDS) -> dict:
    """Measure how many images a second an encoder embeds, after a batch to warm up.

    Args:
        encoder: of evaluate/encoders.py.
        px: side of the crops.
        seconds: to measure for, at least two batches.

    Returns:
        images_per_s, and on what: device, threads, precision, batch.
    """
    import torch

    batch = getattr(encoder, "batch", 64)
    crops = np.random.default_rng(0).integers(0, 256, (batch, px, px, 3)).astype(np.uint8)
    encoder.embed(crops)
    done, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or done < 2:
        encoder.embed(crops)
        done += 1
    device = getattr(encoder, "device", torch.device("cpu"))
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine() + " CPU"
    return {
        "images_per_s": round(done * batch / spent, 1),
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": getattr(encoder, "precision", "fp32"),
        "batch": batch,
    }


def read_speeds(out: Path) -> dict[str, dict]:
    """Return what `measure_speed` gave, by encoder, of this and of earlier commands.

    Raises:
        ValueError: the file is no JSON.
    """
    path = Path(out) / "speed.json"
    return read_json(path, "move it away") if path.is_file() else {}


def mean_scores(out: Path) -> dict[str, tuple[list[str], dict[str, float]]]:
    """Return, for each metric of PAPER_SPLIT, the benchmarks and the mean over them by encoder.

    A mean is only comparable on the same benchmarks: those that every encoder was probed on.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in read_rows(out):
        if PAPER_SPLIT.get(row["metric"]) == row["split"]:
            key = (row["metric"], row["encoder"], row["benchmark"])
            values.setdefault(key, []).append(row["value"])
    found = {}
    for metric in PAPER_SPLIT:
        encoders = sorted({key[1] for key in values if key[0] == metric}, key=rank)
        shared = [
            benchmark
            for benchmark in sorted({key[2] for key in values if key[0] == metric})
            if all((metric, encoder, benchmark) in values for encoder in encoders)
        ]
        if shared:
            means = {e: [np.mean(values[metric, e, b]) for b in shared] for e in encoders}
            found[metric] = (shared, {e: float(np.mean(m)) for e, m in means.items()})
    return found


def compare_compute(out: Path, words: list[str], also: list[str], **options: Any) -> Path:
    """Count, measure and draw; return the path of the table.

    Args:
        words: encoders whose speed is measured, as on the command line; their weights are read.
        also: kinds of evaluate/networks/tile.py, and of what train/ trains, to count without scores
            and weights.

    Raises:
        ValueError: nothing was probed or asked for, or an unknown kind.
    """
    from evaluate.encoders import open_encoders
    from evaluate.networks import tile
    from train.encoder import ENCODERS

    if unknown := sorted(set(also) - {*tile.TILES, *ENCODERS}):
        raise ValueError(f"--also {unknown[0]}: there are {', '.join([*ENCODERS, *tile.TILES])}")
    ours = {"kind": "cells", "config": {"input_px": VIEW_PX}}
    manifests = {
        name: {"name": name}
        | (ours | {"architecture": name} if name in ENCODERS else {"kind": name})
        for name in also
    }
    for encoders in read_facts(out)["encoders"].values():
        manifests |= encoders
    speeds = read_speeds(out)
    for encoder in open_encoders(words, **options):
        manifests[encoder.name] = encoder.manifest()
        speeds[encoder.name] = measure_speed(encoder)
        write_text(Path(out) / "speed.json", json.dumps(speeds, indent=1) + "\n")
    if not manifests:
        raise ValueError(f"{out} holds no probe, and no --encoder or --also is given")
    costs = {name: cost_of(manifests[name]) for name in sorted(manifests, key=rank)}
    scores = mean_scores(out)
    _draw(out, costs, scores)
    return _tabulate(out, costs, scores, speeds)


def _tabulate(out: Path, costs: dict, scores: dict, speeds: dict) -> Path:
    header = ["encoder", "family", "input px", "parameters, M", "GMAC", "GMAC of layers"]
    header += ["images/s", *(f"mean {metric}" for metric in scores)]
    rows = []
    for name, cost in costs.items():
        counted = ["handcrafted", "", "", "", ""]
        if cost:
            counted = [cost.family, cost.input_px, f"{cost.parameters / 1e6:.1f}"]
            counted += [f"{cost.macs / 1e9:.3f}", f"{(cost.macs - cost.attention) / 1e9:.3f}"]
        values = [f"{s[name]:.3f}" if name in s else "" for _, s in scores.values()]
        speed = speeds.get(name, {})
        rows.append([name, *counted, f"{speed['images_per_s']:,.0f}" if speed else "", *values])
    where = sorted({
        f"{s['device']}, {s['threads']} threads, {s['precision']}"
        for name, s in speeds.items() if name in costs
    })  # fmt: skip
    caption = (
        "Counted on the meta device for one image, its resampling left out. GMAC: all "
        "multiply-adds; of layers: without the products inside attention, as the paper counts."
    )
    caption += f" Images/s measured on {'; '.join(where)}." if where else ""
    best = {header[-1 - i]: "max" for i in range(len(scores))}
    facts = {"section": "Compute", "title": "What an embedding costs", "command": "compute"}
    return save_table(out, "compute", header, rows, caption=caption, best=best, **facts)


def _draw(out: Path, costs: dict[str, Cost | None], scores: dict) -> None:
    """Draw mean score over multiply-adds, a panel per metric, if anything was probed."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator

    if not any(costs.get(name) for _, values in scores.values() for name in values):
        return
    figure = Figure(figsize=(6.4 * len(scores), 4.6), layout="constrained")
    panels = figure.subplots(1, len(scores), squeeze=False)[0]
    for axes, (metric, (benchmarks, values)) in zip(panels, scores.items(), strict=True):
        for name, value in values.items():
            cost = costs.get(name)
            if cost is None:
                axes.axhline(value, color="#8a949e", lw=1, ls=(0, (4, 3)), zorder=1)
                at = (1, value)
                axes.annotate(label(name), at, (-3, 3), xycoords=("axes fraction", "data"), size=9,
                              textcoords="offset points", ha="right", color="#5d6975")  # fmt: skip
                continue
            size = 30 + 14 * np.sqrt(cost.parameters / 1e6)  # area by width, so that giants fit
            axes.scatter(cost.macs / 1e9, value, s=size, c=FAMILIES[cost.family], alpha=0.85,
                         lw=0, zorder=2)  # fmt: skip
            beside = (np.sqrt(size) / 2 + 3, 0)
            axes.annotate(label(name), (cost.macs / 1e9, value), beside, size=10,
                          textcoords="offset points", va="center")  # fmt: skip
        for name, cost in costs.items():  # counted without a score: where it would lie
            if cost and name not in values:
                axes.axvline(cost.macs / 1e9, color="#c3cad1", lw=1, zorder=0)
                axes.annotate(label(name), (cost.macs / 1e9, 0.02), (-3, 0), size=8, rotation=90,
                              xycoords=("data", "axes fraction"), textcoords="offset points",
                              ha="right", color="#8a949e")  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.margins(x=0.25, y=0.18)
        axes.set_xlabel("multiply-adds for one image, G")
        axes.set_ylabel(f"mean {metric}")
        axes.set_title(label(", ".join(benchmarks), 80), size=10, color="#5d6975")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    scored = {name for _, values in scores.values() for name in values}
    present = {cost.family for name, cost in costs.items() if cost and name in scored}
    handles = [
        Line2D([], [], ls="", marker="o", color=colour, label=family)
        for family, colour in FAMILIES.items()
        if family in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    _, values = next(iter(scores.values()))
    networks = {name: cost for name, cost in costs.items() if cost and name in values}
    best = max(networks, key=lambda name: values[name])
    metric = next(iter(scores))
    headline = (
        f"Of {len(networks)} networks {best} has the highest mean {metric}, {values[best]:.3f}, "
        f"at {networks[best].macs / 1e9:.3g} G multiply-adds an image."
    )
    save_figure(
        out, "compute", figure, section="Compute", title="Compute against quality",
        caption="Mean score over the benchmarks named above each panel, against what one image "
        "costs (log scale); area grows with the number of parameters; dashed: handcrafted; "
        "thin: counted, not probed (paper, Fig. 2).",
        headline=headline, command="compute",
    )  # fmt: skip
