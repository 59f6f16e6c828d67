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
import shlex
from collections import Counter
from pathlib import Path

from extract.cohort import extract_cohort
from extract.ledger import Settings
from extract.segment.flags import add_flags, read_flags
from extract.segment.matching import with_files
from extract.slides import Entry, list_slides
from extract.summary import summarise
from shards.command_line import Command, add_parts, at_least, check_part, command_of, read_command
from shards.errors import report
from shards.scale import check_mpp
from shards.schema import CODECS

# Keys of extract.job.SEGMENTERS, whose import takes a second.
SEGMENTERS = ("rays", "hoverfast", "torchscript", "import")
log = logging.getLogger(__name__)
CURE_FLAG = "it is not the objective's power: 40X is --mpp 0.25"


def main(words: list[str]) -> int:
    """Run the command line and return its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        name, options = read_command(
            "extract/main.py", __doc__, COMMANDS, words, "extract", paths=True
        )
        return COMMANDS[name].run(options) or 0
    except (OSError, ValueError) as error:
        return report(error)


def extract_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `extract`."""
    add_slides(parser)
    cells = parser.add_argument_group("cells")
    cells.add_argument("--out", type=Path, required=True, help="the cells folder")
    cells.add_argument(
        "--segmenter", choices=SEGMENTERS, default="hoverfast", help="what finds the nuclei"
    )
    cells.add_argument("--any-scale", action="store_true", help="take slides that are not 40X")
    cells.add_argument(
        "--cells-per-slide", type=at_least(1), help="keep so many, drawn at random (default: all)"
    )
    cells.add_argument("--codec", choices=CODECS, default="jpeg", help="of the crops")
    cells.add_argument("--seed", type=int, default=0, help="of every draw")
    add_flags(parser)
    run = parser.add_argument_group("run")
    cores = len(os.sched_getaffinity(0))
    run.add_argument("--workers", type=at_least(1), default=cores, help="slides at once")
    add_parts(run)
    run.add_argument("--overwrite", action="store_true", help="extract finished slides anew")


def extract(options: argparse.Namespace) -> int:
    """Find the nuclei of slides and cut them out; return 1 if some slides failed."""
    check_part(options)
    settings = Settings(
        segmenter=options.segmenter,
        codec=options.codec,
        seed=options.seed,
        cells_per_slide=options.cells_per_slide,
        any_scale=options.any_scale,
        **read_flags(options),
    )
    entries = with_files(listed(options), settings.masks, settings.imported)
    entries = entries[options.part :: options.parts]
    records = extract_cohort(entries, options.out, settings, options.workers, options.overwrite)
    return summarise(records, options.out)


def add_slides(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    """Add the flags that say which slides."""
    group = parser.add_argument_group("slides")
    group.add_argument(
        "slides",
        type=Path,
        nargs=None if needed else "?",
        help="slide, image, folder, CSV (path[,slide_id,project,mpp,case]) or GDC manifest",
    )
    group.add_argument("--slides-root", type=Path, help="where gdc-client put a manifest's files")
    group.add_argument("--sample-sheet", type=Path, help="of the GDC: gives project and case")
    group.add_argument(
        "--frozen", action="store_true", help="take TS, BS and MS slides of folders and manifests"
    )
    group.add_argument("--verify-md5", action="store_true", help="of manifests; reads every byte")
    group.add_argument("--mpp", type=float, help="µm/px of slides for which the CSV gives none")


def listed(options: argparse.Namespace) -> list[Entry]:
    """List the slides that the flags of `add_slides` name."""
    if options.mpp is not None:
        check_mpp(options.mpp, f"with --mpp {options.mpp:g} slides", CURE_FLAG)
    return list_slides(
        options.slides,
        options.mpp,
        options.slides_root,
        options.sample_sheet,
        options.frozen,
        options.verify_md5,
    )


def status_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `status`."""
    parser.description = (
        "Check the cells of every slide against its record, print a table, and write\n"
        "slides.parquet, slides.csv and resubmit.csv. Exit code 1: some are to be resubmitted."
    )
    parser.add_argument("cells", type=Path, help="folder that extract wrote")
    add_slides(parser, needed=False)
    group = parser.add_argument_group("run")
    group.add_argument("--out", type=Path, help="folder of the tables (default: <cells>-status)")
    group.add_argument("--digests", action="store_true", help="read the tars whole: SHA-256")


def status(options: argparse.Namespace) -> int:
    """Say what became of every slide; return 1 if any is to be submitted again."""
    from extract.resubmission import flags_before
    from extract.status import AGAIN, describe, survey, write_status

    out = options.out or options.cells.with_name(f"{options.cells.resolve().name}-status")
    entries = listed(options) if options.slides else None
    rows = survey(options.cells, entries, options.digests)
    write_status(rows, out)
    print(describe(rows))
    print(f"tables: {out}/slides.parquet, {out}/slides.csv")
    counts = Counter(row["outcome"] for row in rows)
    again = sum(counts[outcome] for outcome in AGAIN)
    if entries is None:
        log.warning("only slides with a record are counted; name the list of slides, too")
    if again:
        parser = argparse.ArgumentParser()
        extract_flags(parser)
        flags = flags_before([row["command"] for row in rows], parser)
        words = [f"{out}/resubmit.csv", "--out", str(options.cells), *flags]
        print(f"to resubmit: python extract/main.py {shlex.join(words)}")
    if counts["broken"]:
        print("broken ones are done anew with --overwrite")
    return 1 if again else 0


def sheet_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `sheet`."""
    parser.description = (
        "Write one HTML page that shows what was extracted: nuclei on each slide, outlines at\n"
        "full resolution, crops kept and dropped, counts."
    )
    parser.add_argument("cells", type=Path, help="folder that extract wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    parser.add_argument("--slides", type=at_least(1), default=40, help="how many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")


def sheet(options: argparse.Namespace) -> None:
    """Write the page to look at."""
    from extract.contact_sheet import write_sheet

    print(write_sheet(options.cells, options.out, options.slides, options.seed))


COMMANDS = {
    "extract": Command(
        "find the nuclei of slides and cut them out; also without this word", extract_flags, extract
    ),
    "status": Command("what became of each slide, and what to resubmit", status_flags, status),
    "sheet": Command("a page that shows what was extracted", sheet_flags, sheet),
    "train-segmenter": command_of(
        "extract.network.command", "train the network segmenter on outlined nuclei"
    ),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
