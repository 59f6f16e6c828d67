"""The real fields that some benchmarks need, which no clone holds."""

import argparse
import os
from pathlib import Path

DATA = Path(
    os.environ.get("LEMON_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
FIELDS = DATA / "tcga-mini"


def existing(words: str | Path) -> Path:
    """Return a folder of real data, for argparse; bench/README.md says what lies in it.

    Raises:
        ArgumentTypeError: it is not there.
    """
    path = Path(words).resolve()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"no folder {path}; LEMON_TEST_DATA names the one that holds it (bench/README.md)"
        )
    return path


def add_nuclei(parser: argparse.ArgumentParser) -> None:
    """Add --benchmark, CoNSeP as published or prepared."""
    parser.add_argument(
        "--benchmark",
        type=existing,
        default=str(DATA / "consep"),
        help="CoNSeP, whose nuclei are used",
    )


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Add --data, a folder of fields."""
    parser.add_argument("--data", type=existing, default=str(FIELDS), help="fields to cut from")
