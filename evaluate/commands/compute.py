"""What encoders cost against how well they are probed."""

import argparse
from pathlib import Path

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument("out", type=Path, metavar="RESULTS", help="what probe wrote into")
    group = command.add_argument_group("encoder")
    group.add_argument(
        "--encoder",
        nargs="+",
        default=[],
        metavar="E",
        help="measure the speed of these; the others are counted by what the results say of them",
    )
    group.add_argument(
        "--also",
        nargs="+",
        default=[],
        metavar="KIND",
        help="count these too, as h-optimus-0 or vit_s8",
    )
    flags.network(group)
    group.add_argument("--seed", type=int, default=0, help="of the weights of `untrained`")


def run(options: argparse.Namespace) -> None:
    """Write `tables/compute.csv` and `figures/compute.svg`."""
    from evaluate.analyses.compute import compare_compute

    if not options.out.is_dir():
        raise FileNotFoundError(f"no results folder {options.out}; `probe` makes one")
    path = compare_compute(
        options.out,
        options.encoder,
        options.also,
        seed=options.seed,
        batch=options.batch,
        precision=options.precision,
    )
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"table: {path}; figure: {options.out}/figures/compute.svg")
