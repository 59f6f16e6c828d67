"""Flags that several commands share."""

import argparse
from pathlib import Path


def at_least(low: int):
    """Return a type for argparse: an integer of `low` or more."""

    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    number.__name__ = f"integer of {low} or more"
    return number


def encoders(command: argparse.ArgumentParser) -> None:
    """Add --encoder, one or several."""
    command.add_argument("--encoder", nargs="+", required=True, metavar="E")


def encoders_and_benchmarks(command: argparse.ArgumentParser) -> None:
    """Add --encoder and --benchmark, several of each."""
    encoders(command)
    command.add_argument("--benchmark", nargs="+", required=True, metavar="DIR")


def strength(text: str) -> float | None:
    """Read a penalty's strength: a number above 0, or `inner`, which is None."""
    if text == "inner":
        return None
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0, or `inner`")
    return value


def parts(command: argparse.ArgumentParser) -> None:
    """Add --part and --parts, for an array's tasks."""
    command.add_argument(
        "--part", type=at_least(0), default=0, help="which share of encoders x benchmarks, from 0"
    )
    command.add_argument("--parts", type=at_least(1), default=1, help="how many shares")


def check_part(options: argparse.Namespace) -> None:
    """Raise ValueError where there is no such part."""
    if options.part >= options.parts:
        raise ValueError(f"--part {options.part} of --parts {options.parts}: count from 0")


def source(command: argparse.ArgumentParser, several: bool = False) -> None:
    """Add --benchmark (or several), --cells and --shards, of which one is given."""
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--benchmark", metavar="DIR", nargs="+" if several else None)
    group.add_argument("--cells", metavar="DIR", help="a folder that extract/main.py wrote")
    group.add_argument("--shards", metavar="DIR", help="a folder that shards/main.py wrote")


def points(command: argparse.ArgumentParser) -> None:
    """Add --points, of --cells and --shards."""
    command.add_argument(
        "--points", type=at_least(100), default=20000, help="cells of --cells, --shards (20000)"
    )


def values(command: argparse.ArgumentParser) -> None:
    """Add --values, --log1p and --markers: what is known of cells beside their pictures."""
    command.add_argument(
        "--values",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet of values (genes) a cell of --cells, --shards",
    )
    command.add_argument("--log1p", action="store_true", help="--values are counts")
    command.add_argument("--markers", nargs="+", metavar="GENE", help="draw these")


def network(command: argparse.ArgumentParser) -> None:
    """Add what a network's forward pass needs."""
    command.add_argument(
        "--batch", type=at_least(1), help="crops a network takes at once (64; 512 on a GPU)"
    )
    command.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")


def compiled(command: argparse.ArgumentParser) -> None:
    """Add --compile."""
    command.add_argument(
        "--compile", action="store_true", help="compile networks; pays from some 10,000 crops"
    )


def results(command: argparse.ArgumentParser) -> None:
    """Add --out and --seed."""
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder")
    command.add_argument("--seed", type=int, default=0)


def overwrite(command: argparse.ArgumentParser) -> None:
    """Add --overwrite."""
    command.add_argument("--overwrite", action="store_true", help="drop what is there")
