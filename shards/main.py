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
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import argparse
import logging
from pathlib import Path

from shards.amount import amount
from shards.command_line import Command, read_command
from shards.errors import report
from shards.progress import say_next

BALANCES = ("slide", "project", "none")  # of shards/selection.py, whose import takes a while
FAULTS = 100  # printed one by one; of more only the number


def main(words: list[str]) -> int:
    """Run the command line; return 0, 1 for faults or a full disk, 2 for input it cannot use."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        name, options = read_command("shards/main.py", __doc__, COMMANDS, words)
        return COMMANDS[name].run(options) or 0
    except (OSError, ValueError) as error:
        return report(error)


def _mix_flags(flags: argparse.ArgumentParser) -> None:
    data = flags.add_argument_group("data")
    data.add_argument("cells", type=Path, help="folder that extract wrote")
    data.add_argument("--out", type=Path, required=True, help="folder of the shards")
    data.add_argument("--selection", type=Path, help="only these cells: what `select` wrote")
    data.add_argument("--samples-per-shard", type=int, default=10_000, help="crops in a tar")
    data.add_argument("--seed", type=int, default=0, help="of the shuffle")
    run = flags.add_argument_group("run")
    run.add_argument(
        "--part",
        type=int,
        default=0,
        help="of --parts, from 0. Every part is started twice: first to sort its share of the "
        "cells, then, when all have ended, to write its share of the shards; the last one joins "
        "them. A run without --part does all that is left",
    )
    run.add_argument("--parts", type=int, default=1, help="how many share the work")
    run.add_argument(
        "--memory",
        type=float,
        default=0.5,
        help="GB that cells may take, beside about 0.4 for Python and its libraries",
    )
    run.add_argument("--overwrite", action="store_true", help="replace what --out holds")


def _select_flags(flags: argparse.ArgumentParser) -> None:
    data = flags.add_argument_group("data")
    data.add_argument("cells", type=Path, help="folder that extract wrote")
    data.add_argument("--out", type=Path, required=True, help="the selection, a Parquet file")
    data.add_argument(
        "--exclude-cases",
        dest="exclude",
        type=Path,
        help="list or table of slides or cases (e.g. TCGA-18-5592) whose patients are left out: "
        "those of the benchmarks (NuCLS and PanNuke are TCGA slides)",
    )
    choice = flags.add_argument_group("choice")
    choice.add_argument("--cells", type=int, required=True, dest="count", help="how many cells")
    choice.add_argument("--slides", type=int, help="from so many slides; all, if not given")
    choice.add_argument("--projects", type=int, help="from so many projects; all, if not given")
    choice.add_argument(
        "--balance",
        choices=BALANCES,
        default="none",
        help="equal numbers from each slide or project; none: each cell the same chance",
    )
    choice.add_argument("--seed", type=int, default=0, help="of every choice")


def _verify_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("shards", type=Path, help="folder that mix wrote")


def _info_flags(flags: argparse.ArgumentParser) -> None:
    flags.add_argument("shards", help="folder that mix wrote, or its URL")
    flags.add_argument(
        "--sheet", type=Path, help="contact sheet, a PNG; if not given, contact.png beside them"
    )


def _mix(arguments: argparse.Namespace) -> None:
    from shards.mix.mix import mix

    info = mix(**vars(arguments))
    if info:
        print(
            f"{arguments.out}: {amount(info['samples'], 'cells')} of "
            f"{amount(info['slides'], 'slides')} in {amount(len(info['shards']), 'shards')}"
        )
        train = ["python", "train/main.py", "--data", arguments.out, "--out", "runs/first"]
        seen = ["python", "evaluate/main.py", "map", "--shards", arguments.out]
        say_next([*seen, "--out", "results/", "--html"], [*train, "--dry-run"])


def _select(arguments: argparse.Namespace) -> None:
    from shards.selection import select

    chosen = select(**vars(arguments))
    print(
        f"{arguments.out}: {amount(chosen['cells'], 'cells')} of "
        f"{amount(chosen['slides'], 'slides')}, {amount(len(chosen['projects']), 'projects')}; "
        f"{amount(len(chosen['excluded_slides']), 'slides')} left out"
    )
    mix = ["python", "shards/main.py", "mix", arguments.cells, "--selection", arguments.out]
    say_next([*mix, "--out", "shards/"])


def _verify(arguments: argparse.Namespace) -> int:
    from shards.verify import verify

    count = 0
    for count, fault in enumerate(verify(arguments.shards), 1):
        if count <= FAULTS:
            print(fault)
    print(f"{arguments.shards}: {count} faults" if count else f"{arguments.shards}: whole")
    return 1 if count else 0


def _info(arguments: argparse.Namespace) -> None:
    from shards.contents import describe, write_sheet
    from shards.read import Shards

    shards = Shards(arguments.shards)
    print(describe(shards))
    sheet = arguments.sheet or shards.folder / "contact.png"
    write_sheet(shards, sheet)
    print(f"  examples  {sheet}")


COMMANDS = {
    "mix": Command("one global shuffle of all slides' cells into tars", _mix_flags, _mix),
    "select": Command("choose cells by slides, projects and count", _select_flags, _select),
    "verify": Command("re-read everything and name each fault", _verify_flags, _verify),
    "info": Command("say and show what a data set is", _info_flags, _info),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
