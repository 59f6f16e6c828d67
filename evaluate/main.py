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

import logging
import time

from evaluate.commands.flags import say_encoder
from shards.command_line import command_of, read_command
from shards.errors import report
from shards.progress import say_next

PURPOSES = {
    "probe": "linear and k-NN probes of frozen embeddings",
    "fit": "a classifier of nuclei to keep",
    "apply": "a classifier on all cells of a folder: classes, counts, pictures",
    "table": "the paper's Tables 1 and 10-12, of any results",
    "embed": "write embeddings and their manifests",
    "map": "a t-SNE drawn with the cells' images",
    "sheet": "a contact sheet of cells",
    "prepare": "crops and labels in files that open at once",
    "slide": "a slide's nuclei, embedded: AnnData, SpatialData, Parquet, QuPath",
    "similar": "the cells of a cohort most like given ones: a contact sheet, a table",
    "outliers": "the cells of a cohort least like any other: a contact sheet, a table",
    "batch": "batch effects: slide, site or scanner predicted from embeddings",
    "compare": "runs side by side, a column per benchmark (paper, Tables 2 and 6)",
    "molecules": "Moran's I of transcripts on the embedding's neighbours, and their maps",
    "robustness": "embeddings and probe under six other stains",
    "compute": "what encoders cost against how well they are probed (paper, Fig. 2)",
    "composition": "select, mix, train and probe over cells, slides, projects (paper, Fig. 3)",
    "report": "one self-contained HTML file",
    "push": "an encoder and its model card, on the Hugging Face hub",
}
# Their command lines are not recorded in a results folder, for the report to print.
UNRECORDED = ("fit", "prepare", "slide", "compare", "report", "push")
COMMANDS = {name: command_of(f"evaluate.commands.{name}", what) for name, what in PURPOSES.items()}


def main(words: list[str]) -> int:
    """Run a command and return the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("openTSNE").setLevel(logging.WARNING)  # which method it takes
    try:
        name, options = read_command("evaluate/main.py", __doc__, COMMANDS, words)
        start = time.perf_counter()
        say_encoder(options)
        from evaluate.results import record, running

        with running(words):
            COMMANDS[name].run(options)
        if name not in UNRECORDED and not vars(options).get("check"):
            record(options.out, words, time.perf_counter() - start)
            page = "report.html"
            say_next(["python", "evaluate/main.py", "report", options.out, "--out", page])
    except (ValueError, OSError, RuntimeError) as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
