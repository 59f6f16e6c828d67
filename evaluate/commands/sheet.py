"""A contact sheet of cells."""

import argparse

from evaluate.commands import flags
from evaluate.commands.inputs import samples_of

SHEET_CROPS = 4000  # sampled for a contact sheet, so that rare classes show


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.source(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Draw a contact sheet of a benchmark, of cells or of shards."""
    from evaluate.report.class_sheet import save_sheet

    side = 40 if options.benchmark else 60  # what encoders see; what is stored
    kind, samples = samples_of(options, SHEET_CROPS, side)
    path = options.out / "sheets" / f"{kind}--{samples.name}.png"
    save_sheet(samples, path, options.seed, whole=kind == "benchmark")
    print(path)
