"""The paper's tables from results folders."""

import argparse
from pathlib import Path


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument("results", type=Path, nargs="+", help="folders that `probe` wrote")
    command.add_argument(
        "--table",
        nargs="+",
        default=["1", "10", "11", "12"],
        choices=("1", "10", "11", "12"),
        metavar="N",
        help="of the paper, 1, 10, 11 or 12",
    )
    command.add_argument("--paper", action="store_true", help="the paper's numbers beside ours")
    command.add_argument(
        "--grouped", action="store_true", help="folds that keep slides or patients whole"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder")


def run(options: argparse.Namespace) -> None:
    """Write `paper.md`, `paper.csv` and `paper.tex`; print the first."""
    from evaluate.tables import paper
    from shards.write import write_text

    tables = paper.layouts(options.results, options.table, options.paper, options.grouped)
    text = paper.markdown(tables)
    write_text(options.out / "paper.csv", paper.comma_separated(tables))
    write_text(options.out / "paper.tex", paper.latex(tables))
    write_text(options.out / "paper.md", text)
    print(text)
    print(f"{options.out}/paper.md, paper.csv, paper.tex")
