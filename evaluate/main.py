"""Evaluate encoders: embeddings, probe tables, maps of cells, a report.

    python evaluate/main.py probe --encoder pixels morphology untrained runs/first \\
        --benchmark ../shared/data/consep ../shared/data/ami-br --out results/
    python evaluate/main.py embed --encoder runs/first --benchmark my/cells/ --out results/
    python evaluate/main.py map --encoder runs/first --benchmark my/cells/ --out results/
    python evaluate/main.py map --encoder runs/first --shards shards/ --out results/ --points 20000
    python evaluate/main.py sheet --shards shards/ --out results/
    python evaluate/main.py report results/ --out report.html
    python evaluate/main.py prepare ../shared/data/consep --out benchmarks/consep

An encoder is a run's folder, its encoder/ folder, NAME=PATH, or a baseline: pixels, morphology,
untrained (the first run's architecture, else a ViT-Ti/8). A benchmark is a folder: CoNSeP, AMi-Br
or your own with a cells.csv (image,x,y,label[,group][,mpp]).

Exit status: 0 all done; 1 a computation failed; 2 the command or its input cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import time
from pathlib import Path

SHEET_CROPS = 4000  # sampled for a contact sheet, so that rare classes show


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    form = argparse.RawDescriptionHelpFormatter
    main = argparse.ArgumentParser(
        prog="evaluate/main.py", description=__doc__, formatter_class=form
    )
    commands = main.add_subparsers(dest="command", required=True)
    probe = commands.add_parser("probe", help="logistic regression on frozen embeddings")
    embed = commands.add_parser("embed", help="write embeddings and their manifests")
    for command in (probe, embed):
        command.add_argument("--encoder", nargs="+", required=True, metavar="E")
        command.add_argument("--benchmark", nargs="+", required=True, metavar="DIR")
    probe.add_argument("--folds", type=_at_least(2), default=5)
    mapping = commands.add_parser("map", help="a t-SNE drawn with the cells' images")
    mapping.add_argument("--encoder", required=True, metavar="E")
    mapping.add_argument("--points", type=_at_least(8), default=5000, help="cells at most (5000)")
    sheet = commands.add_parser("sheet", help="a contact sheet of cells")
    for command in (mapping, sheet):
        source = command.add_mutually_exclusive_group(required=True)
        source.add_argument("--benchmark", metavar="DIR")
        source.add_argument("--cells", metavar="DIR", help="a folder that extract/main.py wrote")
        source.add_argument("--shards", metavar="DIR", help="a folder that shards/main.py wrote")
    for command in (probe, embed, mapping):
        command.add_argument("--batch", type=_at_least(1), default=256, help="crops at once (256)")
        command.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    for command in (probe, embed):
        command.add_argument("--overwrite", action="store_true", help="drop what is there")
    for command in (probe, embed, mapping, sheet):
        command.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="results folder"
        )
        command.add_argument("--seed", type=int, default=0)
    prepare = commands.add_parser("prepare", help="crops and labels in files that open at once")
    prepare.add_argument("benchmark", metavar="DIR")
    prepare.add_argument("--out", type=Path, required=True, metavar="DIR")
    report = commands.add_parser("report", help="one self-contained HTML file")
    report.add_argument("results", type=Path)
    report.add_argument("--out", type=Path, required=True, metavar="FILE.html")
    report.add_argument("--extra", type=Path, nargs="+", default=[], metavar="FILE.png")
    report.add_argument("--cells", metavar="DIR", help="add a contact sheet of extracted cells")
    report.add_argument("--shards", metavar="DIR", help="add one of what was trained on")
    report.add_argument("--title", default="LEMON: what the encoder learnt")
    return main


def _at_least(low: int):
    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    number.__name__ = f"integer of {low} or more"
    return number


def run_probe(options: argparse.Namespace) -> None:
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
    for path, benchmark in _benchmarks(options.benchmark):  # all input is seen before any work
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


def run_embed(options: argparse.Namespace) -> None:
    """Write the embeddings of every encoder on every benchmark."""
    from evaluate.embed import embed
    from evaluate.encoders import open_encoders

    benchmarks = [benchmark for _, benchmark in _benchmarks(options.benchmark)]
    for encoder in open_encoders(options.encoder, options.seed, options.batch, options.precision):
        for benchmark in benchmarks:
            vectors = embed(encoder, benchmark, options.out, options.overwrite)
            path = options.out / "embeddings" / encoder.name / f"{benchmark.name}.npy"
            print(f"{path}: {vectors.shape[0]:,} x {vectors.shape[1]} float32")


def run_map(options: argparse.Namespace) -> None:
    """Draw the map of a benchmark, of cells or of shards."""
    import numpy as np

    from evaluate.embed import cached
    from evaluate.encoders import open_encoders
    from evaluate.map import draw, project

    (encoder,) = open_encoders([options.encoder], options.seed, options.batch, options.precision)
    kind, samples = _samples(options, options.points, view_px=40)
    vectors = cached(encoder, samples, options.out) if kind == "benchmark" else None
    if len(samples) > options.points:
        rng = np.random.default_rng(options.seed)
        rows = np.sort(rng.choice(len(samples), options.points, replace=False))
        samples = samples.take(rows)
        vectors = vectors if vectors is None else vectors[rows]
    vectors = encoder.embed(samples.crops) if vectors is None else vectors
    path = options.out / "maps" / f"{encoder.name}--{samples.name}.png"
    draw(project(vectors, options.seed), samples, f"{encoder.name} · {samples.name}", path)
    print(path)


def run_sheet(options: argparse.Namespace) -> None:
    """Draw a contact sheet of a benchmark, of cells or of shards."""
    from evaluate.sheet import save_sheet

    side = 40 if options.benchmark else 60  # what encoders see; what is stored
    kind, samples = _samples(options, SHEET_CROPS, side)
    path = options.out / "sheets" / f"{kind}--{samples.name}.png"
    save_sheet(samples, path, options.seed, whole=kind == "benchmark")
    print(path)


def run_prepare(options: argparse.Namespace) -> None:
    """Write a benchmark's crops and labels, for the trainer's online probe."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.benchmarks.prepared import save

    benchmark = find_benchmark(options.benchmark)
    save(benchmark, options.out)
    counts = ", ".join(f"{name} {count:,}" for name, count in benchmark.counts().items())
    print(f"{options.out}: {len(benchmark):,} nuclei ({counts})")
    for note in benchmark.notes:
        print(f"  {note}")


