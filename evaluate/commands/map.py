"""A t-SNE drawn with the cells' images."""

import argparse

from evaluate.commands import flags
from evaluate.commands.inputs import samples_of


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument("--encoder", required=True, metavar="E")
    command.add_argument(
        "--points", type=flags.at_least(8), default=5000, help="cells at most (5000)"
    )
    flags.source(command)
    flags.network(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Draw the map of a benchmark, of cells or of shards."""
    import numpy as np

    from evaluate.embed import cached
    from evaluate.encoders import open_encoders
    from evaluate.map import draw, project

    (encoder,) = open_encoders([options.encoder], options.seed, options.batch, options.precision)
    kind, samples = samples_of(options, options.points, view_px=40)
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
