"""A classifier of nuclei to keep, fitted on a benchmark's labels."""

import argparse

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command, several=False, needed=False)
    data = command.add_argument_group("data")
    data.add_argument(
        "--benchmark", required=True, metavar="DIR", help="a benchmark's folder; DIR:TASK a task"
    )
    data.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="GROUP",
        help="leave these slides, images or patients out, to apply the classifier to",
    )
    group = command.add_argument_group("run")
    flags.path(group, "--out", "DIR", "the classifier's folder", required=True)
    flags.path(group, "--work", "DIR", "of the embeddings (default: <out>.work)")
    flags.number(group, "--folds", 5, "of the cross-validation", low=3)
    flags.number(group, "--bootstrap", 1000, "resamples of intervals; 0: none", low=0)
    group.add_argument("--seed", type=int, default=0, help="of the folds and of `untrained`")


def run(options: argparse.Namespace) -> None:
    """Fit a classifier, write its folder, and say how good it is."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.classes.classifier import save
    from evaluate.classes.fit import fit, without
    from evaluate.classes.scores import lines
    from evaluate.commands.inputs import open_encoders, say_used
    from evaluate.embeddings import embed
    from evaluate.probes.assess import Settings
    from shards.progress import say_next

    benchmark = find_benchmark(options.benchmark)
    say_used([benchmark])
    rows = without(benchmark, options.without)
    (encoder,) = open_encoders(options)
    work = options.work or options.out.with_name(f"{options.out.name}.work")
    embeddings = embed(encoder, benchmark, work, keep=encoder.cached)
    if len(rows) < len(benchmark):
        benchmark, embeddings = benchmark.take(rows), embeddings[rows]
    settings = Settings(options.folds, options.seed, None, None, 0, options.bootstrap)
    classifier = fit(encoder, embeddings, benchmark, settings, options.out.resolve().name)
    save(classifier, options.out)
    for line in lines(classifier.facts):
        print(line)
    print(f"{options.out}: {len(benchmark):,} nuclei of {len(classifier.classes)} classes")
    apply = ["python", "evaluate/main.py", "apply", "cells/", "--encoder", options.encoder]
    say_next([*apply, "--classifier", options.out, "--out", "results/"])
