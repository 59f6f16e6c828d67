"""Crops and labels in files that open at once."""

import argparse
from pathlib import Path

from evaluate.commands import flags
from shards.command_line import at_least


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    data = command.add_argument_group("data")
    data.add_argument(
        "benchmark",
        metavar="NAME|DIR",
        help="nucls, pannuke, midog25, hest-bowel, hest-breast, hest-lung, xenium, puma, lizard, "
        "monusac, ocelot, consep, ami-br or folder, with --raw; or the publisher's folder, known "
        "by what lies in it",
    )
    data.add_argument("--raw", metavar="DIR", help="the publisher's folder")
    flags.path(data, "--out", "DIR", "the folder to write to; needed unless --try is given")
    data.add_argument(
        "--try",
        dest="tried",
        action="store_true",
        help="count and write nothing: nucls, pannuke, midog25 by each rule the paper may have "
        "used; puma, xenium what is there, which needs no image",
    )
    rules = command.add_argument_group(
        "what the paper leaves open",
        "Each benchmark takes some; its default is in `evaluate/benchmarks/` and in its notes.",
    )
    rules.add_argument(
        "--view", type=at_least(8), metavar="PX", help="side of a crop (default: 40)"
    )
    rules.add_argument("--mpp", type=float, help="scale of the publisher's images, µm/px")
    rules.add_argument("--window", help="side that must lie in the image: 60, or 60@0.2 (µm/px)")
    rules.add_argument(
        "--centre", "--center", choices=("box", "centroid"), help="of an outline: the crop's"
    )
    rules.add_argument("--duplicates", choices=("keep", "drop"), help="midog25 (default: keep)")
    what = "midog25: cut from MIDOG++'s cases (201.tiff, …); xenium: H&E"
    flags.path(rules, "--images", "DIR", what)
    rules.add_argument("--scanners", nargs="+", metavar="S", help="midog25: their rows alone")
    rules.add_argument(
        "--predicted",
        choices=("drop", "keep"),
        help="folder: QuPath's objects as a classifier said, unchanged (default: drop)",
    )
    rules.add_argument("--outline", choices=("nucleus", "cell"), help="hest: the centre's")
    rules.add_argument("--cells", type=at_least(1), help="hest: drawn per slide (default: 10000)")
    rules.add_argument("--genes", type=at_least(1), help="hest: most expressed ones (default: 50)")
    rules.add_argument("--quality", type=float, help="hest: least qv of a transcript (default: 20)")
    rules.add_argument("--slides", nargs="+", metavar="ID", help="hest: instead of the paper's")
    rules.add_argument("--seed", dest="draw", type=int, help="hest: of the draw (default: 0)")


def run(options: argparse.Namespace) -> None:
    """Write a benchmark's crops and labels, and compare its counts with the paper's."""
    from evaluate.benchmarks import paper
    from evaluate.benchmarks.prepared import save

    name, path = _named(options)
    if options.tried:
        return _try(name, path)
    if options.out is None:
        raise ValueError("--out is needed: the folder to write to")
    tasks = _load(name, path, options)
    save(tasks, options.out)
    for benchmark in tasks:
        counts = ", ".join(f"{label} {n:,}" for label, n in benchmark.counts().items())
        if benchmark.targets is not None:
            counts = f"{benchmark.targets.shape[1]} targets, "
            counts += f"{len(set(benchmark.groups.tolist()))} {benchmark.group_kind}s"
        where = options.out if len(tasks) == 1 else f"{options.out}:{_task(benchmark)}"
        print(f"{where}: {len(benchmark):,} nuclei ({counts})")
        if any(benchmark.left_out.values()):
            print(f"  {benchmark.used()}")
        for line in paper.compare(benchmark.name, benchmark.counts()):
            print(line)
    for note in tasks[0].notes:
        print(f"  {note}")
    return None


