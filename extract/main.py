r"""Find the nuclei of slides and cut them out: slides in, cells out.

    python extract/main.py slides.csv --out cells/
    python extract/main.py /data/slides --out cells/ --workers 8
    python extract/main.py slide.svs --out cells/ --mpp 0.25
    python extract/main.py slides.csv --out cells/ --part $SLURM_ARRAY_TASK_ID \
        --parts $SLURM_ARRAY_TASK_COUNT

A rerun continues: what is done is passed over, what failed is tried again. Exit code 0: all done
(slides skipped with a reason are done); 1: some failed (listed); 2: the input cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from pathlib import Path

from extract.cohort import extract_cohort
from extract.ledger import Settings
from extract.slides import list_slides
from shards.schema import CODECS

SEGMENTERS = ("rays",)  # keys of extract.job.SEGMENTERS, whose import takes a second


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "slides", type=Path, help="folder, CSV (path[,slide_id,project,mpp]) or slide"
    )
    parser.add_argument("--out", type=Path, required=True, help="the cells folder")
    parser.add_argument("--segmenter", choices=SEGMENTERS, default="rays")
    parser.add_argument("--mpp", type=float, help="µm/px of slides for which the CSV gives none")
    parser.add_argument("--any-scale", action="store_true", help="take slides that are not 40X")
    parser.add_argument("--cells-per-slide", type=int, help="keep so many, drawn at random")
    parser.add_argument("--codec", choices=CODECS, default="jpeg", help="of the crops")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--part", type=int, default=0, help="which part of the list, from 0")
    parser.add_argument("--parts", type=int, default=1, help="into how many the list is cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="extract finished slides anew")
    arguments = parser.parse_args()
    if not 0 <= arguments.part < arguments.parts:
        parser.error(f"--part {arguments.part} of --parts {arguments.parts}: count from 0")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.mpp is not None and arguments.mpp <= 0:
        parser.error(f"--mpp {arguments.mpp}: µm/px, above 0")
    if arguments.cells_per_slide is not None and arguments.cells_per_slide < 1:
        parser.error(f"--cells-per-slide {arguments.cells_per_slide}: at least 1")
    settings = Settings(
        segmenter=arguments.segmenter,
        codec=arguments.codec,
        seed=arguments.seed,
        cells_per_slide=arguments.cells_per_slide,
        any_scale=arguments.any_scale,
    )
    try:
        entries = list_slides(arguments.slides, arguments.mpp)[arguments.part :: arguments.parts]
        records = extract_cohort(
            entries, arguments.out, settings, arguments.workers, arguments.overwrite
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return summarise(records, arguments.out)


def summarise(records: list[dict], out: Path) -> int:
    """Print what became of the slides; return the exit code."""
    outcomes = {"done": [], "skipped": [], "failed": []}
    for record in records:
        outcomes[record["outcome"]].append(record)
    for outcome in ("skipped", "failed"):
        for record in outcomes[outcome]:
            print(f"{outcome}: {record['slide']}: {record['reason']}")
    done = outcomes["done"]
    fates: dict[str, int] = {}
    for record in done:
        for fate, count in record["fates"].items():
            fates[fate] = fates.get(fate, 0) + count
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    print(
        f"{out}: {len(done)} slides done, {len(outcomes['skipped'])} skipped, "
        f"{len(outcomes['failed'])} failed; {sum(fates.values())} nuclei detected"
        + (f" = {counts}" if counts else "")
    )
    return 1 if outcomes["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
