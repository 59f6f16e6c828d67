"""Moran's I of transcripts on the embedding's neighbours, and maps of their expression."""

import argparse

from evaluate.commands import flags


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoders(command)
    flags.source(command)
    flags.values(command)
    command.add_argument("--origin", metavar="ID", help="take one slide alone, as in the paper")
    command.add_argument("--neighbours", type=flags.at_least(1), default=15, metavar="K")
    command.add_argument("--permutations", type=flags.at_least(1), default=999)
    flags.points(command)
    command.add_argument(
        "--drawn", type=flags.at_least(8), default=5000, help="cells on the maps (5000)"
    )
    flags.network(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Write a table of Moran's I and, per encoder, the maps."""
    import numpy as np

    from evaluate.analyses.batch_effects import origins_of
    from evaluate.analyses.molecules_report import save, save_maps
    from evaluate.analyses.moran import graph, morans_i
    from evaluate.commands.inputs import molecules_of, samples_of
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders, open_encoders

    check_encoders(options.encoder)
    source, samples = samples_of(options, options.points, view_px=40)
    slides = samples.origins.get("slide")
    if slides is None:
        slides = origins_of(samples)[1]
    if options.origin:
        rows = np.flatnonzero(slides == options.origin)
        if not len(rows):
            raise ValueError(f"--origin {options.origin}: known are {sorted(set(slides))[:5]} …")
        samples, slides = samples.take(rows), slides[rows]
    molecules = molecules_of(options, samples, measured=True)
    within = slides[molecules.rows]
    # A slide of a few cells has no graph; its cells are left out.
    names, counts = np.unique(within, return_counts=True)
    kept = np.isin(within, names[counts > options.neighbours])
    if not kept.any():
        raise ValueError(f"no slide has more than {options.neighbours} cells; take --neighbours 5")
    rows, within, values = molecules.rows[kept], within[kept], molecules.values[kept]
    found = {}
    for encoder in open_encoders(options.encoder, options.seed, options.batch, options.precision):
        keep = source == "benchmark" and encoder.cached and not options.origin
        vectors = embed(encoder, samples, options.out, keep=keep)[rows]
        weights = graph(vectors, within, options.neighbours)
        moran = morans_i(weights, values, within, options.permutations, options.seed)
        found[encoder.name] = moran
        if encoder.cached:  # a t-SNE of raw pixels says little
            save_maps(
                options.out, encoder.name, vectors, samples.take(rows), molecules, values, moran,
                options.markers, options.drawn, options.seed,
            )  # fmt: skip
    print(save(options.out, samples, molecules, found, within, options.neighbours))
