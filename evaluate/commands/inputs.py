"""What the commands are given: benchmarks, or cells to look at."""

import argparse


def distinct_benchmarks(paths: list[str]) -> list:
    """Return (path, Benchmark) pairs of distinct names; each task of a path is one."""
    from evaluate.benchmarks.find import find_benchmarks

    pairs = [(path, benchmark) for path in paths for benchmark in find_benchmarks(path)]
    names = [benchmark.name for _, benchmark in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two benchmarks are named {name!r}; rename a folder")
    return pairs


def samples_of(options: argparse.Namespace, count: int, view_px: int) -> tuple:
    """Return the kind of source that was given and what it holds."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.samples import from_cells, from_shards

    if options.benchmark:
        return "benchmark", find_benchmark(options.benchmark, view_px)
    kind, read = ("cells", from_cells) if options.cells else ("shards", from_shards)
    return kind, read(getattr(options, kind), count, options.seed, view_px)
