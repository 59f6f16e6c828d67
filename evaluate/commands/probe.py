"""Logistic regression on frozen embeddings."""

import argparse
import sys

from evaluate.commands import flags
from evaluate.commands.inputs import distinct_benchmarks


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoders_and_benchmarks(command)
    command.add_argument("--folds", type=flags.at_least(2), default=5)
    flags.network(command)
    flags.overwrite(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Probe every encoder on every benchmark; write `probe.csv`, the tables, contact sheets."""
    from evaluate.embed import embed
    from evaluate.encoders import check_encoders, open_encoders
    from evaluate.probe import SPLITS, folds, probe, protocol
    from evaluate.results import benchmark_facts, check_comparable, store
    from evaluate.sheet import save_sheet
    from evaluate.tables import write_tables

    names = list(check_encoders(options.encoder))
    settings = protocol(options.folds, options.seed)
    tasks = []
    for path, benchmark in distinct_benchmarks(
        options.benchmark
    ):  # all input is seen before any work
        facts, tests = benchmark_facts(benchmark, path, settings), {}
        for split in SPLITS:
            try:
                tests[split] = folds(benchmark, split, options.folds, options.seed)
            except ValueError as error:
                if split == "stratified":
                    raise
                facts["grouped"] = f"no grouped folds: {error}"
                print(f"{benchmark.name}: {facts['grouped']}", file=sys.stderr)
        if not options.overwrite:
            check_comparable(options.out, benchmark.name, facts, names)
        tasks.append((benchmark, facts, tests))
    fresh = {benchmark.name for benchmark, _, _ in tasks} if options.overwrite else set()
    for benchmark, _, _ in tasks:
        path = options.out / "sheets" / f"benchmark--{benchmark.name}.png"
        save_sheet(benchmark, path, options.seed)
    for encoder in open_encoders(options.encoder, options.seed, options.batch, options.precision):
        for benchmark, facts, tests in tasks:
            vectors = embed(encoder, benchmark, options.out, options.overwrite, encoder.cached)
            rows = []
            for split, parts in tests.items():
                title = f"{encoder.name} on {benchmark.name}, {split}"
                scored = probe(vectors, benchmark, parts, encoder.components, options.seed, title)
                rows += [
                    {"encoder": encoder.name, "benchmark": benchmark.name, "split": split}
                    | {"fold": fold, "metric": metric, "value": value}
                    for fold, scores in enumerate(scored)
                    for metric, value in scores.items()
                ]
            drop = benchmark.name in fresh
            fresh.discard(benchmark.name)
            store(options.out, benchmark.name, facts, encoder.name, encoder.manifest(), rows, drop)
    print(write_tables(options.out))
    print(
        f"tables: {options.out}/table.md, table.csv, table.tex; every fold: {options.out}/probe.csv"
    )
