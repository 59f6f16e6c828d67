"""Moran's I of transcripts on the embedding's neighbours, and maps of their expression."""

import argparse

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command)
    flags.source(command)
    flags.values(command)
    group = command.add_argument_group("Moran's I")
    group.add_argument("--slide", metavar="ID", help="take one slide alone, as in the paper")
    flags.number(group, "--neighbours", 15, "of a cell")
    flags.number(group, "--permutations", 999, "for p-values")
    flags.number(group, "--drawn", 5000, "cells on the maps", low=8)
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Write a table of Moran's I and, per encoder, the maps."""
    import numpy as np

    from evaluate.analyses.batch_effects import batch_variables
    from evaluate.analyses.molecules import from_crops
    from evaluate.analyses.molecules_report import save, save_maps
    from evaluate.analyses.moran import graph, morans_i
    from evaluate.commands.inputs import (
        check_markers,
        molecules_of,
        open_encoders,
        samples_of,
        source_of,
    )
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders

    check_encoders(options.encoder)
    source, folder = source_of(options)
    samples = samples_of(source, folder, options.points, options.seed, view_px=40)
    slides = samples.batch_variables.get("slide")
    if slides is None:
        slides = batch_variables(samples)[1]
    if options.slide:
        rows = np.flatnonzero(slides == options.slide)
        if not len(rows):
            raise ValueError(f"--slide {options.slide}: known are {sorted(set(slides))[:5]} …")
        samples, slides = samples.take(rows), slides[rows]
    molecules = molecules_of(options, samples) or from_crops(samples)
    check_markers(options.markers, molecules)
    within = slides[molecules.rows]
    # A slide of a few cells has no graph; its cells are left out.
    names, counts = np.unique(within, return_counts=True)
    kept = np.isin(within, names[counts > options.neighbours])
    if not kept.any():
        raise ValueError(f"no slide has more than {options.neighbours} cells; take --neighbours 5")
    rows, within, values = molecules.rows[kept], within[kept], molecules.values[kept]
    found = {}
    for encoder in open_encoders(options):
        keep = source == "benchmark" and encoder.cached and not options.slide
        embeddings = embed(encoder, samples, options.out, keep=keep)[rows]
        weights = graph(embeddings, within, options.neighbours)
        moran = morans_i(weights, values, within, options.permutations, options.seed)
        found[encoder.name] = moran
        if encoder.cached:  # a t-SNE of raw pixels says little
            save_maps(
                options.out, encoder.name, embeddings, samples.take(rows), molecules, values, moran,
                options.markers, options.drawn, options.seed,
            )  # fmt: skip
    print(save(options.out, samples, molecules, found, within, options.neighbours))