def run_report(options: argparse.Namespace) -> None:
    """Write the report, after drawing the contact sheets that were asked for."""
    from evaluate.report import write_report

    for kind in ("cells", "shards"):
        if getattr(options, kind):
            one = {"benchmark": None, "cells": None, "shards": None, "seed": 0}
            one |= {kind: getattr(options, kind), "out": options.results}
            run_sheet(argparse.Namespace(**one))
    write_report(options.results, options.out, options.extra, options.title)
    print(options.out)


def _benchmarks(paths: list[str]) -> list:
    """Return (path, Benchmark) pairs of distinct names."""
    from evaluate.benchmarks.find import find_benchmark

    pairs = [(path, find_benchmark(path)) for path in paths]
    names = [benchmark.name for _, benchmark in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two benchmarks are named {name!r}; rename a folder")
    return pairs


def _samples(options: argparse.Namespace, count: int, view_px: int) -> tuple:
    """Return the kind of source that was given and what it holds."""
    from evaluate.benchmarks.find import find_benchmark
    from evaluate.samples import from_cells, from_shards

    if options.benchmark:
        return "benchmark", find_benchmark(options.benchmark, view_px)
    kind, read = ("cells", from_cells) if options.cells else ("shards", from_shards)
    return kind, read(getattr(options, kind), count, options.seed, view_px)


COMMANDS = {
    "probe": run_probe,
    "embed": run_embed,
    "map": run_map,
    "sheet": run_sheet,
    "prepare": run_prepare,
    "report": run_report,
}


def main(argv: list[str]) -> int:
    """Run a command and return the exit status."""
    options = parser().parse_args(argv)
    start = time.perf_counter()
    try:
        COMMANDS[options.command](options)
        if options.command not in ("prepare", "report"):
            from evaluate.results import record

            record(options.out, argv, time.perf_counter() - start)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
