"""python bench/step.py [--quick] [--threads 1] [--compile]

A training step of MoCo v3 with ViT-S/8 at 40 px, ours and the plain way, alternating in one
process: images/s. Ours is train/step.py's step (bf16 autocast, both views at once through a
backbone, unfused attention on CPU, fused AdamW, foreach EMA). The plain way has the official
code's shape: fp32, one forward a view and network, default AdamW, an EMA parameter by parameter.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch
from torch import Tensor

from bench.alternate import alternate, last_line
from bench.flags import bench_parser
from train.config import MocoConfig
from train.distributed import World, start, stop
from train.moco import MoCo, contrast
from train.step import stepper, tune


def plain(model: MoCo, config: MocoConfig, world: World) -> Callable[[Tensor], None]:
    """Return a step of the official code's shape."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1
    )
    pairs = [(model.encoder, model.teacher_encoder), (model.projector, model.teacher_projector)]

    def step(views: Tensor) -> None:
        x1, x2 = views.chunk(2)
        q1 = model.predictor(model.projector(model.encoder(x1)))
        q2 = model.predictor(model.projector(model.encoder(x2)))
        with torch.no_grad():
            for student, teacher in pairs:
                for p, t in zip(student.parameters(), teacher.parameters(), strict=True):
                    t.data = t.data * 0.99 + p.data * 0.01
            k1 = model.teacher_projector(model.teacher_encoder(x1))
            k2 = model.teacher_projector(model.teacher_encoder(x2))
        loss = contrast(q1, k2, config.temperature)[0] + contrast(q2, k1, config.temperature)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ours(model: MoCo, config: MocoConfig, world: World) -> Callable[[Tensor], None]:
    """Return the trainer's step."""
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.1, fused=True
    )
    tune(model, config, world.device)
    once = stepper(model, config, world.device)

    def step(views: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        once(views, 0.99)
        optimizer.step()

    return step


def main() -> None:
    """Alternate, and print ratios."""
    parser = bench_parser("step", __doc__, "fewer repeats or less data", "--threads")
    parser.add_argument("--batch", type=int, default=32, help="images")
    parser.add_argument("--compile", action="store_true", help="ours, compiled")
    options = parser.parse_args()
    world = start()
    torch.set_num_threads(options.threads)
    config = MocoConfig(data="", out="", batch=options.batch, compile=options.compile)
    ways = {
        "ours": ours(MoCo.build(config).to(world.device), config, world),
        "plain": plain(MoCo.build(config).to(world.device), config, world),
    }
    views = torch.rand(2 * options.batch, 3, 40, 40, device=world.device)

    def speed(step: Callable[[Tensor], None]) -> float:
        began = time.perf_counter()
        step(views)
        if world.device.type == "cuda":
            torch.cuda.synchronize()
        return options.batch / (time.perf_counter() - began)

    turns = {name: partial(speed, step) for name, step in ways.items()}
    speeds = alternate(turns, 3 if options.quick else 7, warm_up=1)
    stop()
    unit = f"images/s on {options.threads} threads"
    print(last_line("step", speeds["ours"], speeds["plain"], unit))


if __name__ == "__main__":
    main()
