"""Crops and labels in files that open at once."""

import argparse
from pathlib import Path


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument("benchmark", metavar="DIR")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")


def run(options: argparse.Namespace) -> None:
    """Write a benchmark's crops and labels, for the trainer's online probe."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.benchmarks.prepared import save

    benchmark = find_benchmark(options.benchmark)
    save(benchmark, options.out)
    counts = ", ".join(f"{name} {count:,}" for name, count in benchmark.counts().items())
    print(f"{options.out}: {len(benchmark):,} nuclei ({counts})")
    for note in benchmark.notes:
        print(f"  {note}")
