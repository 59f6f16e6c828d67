"""The paper's comparisons of runs: a row each, a column per benchmark (Tables 2 and 6)."""

import argparse
import re
from pathlib import Path

SPLITS = ("stratified", "grouped", "slide", "patient")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument("results", type=Path, help="a folder that probe wrote to")
    command.add_argument(
        "--rows",
        nargs="+",
        required=True,
        metavar="LABEL=ENCODER",
        help="the table's, in order; LABEL=ENCODER,ENCODER: runs of several seeds in one row",
    )
    command.add_argument("--first", default="Model", metavar="TITLE", help="of the first column")
    command.add_argument("--name", default="comparison", help="of the table's files")
    command.add_argument(
        "--metric", help="one for all columns (default: the paper's of each benchmark)"
    )
    command.add_argument("--split", default="stratified", choices=SPLITS, help="folds of --metric")


def run(options: argparse.Namespace) -> None:
    """Print the table, and write it beside the others."""
    from evaluate.tables.comparison import compare
    from evaluate.tables.table import PAPER_SPLIT

    if not re.fullmatch(r"[\w+=@.-]+", options.name):
        raise ValueError(f"--name {options.name!r} names no file: letters, digits and _+=@.- only")
    wanted = {options.metric: options.split} if options.metric else PAPER_SPLIT
    print(compare(options.results, options.rows, options.first, options.name, wanted))
