"""Flags that several commands share, by group: the encoder, the data, values a cell, the run."""

import argparse
import logging
from pathlib import Path

from shards.command_line import add_parts, at_least, positive
from train.shipped import DEFAULT

log = logging.getLogger(__name__)


def strength(text: str) -> float | None:
    """Read a penalty's strength: a number above 0, or `inner`, which is None."""
    if text == "inner":
        return None
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0, or `inner`")
    return value


def probability(text: str) -> float:
    """Read a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a number from 0 to 1")
    return value


def number(
    group: argparse._ActionsContainer, flag: str, default: int, help: str, low: int = 1
) -> None:
    """Add a flag that takes an integer of `low` or more."""
    group.add_argument(flag, type=at_least(low), default=default, metavar="N", help=help)


def path(
    group: argparse._ActionsContainer, flag: str, metavar: str, help: str, required: bool = False
) -> None:
    """Add a flag that takes a path."""
    group.add_argument(flag, type=Path, metavar=metavar, help=help, required=required)


def paths(group: argparse._ActionsContainer, flag: str, metavar: str, help: str) -> None:
    """Add a flag that takes paths; without it there are none."""
    group.add_argument(flag, type=Path, nargs="+", default=[], metavar=metavar, help=help)


def encoder(
    command: argparse.ArgumentParser,
    several: bool = True,
    compiled: bool = False,
    needed: bool = True,
) -> None:
    """Add --encoder, one or several, and what a network's forward pass needs.

    Args:
        several: it takes more than one.
        needed: False: where none is given it is DEFAULT. Where encoders are compared, all are said.
    """
    group = command.add_argument_group("encoder")
    group.add_argument(
        "--encoder",
        nargs="+" if several else None,
        required=needed,
        default=None if needed else [DEFAULT] if several else DEFAULT,
        metavar="E",
        help="a run, a checkpoint, a network or a baseline by name; NAME=… names it, the endings "
        "+mean, +stages, +tta and +morphology make more of it",
    )
    network(group)
    if compiled:
        group.add_argument(
            "--compile", action="store_true", help="compile networks; pays from some 10,000 crops"
        )


def say_encoder(options: argparse.Namespace) -> None:
    """Say which encoder is used where it may be that none was given."""
    if vars(options).get("encoder") in (DEFAULT, [DEFAULT]):
        log.info("encoder: %s, which comes with the clone; --encoder takes another", DEFAULT)


def network(group: argparse._ActionsContainer) -> None:
    """Add --batch and --precision."""
    group.add_argument(
        "--batch",
        type=at_least(1),
        metavar="N",
        help="crops a network takes at once (default: 64, on a GPU 512)",
    )
    group.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="of the network's products"
    )


def benchmarks(command: argparse.ArgumentParser) -> None:
    """Add --benchmark, several."""
    command.add_argument_group("data").add_argument(
        "--benchmark",
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders of benchmarks, prepared or as published; DIR:TASK takes one of several tasks",
    )


def source(
    command: argparse.ArgumentParser, several: bool = False, points: int | None = 20000
) -> None:
    """Add --benchmark (or several), --cells and --shards, of which one is given, and --points."""
    data = command.add_argument_group("data")
    group = data.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--benchmark",
        metavar="DIR",
        nargs="+" if several else None,
        help="a benchmark's folder; DIR:TASK takes one of several tasks",
    )
    group.add_argument("--cells", metavar="DIR", help="a folder that extract/main.py wrote")
    group.add_argument("--shards", metavar="DIR", help="a folder that shards/main.py wrote")
    if points:
        number(data, "--points", points, "cells at most, drawn at random", low=8)


def cohort(group: argparse._ActionsContainer) -> None:
    """Add --in, an encoder's embeddings of many cells, and --cells or --shards, whose they are."""
    group.add_argument(
        "--in",
        dest="folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="an encoder's embeddings: results/embeddings/NAME, of `embed`, `apply` or `slide`",
    )
    source = group.add_mutually_exclusive_group(required=True)
    path(source, "--cells", "DIR", "whose slides they are of")
    path(source, "--shards", "DIR", "likewise, embedded by `embed`")


def classifier(command: argparse.ArgumentParser, required: bool = False) -> None:
    """Add --classifier, --min-probability and --any-scale."""
    group = command.add_argument_group("classes")
    what = "give each nucleus a class: a folder that `fit` wrote"
    path(group, "--classifier", "DIR", what, required)
    group.add_argument(
        "--min-probability",
        type=probability,
        default=0.0,
        metavar="P",
        help="below it a nucleus stays without a class",
    )
    group.add_argument("--any-scale", action="store_true", help="take slides that are not 40X, too")


def open_classifier(options: argparse.Namespace):
    """Return the classifier of --classifier, or None; errors as of `load`."""
    if options.classifier is None:
        if options.min_probability:
            raise ValueError("--min-probability is a classifier's: give --classifier")
        return None
    from evaluate.classes.classifier import load

    return load(options.classifier)


def values(command: argparse.ArgumentParser) -> None:
    """Add --values, --log1p and --markers: what is known of cells beside their pictures."""
    group = command.add_argument_group("values a cell")
    what = "CSV or Parquet of values (genes) a cell of --cells, --shards; or a Xenium bundle"
    path(group, "--values", "FILE", what)
    group.add_argument(
        "--radius",
        type=positive,
        default=5.0,
        metavar="UM",
        help="of a Xenium bundle: within which a cell's centroid is a nucleus', µm",
    )
    group.add_argument("--log1p", action="store_true", help="--values are counts: log(1 + count)")
    group.add_argument("--markers", nargs="+", metavar="GENE", help="draw these of the values")


def run(command: argparse.ArgumentParser, parts: bool = False, overwrite: bool = False) -> None:
    """Add --out and --seed; --part and --parts for an array's tasks; --overwrite."""
    group = command.add_argument_group("run")
    path(group, "--out", "DIR", "results folder", required=True)
    group.add_argument("--seed", type=int, default=0, help="of every draw")
    if parts:
        add_parts(group)
    if overwrite:
        group.add_argument("--overwrite", action="store_true", help="drop what is there")
