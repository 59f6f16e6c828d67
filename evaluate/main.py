"""Evaluate encoders: embeddings, probe tables, maps of cells, a report.

    python evaluate/main.py probe --encoder pixels morphology untrained runs/first \\
        --benchmark ../shared/data/consep ../shared/data/ami-br --out results/
    python evaluate/main.py probe --encoder runs/*/step-*.pt --benchmark benchmarks/nucls \\
        --out results/ --part $SLURM_ARRAY_TASK_ID --parts $SLURM_ARRAY_TASK_COUNT
    python evaluate/main.py table results/ --paper --out results/
    python evaluate/main.py embed --encoder runs/first --shards shards/ --out results/ \\
        --precision bf16 --compile
    python evaluate/main.py map --encoder runs/first --benchmark my/cells/ --out results/
    python evaluate/main.py map --encoder runs/first --shards shards/ --out results/ --points 20000
    python evaluate/main.py sheet --shards shards/ --out results/
    python evaluate/main.py report results/ --out report.html
    python evaluate/main.py prepare ../shared/data/consep --out benchmarks/consep

An encoder is a run's folder or one of its checkpoints, another's network by name (lemon:DIR, uni,
dinov2-s, resnet50, timm:NAME, …), or a baseline: pixels, morphology, efficientnet-lite0, untrained
(the first run's architecture, else a ViT-Ti/8); NAME=… names any. A benchmark is a prepared folder,
a publisher's, or your own with a cells.csv. README lists both.

Exit status: 0 all done; 1 a computation failed; 2 the command or its input cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import time
from importlib import import_module

from shards.errors import report

COMMANDS = {  # evaluate/commands/<name>.py, and what it does
    "probe": "linear and k-NN probes of frozen embeddings",
    "table": "the paper's Tables 1 and 10-12, of any results",
    "embed": "write embeddings and their manifests",
    "map": "a t-SNE drawn with the cells' images",
    "sheet": "a contact sheet of cells",
    "prepare": "crops and labels in files that open at once",
    "slide": "a slide's nuclei, embedded: AnnData, Parquet, QuPath",
    "batch": "how well slide, site or scanner are told from embeddings",
    "compare": "runs side by side, a column per benchmark (paper, Tables 2 and 6)",
    "molecules": "Moran's I of transcripts on the embedding's neighbours, and their maps",
    "robustness": "embeddings and probe under six other stains",
    "compute": "what encoders cost against how well they are probed (paper, Fig. 2)",
    "composition": "select, mix, train and probe over cells, slides, projects (paper, Fig. 3)",
    "report": "one self-contained HTML file",
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    main = argparse.ArgumentParser(
        prog="evaluate/main.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True)
    for name, purpose in COMMANDS.items():
        import_module(f"evaluate.commands.{name}").arguments(
            commands.add_parser(name, help=purpose, description=purpose)
        )
    return main


def main(argv: list[str]) -> int:
    """Run a command and return the exit status."""
    options = parser().parse_args(argv)
    start = time.perf_counter()
    try:
        import_module(f"evaluate.commands.{options.command}").run(options)
        if hasattr(options, "seed"):  # it wrote to a results folder
            from evaluate.results import record

            record(options.out, argv, time.perf_counter() - start)
    except (ValueError, OSError, RuntimeError) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
