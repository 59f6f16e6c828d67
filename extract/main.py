r"""Find the nuclei of slides and cut them out: slides in, cells out.

    python extract/main.py slides.csv --out cells/
    python extract/main.py /data/slides --out cells/ --workers 8
    python extract/main.py slide.svs --out cells/ --mpp 0.25
    python extract/main.py gdc_manifest.txt --slides-root /data/tcga \
        --sample-sheet gdc_sample_sheet.tsv --out cells/
    python extract/main.py slides.csv --out cells/ --part $SLURM_ARRAY_TASK_ID \
        --parts $SLURM_ARRAY_TASK_COUNT
    python extract/main.py slides.csv --out cells/ --segmenter import --from segmentations/
    python extract/main.py slides.csv --out cells/ --segmenter hoverfast \
        --hoverfast-command "apptainer exec --nv hoverfast.sif HoverFast" --hoverfast-model M.pth
    python extract/main.py status cells/ slides.csv     # what became of each; what to resubmit
    python extract/main.py sheet cells/ --out sheets/   # a page to look at

A rerun continues: what is done is passed over, what failed is tried again. Exit code 0: all done
(slides skipped with a reason are done); 1: some failed (listed); 2: the input cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import argparse
import logging
from collections import Counter
from pathlib import Path

from extract.cohort import extract_cohort
from extract.ledger import Settings
from extract.segment.flags import add_flags, read_flags
from extract.segment.matching import with_files
from extract.slides import Entry, list_slides
from shards.errors import report
from shards.progress import say_next
from shards.scale import check_mpp
from shards.schema import CODECS

SEGMENTERS = (
    "rays",
    "hoverfast",
    "torchscript",
    "import",
)  # keys of extract.job.SEGMENTERS, whose import takes a second
CURE_FLAG = "it is not the objective's power: 40X is --mpp 0.25"


def main() -> int:
    """Run the command line and return its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    commands = {"status": status, "sheet": sheet, "train-segmenter": train_segmenter}
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        return commands[name](sys.argv[2:]) if name in commands else extract(sys.argv[1:])
    except (OSError, ValueError) as error:
        return report(error)


