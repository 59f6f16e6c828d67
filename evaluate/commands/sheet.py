"""A contact sheet of cells."""

import argparse
from pathlib import Path

from evaluate.commands import flags
from evaluate.commands.inputs import samples_of, source_of

SHEET_CROPS = 4000  # sampled for a contact sheet, so that rare classes show


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.source(command, points=None)
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Draw a contact sheet of a benchmark, of cells or of shards."""
    print(draw_sheet(*source_of(options), options.out, options.seed))


def draw_sheet(kind: str, folder: str, out: Path, seed: int) -> Path:
    """Draw a contact sheet into `<out>/sheets/`; return its path."""
    from evaluate.report.class_sheet import save_sheet

    side = 40 if kind == "benchmark" else 60  # what encoders see; what is stored
    samples = samples_of(kind, folder, SHEET_CROPS, seed, side)
    path = out / "sheets" / f"{kind}--{samples.name}.png"
    save_sheet(samples, path, seed, whole=kind == "benchmark")
    return path