def _named(options: argparse.Namespace) -> tuple[str, Path]:
    """Return the benchmark's name and folder, of `NAME --raw DIR` or of `DIR`."""
    from evaluate.benchmarks.find import BENCHMARKS, find_name

    if options.raw is None:
        return find_name(options.benchmark), Path(options.benchmark)
    if options.benchmark not in BENCHMARKS:
        raise ValueError(f"no benchmark {options.benchmark!r}; there are {', '.join(BENCHMARKS)}")
    path = Path(options.raw)
    if not path.is_dir():
        raise FileNotFoundError(f"--raw {path}: no such folder")
    module = BENCHMARKS[options.benchmark]
    # A subset of HEST's slides need not hold all that the paper names.
    if not options.slides and not module.matches(path):
        raise ValueError(f"{path} is no {options.benchmark}; it should hold {module.LAYOUT}")
    return options.benchmark, path


def _load(name: str, path: Path, options: argparse.Namespace) -> list:
    """Load with the options that were given; the name tells a view other than 40 px."""
    import inspect
    from dataclasses import replace

    from evaluate.benchmarks.find import BENCHMARKS

    load = BENCHMARKS[name].load
    given = {
        "view_px": options.view,
        "mpp": options.mpp,
        "window": options.window,
        "centre": options.centre,
        "duplicates": options.duplicates,
        "images": options.images,
        "scanners": tuple(options.scanners) if options.scanners else None,
        "predicted": options.predicted,
        "outline": options.outline,
        "cells": options.cells,
        "genes": options.genes,
        "quality": options.quality,
        "slides": tuple(options.slides) if options.slides else None,
        "seed": options.draw,
    }
    given = {key: value for key, value in given.items() if value is not None}
    takes = [key for key in inspect.signature(load).parameters if key not in ("name", "path")]
    foreign = [key for key in given if key not in takes]
    if foreign:
        raise ValueError(
            f"{name} takes no --{foreign[0].removesuffix('_px')}; it takes "
            + ", ".join(f"--{key.removesuffix('_px')}" for key in takes)
        )
    tasks = load(path, **given)
    if options.view in (None, 40):
        return tasks
    suffix = f"-{options.view}px"
    if tasks[0].part_of is None:
        return [replace(tasks[0], name=tasks[0].name + suffix)]
    whole = replace(tasks[0].part_of, name=tasks[0].part_of.name + suffix)
    return [
        replace(task, name=f"{whole.name}-{_task(task)}", part_of=whole, rows=task.rows)
        for task in tasks
    ]


def _task(benchmark) -> str:
    return benchmark.name.removeprefix(f"{benchmark.part_of.name}-") if benchmark.part_of else ""


def _try(name: str, path: Path) -> None:
    """Print what is there; or how far from the paper's counts each rule leads, the nearest first.

    Then, for each of the paper's tables, the classes by the nearest rule.
    """
    from evaluate.benchmarks import paper
    from evaluate.benchmarks.find import BENCHMARKS

    module = BENCHMARKS[name]
    if hasattr(module, "held"):
        for line in module.held(path):
            print(line)
        return
    if not hasattr(module, "tried"):
        having = [n for n, m in BENCHMARKS.items() if hasattr(m, "tried") or hasattr(m, "held")]
        raise ValueError(f"{name} has nothing to try; {', '.join(having)} have")
    found = module.tried(path)
    sums = {
        rule: sum(paper.difference(task, counts) or 0 for task, counts in tasks.items())
        for rule, tasks in found.items()
    }
    nearest = sorted(sums, key=lambda rule: sums[rule])
    for rule in nearest:
        totals = ", ".join(f"{task} {sum(c.values()):,}" for task, c in found[rule].items())
        print(f"off by {sums[rule]:,} (sum over classes): {rule}: {totals}")
    by_task: dict[str, tuple[str, dict[str, int]]] = {}
    for rule in nearest:
        for task, counts in found[rule].items():
            by_task.setdefault(task, (rule, counts))
    for task, (rule, counts) in by_task.items():
        print(f"{task}: {rule}")
        for line in paper.compare(task, counts):
            print(line)
