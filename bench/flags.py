"""The flags that scripts share, and the real fields that some need, which no clone holds."""

import argparse
import os
from pathlib import Path
from typing import Any

from shards.command_line import program_parser

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


SHARED: dict[str, dict[str, Any]] = {
    "--data": {"type": existing, "default": str(FIELDS), "help": "fields to cut from"},
    "--benchmark": {
        "type": existing,
        "default": str(DATA / "consep"),
        "help": "CoNSeP, as published or prepared, whose nuclei are used",
    },
    "--encoder": {"help": "a run's folder; else a ViT-S/8 as initialised"},
    "--folder": {"type": Path, "help": "where to write (default: temporary)"},
    "--threads": {"type": int, "default": 1, "help": "of torch"},
}


def bench_parser(
    script: str, doc: str | None, quick: str = "fewer repeats or less data", *flags: str
) -> argparse.ArgumentParser:
    """Return a script's parser with --quick, and the flags of SHARED that it names."""
    parser = program_parser(f"bench/{script}.py", doc)
    parser.add_argument("--quick", action="store_true", help=quick)
    for flag in flags:
        parser.add_argument(flag, **SHARED[flag])
    return parser
