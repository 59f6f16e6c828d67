"""python bench/gpu.py [--quick] [--out gpu.json] [--minutes 4.5]

A GPU: right, fast, smooth. Needs no data: it paints its crops. Prints a table and writes JSON; a
part that fails says why, and the others go on. Ours are train/'s own steps; beside them the shape
of the official codes (a forward a view and network, fp32 or AMP, an EMA parameter by parameter;
views by torchvision v2). Exit code 1: something is wrong or failed.

    python bench/gpu.py --cpu                      all of it in tiny sizes, to see that it runs
    python bench/gpu.py --hoverfast "python -m hoverfast.main" --hoverfast-model M.pth
    python bench/gpu.py --train 10 --shards shards/ --out results/    trains ViT-S/8 for 10 minutes
"""

import json
import math
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from bench.card import fast
from bench.card.longrun import long_run
from bench.card.right import right
from bench.card.slide import Program, slide
from bench.card.smooth import smooth
from bench.card.work import Card
from bench.flags import bench_parser
from train.distributed import start, stop

COMPILING = 1.5  # minutes that the compiler may take
DINO = ("dinov2-no-local-kde", "dinov2-no-local", "dinov2")


def parts(card: Card, peak: float, program: Program | None = None) -> dict[str, Callable[[], dict]]:
    """Return what is measured, by name, what matters most first."""
    step = partial(fast.training, card, peak)
    named: dict[str, Callable[[], dict]] = {
        "right": partial(right, card),
        "smooth": partial(smooth, card),
        "views": partial(fast.views, card),
        "moco vit_s8 4096": partial(step, method="moco", batch=4096),
        "moco vit_s8 512": partial(step, method="moco", batch=512),
    }
    for method in DINO:
        named[f"{method} vit_s8 512"] = partial(step, method=method, batch=512)
    named["embedding vit_s8"] = partial(fast.embedding, card)
    named["segmentation"] = partial(fast.segmentation, card)
    named["slide"] = partial(slide, card, program)
    if card.quick or card.tiny:
        return named
    named["moco vit_s8 4096 compiled"] = partial(step, True, method="moco", batch=4096)
    named["moco vit_s8 512 CUDA graphs"] = partial(
        step, True, method="moco", batch=512, cuda_graphs=True
    )
    for batch in (512, 4096):
        more: dict[str, Any] = {"method": "moco", "encoder": "vit_b8", "batch": batch}
        named[f"moco vit_b8 {batch}"] = partial(step, **more)
    for method in DINO:
        named[f"{method} vit_b8 512"] = partial(step, method=method, encoder="vit_b8", batch=512)
        named[f"{method} vit_s8 512 compiled"] = partial(step, True, method=method, batch=512)
    return named


def attempt(work: Callable[[], dict]) -> dict:
    """Return what a part found, or why it failed."""
    began = time.perf_counter()
    try:
        found = work()
    except Exception as error:  # whatever it is, the other parts are still worth their time
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        found = {"failed": f"{type(error).__name__}: {str(error)[:300]} ({where})"}
    return found | {"took, s": round(time.perf_counter() - began, 1)}


def measure(card: Card, minutes: float, program: Program | None = None) -> dict[str, Any]:
    """Ask the card everything that fits into the time."""
    cuda, began = card.device.type == "cuda", time.perf_counter()
    report: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if cuda else "none: not measured",
        "torch": torch.__version__,
        "peaks": attempt(partial(fast.peaks, card)),
    }
    show("peaks", report["peaks"])
    peak = report["peaks"].get("bf16 product, FLOP/s", math.nan)
    for name, work in parts(card, peak, program).items():
        spent = (time.perf_counter() - began) / 60
        if spent + (COMPILING if "compiled" in name or "graphs" in name else 0) > minutes:
            report[name] = {"left out": f"{minutes:g} minutes were over"}
        else:
            report[name] = attempt(work)
        show(name, report[name])
    return report


def show(name: str, found: dict) -> None:
    """Print a part's rows of the table."""
    if name == "right" and "failed" not in found:
        rows = {k: v for k, v in found.items() if isinstance(v, dict)}
        wrong = {k: v for k, v in rows.items() if not v["right"]}
        found = {"compared": len(rows), "wrong": len(wrong)} | {
            k: f"differs by {v['difference']:.2g}, more than {v['tolerance']:.2g}"
            for k, v in wrong.items()
        }
    for key, value in found.items():
        text = f"{value:,.4g}" if isinstance(value, float) and value < 1000 else value
        text = f"{value:,.0f}" if isinstance(value, float) and value >= 1000 else text
        print(f"{name:32} {key:36} {text}", flush=True)


def sound(report: dict[str, Any]) -> bool:
    """Tell whether nothing failed, differs or waits."""
    entries = [v for v in report.values() if isinstance(v, dict)]
    compared = [v["right"] for v in report.get("right", {}).values() if isinstance(v, dict)]
    waits = [v for v in report.get("smooth", {}).values() if isinstance(v, list)]
    return all(compared) and not waits and not any("failed" in e for e in entries)


def main(arguments: list[str] | None = None) -> int:
    """Measure, or train."""
    parser = bench_parser("gpu", __doc__, "fewer parts and turns")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU: no figures")
    parser.add_argument("--minutes", type=float, default=4.5, help="after which no part begins")
    parser.add_argument(
        "--out", type=Path, help="JSON, gpu.json by default; of --train a folder, gpu-run"
    )
    parser.add_argument("--train", type=float, metavar="MINUTES", help="train ViT-S/8 on --shards")
    parser.add_argument("--shards", type=Path, help="of --train")
    parser.add_argument("--batch", type=int, default=1024, help="of --train")
    parser.add_argument("--hoverfast", help="how the real HoverFast is started, to be measured too")
    parser.add_argument("--hoverfast-model", metavar="M.pth", help="its checkpoint")
    options = parser.parse_args(arguments)
    if options.train and not options.shards:
        parser.error("--train needs --shards")
    if bool(options.hoverfast) != bool(options.hoverfast_model):
        parser.error("--hoverfast and --hoverfast-model go together")
    program = None
    if options.hoverfast:
        program = Program(options.hoverfast, options.hoverfast_model)
    options.out = options.out or Path("gpu-run" if options.train else "gpu.json")
    if not (options.cpu or torch.cuda.is_available()):
        parser.error("no CUDA device here; --cpu shows that all runs")
    world = start()
    device = torch.device("cpu") if options.cpu else world.device
    card = Card(device, tiny=options.cpu, quick=options.quick)
    try:
        if options.train:
            report = long_run(card, options.train, options.shards, options.out, options.batch)
            show("train", report)
            (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
            return 1 if "stopped by" in report else 0
        report = measure(card, options.minutes, program)
    finally:
        stop()
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"gpu: {report['card']}, written to {options.out}")
    return 0 if sound(report) else 1


if __name__ == "__main__":
    sys.exit(main())
