"""Linear probes on frozen embeddings."""

import argparse
import logging

from evaluate.commands import flags
from evaluate.commands.inputs import distinct_benchmarks, open_encoders
from shards.command_line import check_part

log = logging.getLogger(__name__)


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command, compiled=True)
    flags.benchmarks(command)
    group = command.add_argument_group("probe")
    flags.number(group, "--folds", 5, "of the cross-validation", low=2)
    group.add_argument(
        "--C",
        type=flags.strength,
        default=1.0,
        metavar="C",
        help="inverse L2 penalty of the logistic regression; `inner`: by an inner split, blocks of "
        "an embedding weighing alike",
    )
    group.add_argument(
        "--alpha",
        type=flags.strength,
        default=1.0,
        metavar="A",
        help="L2 penalty of the ridge regression; `inner`: by an inner split",
    )
    flags.number(group, "--knn", 20, "neighbours of the k-NN probe; 0: none", low=0)
    flags.number(group, "--bootstrap", 1000, "resamples; 0: none", low=0)
    group.add_argument(
        "--check", action="store_true", help="look at the flags and the encoders' names alone"
    )
    flags.run(command, parts=True, overwrite=True)


def run(options: argparse.Namespace) -> None:
    """Probe every encoder on every benchmark; write `probe.csv`, the tables, contact sheets."""
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders
    from evaluate.probes.assess import Settings, assess
    from evaluate.report.class_sheet import save_sheet
    from evaluate.results import benchmark_facts, check_comparable, is_done, store, write_views
    from evaluate.tables.detail import write_details
    from evaluate.tables.table import write_tables

    check_part(options)
    names = list(check_encoders(options.encoder))
    settings = Settings(
        options.folds, options.seed, options.C, options.alpha, options.knn, options.bootstrap
    )
    if options.check:
        return
    tasks = []
    for path, benchmark in distinct_benchmarks(options.benchmark):  # all is seen before any work
        facts = benchmark_facts(benchmark, path, settings.protocol(benchmark))
        splits, absent = settings.plan(benchmark)
        if absent:
            facts["grouped"] = absent
            log.info("%s: %s", benchmark.name, absent)
        if not options.overwrite:
            check_comparable(options.out, benchmark.name, facts, names)
        tasks.append((benchmark, facts, splits))
    for benchmark, _, _ in tasks:
        if benchmark.classes:
            path = options.out / "sheets" / f"benchmark--{benchmark.name}.png"
            save_sheet(benchmark, path, options.seed)
    # Tasks that share their nuclei share embeddings, so they are one unit of an array's work.
    units: dict[tuple[str, int], list] = {}
    for name in names:
        for task in tasks:
            units.setdefault((name, id(task[0].part_of or task[0])), []).append(task)
    mine = list(units.items())[options.part :: options.parts]
    for encoder in open_encoders(options, {name for (name, _), _ in mine}):
        for benchmark, facts, splits in (
            task for (name, _), own in mine if name == encoder.name for task in own
        ):
            title = f"{encoder.name} on {benchmark.name}"
            if not options.overwrite and is_done(
                options.out, benchmark.name, facts, encoder.name, encoder.manifest()
            ):
                log.info("%s: done before, skipped (--overwrite probes anew)", title)
                continue
            embeddings = embed(encoder, benchmark, options.out, options.overwrite, encoder.cached)
            rows, details = assess(
                embeddings, benchmark, splits, settings, encoder.components, title,
                encoder.blocks(embeddings.shape[1]),
            )  # fmt: skip
            store(
                options.out, benchmark.name, facts, encoder.name, encoder.manifest(), rows,
                options.overwrite, details,
            )  # fmt: skip
    write_views(options.out)
    print(write_tables(options.out))
    write_details(options.out)
    print(
        f"tables: {options.out}/table.md, table.csv, table.tex; intervals, calibration, classes: "
        f"{options.out}/tables/; every fold: {options.out}/probe.csv"
    )
