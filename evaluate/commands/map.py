"""A t-SNE drawn with the cells' images, and the same as an interactive page."""

import argparse
import os
from pathlib import Path

from evaluate.commands import flags
from shards.schema import VIEW_PX

THREADED = 20_000  # cells from which on t-SNE takes several threads


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command, several=False, needed=False)
    flags.source(command, points=5000)
    flags.values(command)
    flags.classifier(command)
    group = command.add_argument_group("map")
    group.add_argument("--slide", metavar="ID", help="of --cells or --shards: this slide's only")
    group.add_argument(
        "--html",
        nargs="?",
        const=True,
        metavar="FILE.html",
        help="write the interactive page too, beside the PNG or into this file",
    )
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Draw the map of a benchmark, of cells or of shards."""
    from evaluate.commands.inputs import check_markers, molecules_of, open_encoders
    from evaluate.embeddings import embed
    from evaluate.maps.map import draw, fit, project

    if isinstance(options.html, str) and not options.html.endswith(".html"):
        raise ValueError(f"--html {options.html}: the page's name ends in .html")
    if (options.values or options.markers) and not options.html:
        raise ValueError("--values and --markers colour the page: give --html")
    if options.slide and options.benchmark:
        raise ValueError("--slide chooses among the slides of --cells or --shards")
    classifier = flags.open_classifier(options)
    (encoder,) = open_encoders(options)
    if classifier:
        classifier.check_encoder(encoder)
        classifier.check_crops("a map's cells", VIEW_PX)
    samples, embeddings, keys = _chosen(encoder, options)
    molecules = molecules_of(options, samples)
    check_markers(options.markers, molecules)
    if embeddings is None:
        embeddings = embed(encoder, samples, options.out, keep=encoder.cached)
    if classifier:
        samples = _called(classifier, samples, embeddings, options.min_probability)
    name = f"{encoder.name}--{samples.name}" + (f"--{options.slide}" if options.slide else "")
    title = f"{encoder.name} · {options.slide or samples.name}"
    xy = fit(project(embeddings, options.seed, _jobs(len(samples))))
    path = options.out / "maps" / f"{name}.png"
    draw(xy, samples, title, path)
    print(path)
    if options.html:
        _page(options, path, xy, samples, embeddings, keys, title, molecules)


def _called(classifier, samples, embeddings, least: float):
    """Return the samples with the classes that a classifier gives them."""
    from dataclasses import replace

    from evaluate.classes.calls import call

    labels = call(classifier, embeddings, least).labels
    return replace(samples, labels=labels, classes=classifier.classes)


def _jobs(cells: int) -> int:
    """Return how many threads t-SNE takes: for few cells they wait for each other longer."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(given) if given.isdigit() else len(os.sched_getaffinity(0))
    return 1 if cells < THREADED else max(1, min(4, cores))


def _chosen(encoder, options: argparse.Namespace) -> tuple:
    """Return at most --points cells, their embeddings if those are known, and their keys."""
    import numpy as np

    from evaluate.benchmarks.find import find_benchmark
    from evaluate.commands.inputs import say_used
    from evaluate.embeddings import cached
    from evaluate.maps.page import Keys
    from evaluate.samples import from_cells, from_shards

    if not options.benchmark:
        read, source = (
            (from_cells, options.cells) if options.cells else (from_shards, options.shards)
        )
        samples = read(source, options.points, options.seed, 40, options.slide)
        return samples, None, Keys(samples.batch_variables["slide"], samples.nuclei)
    samples = find_benchmark(options.benchmark, 40)
    say_used([samples])
    embeddings, rows = cached(encoder, samples, options.out), np.arange(len(samples))
    kind = samples.group_kind or "group"
    if len(samples) > options.points:
        rng = np.random.default_rng(options.seed)
        rows = np.sort(rng.choice(len(samples), options.points, replace=False))
        samples = samples.take(rows)
        embeddings = embeddings if embeddings is None else embeddings[rows]
        if embeddings is None:  # some of a benchmark: not to be kept in place of the whole
            embeddings = encoder.embed(samples.crops)
    return samples, embeddings, Keys(samples.groups, rows, kind, "row")


def _page(options, path: Path, xy, samples, embeddings, keys, title: str, molecules) -> None:
    from evaluate.maps.colouring import columns_of, expression
    from evaluate.maps.page import write_page

    path = path.with_suffix(".html") if options.html is True else Path(options.html)
    subtitle = f"{len(xy):,} cells by what they look like to the encoder (t-SNE)"
    columns = columns_of(samples, embeddings, options.seed)
    if molecules:
        columns += expression(molecules, len(samples), options.markers)
    size = write_page(path, xy, samples.crops, columns, keys, title, subtitle)
    print(f"{path}: {len(xy):,} cells, {size / 1e6:.1f} MB")
