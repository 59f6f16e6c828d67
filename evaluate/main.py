"""Evaluate encoders: embeddings, probe tables, maps of cells, a report.

    python evaluate/main.py probe --encoder pixels morphology untrained runs/first \\
        --benchmark benchmarks/consep benchmarks/ami-br --out results/
    python evaluate/main.py probe --encoder runs/*/step-*.pt --benchmark benchmarks/nucls \\
        --out results/ --part $SLURM_ARRAY_TASK_ID --parts $SLURM_ARRAY_TASK_COUNT
    python evaluate/main.py table results/ --paper --out results/
    python evaluate/main.py embed --encoder runs/first --shards shards/ --out results/ \\
        --precision bf16 --compile
    python evaluate/main.py map --encoder runs/first+tta --benchmark my/cells/ --out results/
    python evaluate/main.py map --encoder runs/first --shards shards/ --out results/ --points 20000
    python evaluate/main.py sheet --shards shards/ --out results/
    python evaluate/main.py report results/ --out report.html
    python evaluate/main.py push runs/first OWNER/NAME --results results/
    python evaluate/main.py prepare MY-DOWNLOADS/consep --out benchmarks/consep

An encoder is a run's folder or one of its checkpoints, one that comes with the clone (lemon-NAME),
another's network by name (lemon:DIR, uni, dinov2-s, hf-hub:OWNER/NAME, …), or a baseline: pixels,
morphology, efficientnet-lite0, untrained (the first run's architecture, else a ViT-Ti/8); NAME=…
names any. Endings make more of one, as in runs/first+mean+tta+morphology: +mean, class token and
mean of patches; +stages, a convolutional network's last three; +tta, the average over eight flips
and rotations; +morphology, the handcrafted measures beside it. A benchmark is a prepared folder, a
publisher's, or your own with a cells.csv. docs/encoders.md and docs/benchmarks.md list both.

Exit status: 0 all done; 1 a computation failed; 2 the command or its input cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import argparse
import logging
import time
from dataclasses import dataclass
from importlib import import_module

from evaluate.commands.flags import Help, say_encoder
from shards.errors import no_command, report
from shards.progress import say_next


@dataclass(frozen=True)
class Command:
    """A command: evaluate/commands/<name>.py holds its flags, and what it runs."""

    purpose: str
    recorded: bool = True  # in the results folder `--out`, for the report to print its command line


COMMANDS = {
    "probe": Command("linear and k-NN probes of frozen embeddings"),
    "fit": Command("a classifier of nuclei to keep", recorded=False),
    "apply": Command("a classifier on all cells of a folder: classes, counts, pictures"),
    "table": Command("the paper's Tables 1 and 10-12, of any results"),
    "embed": Command("write embeddings and their manifests"),
    "map": Command("a t-SNE drawn with the cells' images"),
    "sheet": Command("a contact sheet of cells"),
    "prepare": Command("crops and labels in files that open at once", recorded=False),
    "slide": Command(
        "a slide's nuclei, embedded: AnnData, SpatialData, Parquet, QuPath", recorded=False
    ),
    "similar": Command("the cells of a cohort most like given ones: a contact sheet, a table"),
    "outliers": Command("the cells of a cohort least like any other: a contact sheet, a table"),
    "batch": Command("batch effects: slide, site or scanner predicted from embeddings"),
    "compare": Command(
        "runs side by side, a column per benchmark (paper, Tables 2 and 6)", recorded=False
    ),
    "molecules": Command("Moran's I of transcripts on the embedding's neighbours, and their maps"),
    "robustness": Command("embeddings and probe under six other stains"),
    "compute": Command("what encoders cost against how well they are probed (paper, Fig. 2)"),
    "composition": Command(
        "select, mix, train and probe over cells, slides, projects (paper, Fig. 3)"
    ),
    "report": Command("one self-contained HTML file", recorded=False),
    "push": Command("an encoder and its model card, on the Hugging Face hub", recorded=False),
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    main = argparse.ArgumentParser(
        prog="evaluate/main.py", description=__doc__, formatter_class=Help
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        import_module(f"evaluate.commands.{name}").arguments(
            commands.add_parser(
                name, help=command.purpose, description=command.purpose, formatter_class=Help
            )
        )
    return main


def main(argv: list[str]) -> int:
    """Run a command and return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("openTSNE").setLevel(logging.WARNING)  # which method it takes
    if argv and argv[0] not in COMMANDS and not argv[0].startswith("-"):
        return report(no_command(argv[0], COMMANDS))
    options = parser().parse_args(argv)
    start = time.perf_counter()
    say_encoder(options)
    try:
        import_module(f"evaluate.commands.{options.command}").run(options)
        if COMMANDS[options.command].recorded and not vars(options).get("check"):
            from evaluate.results import record

            record(options.out, argv, time.perf_counter() - start)
            page = "report.html"
            say_next(["python", "evaluate/main.py", "report", options.out, "--out", page])
    except (ValueError, OSError, RuntimeError) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