def extract(words: list[str]) -> int:
    """Run the plain command, which extracts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_slides(parser)
    parser.add_argument("--out", type=Path, required=True, help="the cells folder")
    parser.add_argument("--segmenter", choices=SEGMENTERS, default="hoverfast")
    parser.add_argument("--any-scale", action="store_true", help="take slides that are not 40X")
    parser.add_argument("--cells-per-slide", type=int, help="keep so many, drawn at random")
    parser.add_argument("--codec", choices=CODECS, default="jpeg", help="of the crops")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--part", type=int, default=0, help="which part of the list, from 0")
    parser.add_argument("--parts", type=int, default=1, help="into how many the list is cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="extract finished slides anew")
    add_flags(parser)
    arguments = parser.parse_args(words)
    if not 0 <= arguments.part < arguments.parts:
        parser.error(f"--part {arguments.part} of --parts {arguments.parts}: count from 0")
    if arguments.workers < 1:
        parser.error(f"--workers {arguments.workers}: at least 1 is needed")
    if arguments.cells_per_slide is not None and arguments.cells_per_slide < 1:
        parser.error(f"--cells-per-slide {arguments.cells_per_slide}: at least 1")
    settings = Settings(
        segmenter=arguments.segmenter,
        codec=arguments.codec,
        seed=arguments.seed,
        cells_per_slide=arguments.cells_per_slide,
        any_scale=arguments.any_scale,
        **read_flags(arguments, parser),
    )
    entries = with_files(listed(arguments, parser), settings.masks, settings.imported)
    entries = entries[arguments.part :: arguments.parts]
    records = extract_cohort(
        entries, arguments.out, settings, arguments.workers, arguments.overwrite
    )
    return summarise(records, arguments.out)


def add_slides(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """Add the flags that say which slides."""
    parser.add_argument(
        "slides",
        type=Path,
        nargs=None if needed else "?",
        help="folder, CSV (path[,slide_id,project,mpp,case]), GDC manifest or slide",
    )
    parser.add_argument("--slides-root", type=Path, help="where gdc-client put a manifest's files")
    parser.add_argument("--sample-sheet", type=Path, help="of the GDC: gives project and case")
    parser.add_argument(
        "--frozen", action="store_true", help="take TS, BS and MS slides of folders and manifests"
    )
    parser.add_argument("--verify-md5", action="store_true", help="of manifests; reads every byte")
    parser.add_argument("--mpp", type=float, help="µm/px of slides for which the CSV gives none")


def listed(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Entry]:
    """List the slides that the flags of `add_slides` name."""
    if arguments.mpp is not None:
        check_mpp(arguments.mpp, f"with --mpp {arguments.mpp:g} slides", CURE_FLAG)
    return list_slides(
        arguments.slides,
        arguments.mpp,
        arguments.slides_root,
        arguments.sample_sheet,
        arguments.frozen,
        arguments.verify_md5,
    )


def summarise(records: list[dict], out: Path) -> int:
    """Print what became of the slides; return the exit code."""
    outcomes = {"done": [], "skipped": [], "failed": []}
    for record in records:
        outcomes[record["outcome"]].append(record)
    for outcome in ("skipped", "failed"):
        for record in outcomes[outcome]:
            print(f"{outcome}: {record['slide']}: {record['reason']}")
    done = outcomes["done"]
    empty = [record for record in done if not record["fates"]["kept"]]
    for record in empty:
        print(f"no cells: {record['slide']}: {record['reason'] or 'no nucleus was kept'}")
    fates: dict[str, int] = {}
    for record in done:
        for fate, count in record["fates"].items():
            fates[fate] = fates.get(fate, 0) + count
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    passed_over, where = Counter(), 0
    for record in done:
        left_out = record.get("segmentation", {}).get("left_out", {})
        passed_over.update(left_out)
        where += bool(left_out)
    if passed_over:
        said = ", ".join(f"{count} {reason}" for reason, count in passed_over.items())
        print(f"passed over in the segmentations of {where} slides: {said}")
    marked = [r["segmentation"]["marked"] for r in done if "marked" in r.get("segmentation", {})]
    if marked:
        slide, tissue = ([shares[of] for shares in marked] for of in ("slide", "tissue"))
        print(
            f"masks mark {min(slide):.0%} to {max(slide):.0%} of a slide, {min(tissue):.0%} to "
            f"{max(tissue):.0%} of its tissue, {sorted(tissue)[len(tissue) // 2]:.0%} at the median"
        )
    print(
        f"{out}: {len(done)} slides done, {len(outcomes['skipped'])} skipped, "
        f"{len(outcomes['failed'])} failed; {sum(fates.values())} nuclei detected"
        + (f" = {counts}" if counts else "")
        + (f"; {len(empty)} of the slides done have no cells" if empty else "")
    )
    if outcomes["failed"]:
        print("once the causes are removed, the same command tries the failed ones again")
    elif sum(fates.values()):
        say_next(
            ["python", "extract/main.py", "sheet", out, "--out", f"{out}-sheet"],
            ["python", "shards/main.py", "mix", out, "--out", "shards/"],
        )
    return 1 if outcomes["failed"] else 0


def status(words: list[str]) -> int:
    """Say what became of every slide; return 1 if any is to be submitted again."""
    from extract.status import AGAIN, describe, survey, write_status

    parser = argparse.ArgumentParser(
        prog="main.py status",
        description="Check the cells of every slide against its record, print a table, and write "
        "slides.parquet, slides.csv and resubmit.csv. Exit code 1: some are to be resubmitted.",
    )
    parser.add_argument("cells", type=Path, help="folder that extract wrote")
    add_slides(parser, needed=False)
    parser.add_argument("--out", type=Path, help="folder of the tables [<cells>-status]")
    parser.add_argument("--digests", action="store_true", help="read the tars whole: SHA-256")
    arguments = parser.parse_args(words)
    out = arguments.out or arguments.cells.with_name(f"{arguments.cells.resolve().name}-status")
    entries = listed(arguments, parser) if arguments.slides else None
    rows = survey(arguments.cells, entries, arguments.digests)
    write_status(rows, out)
    print(describe(rows))
    print(f"tables: {out}/slides.parquet, {out}/slides.csv")
    counts = Counter(row["outcome"] for row in rows)
    again = sum(counts[outcome] for outcome in AGAIN)
    if entries is None:
        print("slides that left no record are not known here: name the list of slides as well")
    if again:
        print(f"to resubmit: python extract/main.py {out}/resubmit.csv --out {arguments.cells}")
    if counts["broken"]:
        print("broken ones are done anew with --overwrite")
    return 1 if again else 0


def train_segmenter(words: list[str]) -> int:
    """Train the network segmenter."""
    from extract.network.command import train_segmenter

    return train_segmenter(words)


def sheet(words: list[str]) -> int:
    """Write the page to look at."""
    from extract.contact_sheet import write_sheet

    parser = argparse.ArgumentParser(
        prog="main.py sheet",
        description="Write one HTML page that shows what was extracted: nuclei on each slide, "
        "outlines at full resolution, crops kept and dropped, counts.",
    )
    parser.add_argument("cells", type=Path, help="folder that extract wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    parser.add_argument("--slides", type=int, default=40, help="show so many, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    if arguments.slides < 1:
        parser.error(f"--slides {arguments.slides}: at least 1")
    print(write_sheet(arguments.cells, arguments.out, arguments.slides, arguments.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
