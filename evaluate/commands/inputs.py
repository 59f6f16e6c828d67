"""What the commands are given: benchmarks, or cells to look at."""

import argparse
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluate.analyses.molecules import Molecules

log = logging.getLogger(__name__)


def open_encoders(options: argparse.Namespace, only: set[str] | None = None) -> Iterator:
    """Open those of --encoder one after another; `only` and errors as of evaluate/encoders.py."""
    from evaluate import encoders

    words = options.encoder if isinstance(options.encoder, list) else [options.encoder]
    compiled = vars(options).get("compile", False)
    return encoders.open_encoders(
        words, options.seed, options.batch, options.precision, compiled, only
    )


def distinct_benchmarks(paths: list[str]) -> list:
    """Return (path, Benchmark) pairs of distinct names; each task of a path is one."""
    from evaluate.benchmarks.find import find_benchmarks

    pairs = [(path, benchmark) for path in paths for benchmark in find_benchmarks(path)]
    names = [benchmark.name for _, benchmark in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two benchmarks are named {name!r}; rename a folder")
    say_used([benchmark for _, benchmark in pairs])
    return pairs


def say_used(benchmarks: list) -> None:
    """Say how many nuclei of each benchmark are used and what was noted on the way, once."""
    said: set[tuple[str, ...]] = set()
    for benchmark in benchmarks:
        log.info("%s: %s", benchmark.name, benchmark.used())
        if benchmark.notes not in said:  # tasks share them
            said.add(benchmark.notes)
            for note in benchmark.notes:
                log.info("  %s", note)


def molecules_of(options: argparse.Namespace, samples) -> "Molecules | None":
    """Return the values of --values, or the benchmark's genes, or None.

    Raises:
        ValueError: --values for a benchmark.
    """
    from evaluate.analyses.molecules import from_file, from_targets, from_xenium
    from evaluate.benchmarks.xenium_bundle import is_bundle

    if options.values and options.benchmark:
        raise ValueError("--values are keyed like cells: give --cells or --shards")
    if options.values and is_bundle(options.values):
        return from_xenium(options.values, samples, samples.xy, options.radius)
    if options.values:
        return from_file(options.values, samples, samples.nuclei, options.log1p)
    return None if samples.targets is None else from_targets(samples)


def check_markers(markers: list[str] | None, found: "Molecules | None") -> None:
    """Raise ValueError where --markers are not among the values."""
    unknown = sorted(set(markers or ()) - set(found.names if found else ()))
    if unknown:
        known = f"there are {', '.join(found.names[:8])}" if found else "no genes are known here"
        raise ValueError(f"--markers {unknown[0]}: {known}")


def source_of(options: argparse.Namespace) -> tuple[str, str]:
    """Return which of --benchmark, --cells and --shards was given, and its folder."""
    kind = next(kind for kind in ("benchmark", "cells", "shards") if getattr(options, kind))
    return kind, getattr(options, kind)


def samples_of(kind: str, folder: str, count: int, seed: int, view_px: int):
    """Return a benchmark, or at most `count` cells of a folder of cells or shards."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.samples import from_cells, from_shards

    if kind == "benchmark":
        benchmark = find_benchmark(folder, view_px)
        say_used([benchmark])
        return benchmark
    return (from_cells if kind == "cells" else from_shards)(folder, count, seed, view_px)
