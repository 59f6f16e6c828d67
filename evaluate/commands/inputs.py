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


def molecules_of(options: argparse.Namespace, samples, measured: bool = False):
    """Return the values of --values or the benchmark's genes, `Molecules`, or None.

    Args:
        options: of the command.
        samples: N nuclei.
        measured: without genes, measure the nuclei instead.

    Raises:
        ValueError: --values for a benchmark, or --markers that are not among the values.
    """
    from evaluate.analyses.molecules import from_crops, from_file, from_targets

    if options.values and options.benchmark:
        raise ValueError("--values are keyed like cells: give --cells or --shards")
    found = None
    if options.values:
        found = from_file(options.values, samples, samples.nuclei, options.log1p)
    elif samples.targets is not None:
        found = from_targets(samples)
    elif measured:
        found = from_crops(samples)
    unknown = sorted(set(options.markers or ()) - set(found.names if found else ()))
    if unknown:
        known = f"there are {', '.join(found.names[:8])}" if found else "no genes are known here"
        raise ValueError(f"--markers {unknown[0]}: {known}")
    return found


def samples_of(options: argparse.Namespace, count: int, view_px: int) -> tuple:
    """Return the kind of source that was given and what it holds."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.samples import from_cells, from_shards

    if options.benchmark:
        return "benchmark", find_benchmark(options.benchmark, view_px)
    kind, read = ("cells", from_cells) if options.cells else ("shards", from_shards)
    return kind, read(getattr(options, kind), count, options.seed, view_px)
