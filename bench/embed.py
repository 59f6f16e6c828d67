"""python bench/embed.py [--quick] [--encoder runs/first] [--threads 1]

Crops to embeddings, ViT-S/8 at 40 px: ours (`--precision bf16 --compile`: bf16 autocast, frozen and
compiled, batches of 64) and the plain way (eager fp32, batches of 256), alternating in one process
on real nuclei, after one unmeasured turn each; CPU seconds of the process, wall seconds on a GPU.
Ours without --compile is measured beside them. Last line: the ratio, and the least cosine between
the two embeddings of a nucleus.
"""

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch

from bench.alternate import last_line
from bench.flags import bench_parser
from evaluate.benchmarks.find import find_benchmark
from evaluate.network import Network


def module_of(path: str | None) -> tuple[torch.nn.Module, dict]:
    """Return a run's encoder, or a ViT-S/8 as it is initialised."""
    from evaluate.networks.run import open_run, open_untrained
    from train.encoder import build_encoder

    if path:
        return open_run(Path(path))[:2]
    return build_encoder("vit_s8", 40), open_untrained(None, 0)[1]


def main() -> None:
    """Alternate, and print ratios."""
    parser = bench_parser(
        "embed", __doc__, "fewer repeats or less data", "--benchmark", "--encoder", "--threads"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    crops = find_benchmark(options.benchmark).crops[: 256 if options.quick else 1024]

    def network(batch: int | None, precision: str, compiled: bool) -> Network:
        module, config = module_of(options.encoder)
        return Network("bench", module, config, {}, batch, precision, compiled)

    ways = {
        "plain": network(256, "fp32", False),
        "ours": network(None, "bf16", True),
        "ours, not compiled": network(None, "bf16", False),
    }
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    embeddings = {}
    for turn in range(3 if options.quick else 6):
        for name, way in ways.items():
            began = clock()
            embeddings[name] = way.embed(crops)
            if turn:  # the first warms up, and compiles
                speeds[name].append(len(crops) / (clock() - began))
    unit = {
        name: found / np.linalg.norm(found, axis=1, keepdims=True)
        for name, found in embeddings.items()
    }
    plain = speeds.pop("plain")
    for name in reversed(list(speeds)):
        cosine = (unit[name] * unit["plain"]).sum(1).min()
        print(
            last_line(name.replace("ours", "embed"), speeds[name], plain, "images/s"),
            f"on {options.threads} threads, cosine >= {cosine:.6f}",
        )


if __name__ == "__main__":
    main()
