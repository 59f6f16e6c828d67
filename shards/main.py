"""Mix the cells that extract wrote into training shards; choose among them; check them.

python shards/main.py mix cells/ --out shards/
python shards/main.py mix cells/ --out shards/ --part $SLURM_ARRAY_TASK_ID --parts 100
python shards/main.py select cells/ --cells 1000000 --slides 500 --balance slide --out some.parquet
python shards/main.py mix cells/ --selection some.parquet --out shards-500-slides/
python shards/main.py verify shards/
python shards/main.py info shards/
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import logging
from pathlib import Path

from shards.errors import report

FAULTS = 100  # printed one by one; of more only the number


def main() -> int:
    """Run the command line; return 0, 1 for faults or a full disk, 2 for input it cannot use."""
    arguments = _parser().parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        return COMMANDS[arguments.command](arguments)
    except (OSError, ValueError) as error:
        return report(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    mix = commands.add_parser("mix", help="one global shuffle of all slides' cells")
    mix.add_argument("cells", type=Path, help="folder that extract wrote")
    mix.add_argument("--out", type=Path, required=True, help="folder of the shards")
    mix.add_argument("--samples-per-shard", type=int, default=10_000)
    mix.add_argument("--seed", type=int, default=0)
    mix.add_argument("--selection", type=Path, help="only these cells: what `select` wrote")
    mix.add_argument(
        "--part",
        type=int,
        default=0,
        help="of --parts, from 0. Every part is started twice: first to sort its share of the "
        "cells, then, when all have ended, to write its share of the shards; the last one joins "
        "them. A run without --part does all that is left",
    )
    mix.add_argument("--parts", type=int, default=1)
    mix.add_argument(
        "--memory", type=float, default=0.5, help="GB its pieces may take (default: 0.5)"
    )
    mix.add_argument("--overwrite", action="store_true", help="replace what --out holds")

    select = commands.add_parser("select", help="choose cells by slides, projects and count")
    select.add_argument("cells", type=Path, help="folder that extract wrote")
    select.add_argument("--out", type=Path, required=True, help="the selection, a Parquet file")
    select.add_argument("--cells", type=int, required=True, dest="count", help="how many")
    select.add_argument("--slides", type=int, help="from so many slides (default: all)")
    select.add_argument("--projects", type=int, help="from so many projects (default: all)")
    select.add_argument(
        "--balance",
        choices=("slide", "project", "none"),
        default="none",
        help="equal numbers from each slide or project (default: each cell the same chance)",
    )
    select.add_argument(
        "--exclude-cases",
        type=Path,
        help="list or table of slides or cases (e.g. TCGA-18-5592) whose patients are left out: "
        "those of the benchmarks (NuCLS and PanNuke are TCGA slides)",
    )
    select.add_argument("--seed", type=int, default=0)

    verify = commands.add_parser("verify", help="re-read everything and name each fault")
    verify.add_argument("shards", type=Path)

    info = commands.add_parser("info", help="say and show what a data set is")
    info.add_argument("shards", help="folder, or its URL")
    info.add_argument("--sheet", type=Path, help="contact sheet (default: contact.png beside)")
    return parser


def _mix(arguments: argparse.Namespace) -> int:
    from shards.mix.mix import mix

    info = mix(
        arguments.cells,
        arguments.out,
        arguments.samples_per_shard,
        arguments.seed,
        arguments.overwrite,
        arguments.selection,
        arguments.part,
        arguments.parts,
        arguments.memory,
    )
    if info:
        print(
            f"{arguments.out}: {info['samples']} cells of {info['slides']} slides "
            f"in {len(info['shards'])} shards"
        )
    return 0


def _select(arguments: argparse.Namespace) -> int:
    from shards.selection import select

    chosen = select(
        arguments.cells,
        arguments.out,
        arguments.count,
        arguments.slides,
        arguments.projects,
        arguments.balance,
        arguments.seed,
        arguments.exclude_cases,
    )
    print(
        f"{arguments.out}: {chosen['cells']} cells of {chosen['slides']} slides, "
        f"{len(chosen['projects'])} projects; {len(chosen['excluded_slides'])} slides left out"
    )
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from shards.verify import verify

    count = 0
    for count, fault in enumerate(verify(arguments.shards), 1):
        if count <= FAULTS:
            print(fault)
    print(f"{arguments.shards}: {count} faults" if count else f"{arguments.shards}: whole")
    return 1 if count else 0


def _info(arguments: argparse.Namespace) -> int:
    from shards.contents import describe, write_sheet
    from shards.read import Shards

    shards = Shards(arguments.shards)
    print(describe(shards))
    sheet = arguments.sheet or shards.folder / "contact.png"
    write_sheet(shards, sheet)
    print(f"  examples  {sheet}")
    return 0


COMMANDS = {"mix": _mix, "select": _select, "verify": _verify, "info": _info}

if __name__ == "__main__":
    sys.exit(main())
