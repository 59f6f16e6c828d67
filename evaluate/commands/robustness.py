"""Robustness to staining: embeddings and probe under six other stains."""

import argparse

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command)
    flags.source(command, several=True)
    group = command.add_argument_group("stains")
    whose = "images or slides whose stains are taken (default: six of TCGA, stored)"
    flags.paths(group, "--reference", "FILE", whose)
    flags.number(group, "--neighbours", 100, "whose overlap counts")
    flags.number(group, "--folds", 5, "of the probe", low=2)
    flags.run(command, overwrite=True)


def run(options: argparse.Namespace) -> None:
    """Restain benchmarks or cells, embed them with every encoder, write tables and figures."""
    import numpy as np

    from evaluate.analyses.batch_effects import batch_variables
    from evaluate.analyses.reference_stains import stains_of, tcga_stains
    from evaluate.analyses.robustness import restained, shifted_probe, slide_stains, stability
    from evaluate.analyses.robustness_report import save
    from evaluate.commands.inputs import (
        distinct_benchmarks,
        open_encoders,
        samples_of,
        source_of,
    )
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders
    from evaluate.probes.probe import folds

    check_encoders(options.encoder)
    targets = stains_of(options.reference) if options.reference else tcga_stains()
    if options.benchmark:
        every = [samples for _, samples in distinct_benchmarks(options.benchmark)]
    else:
        every = [samples_of(*source_of(options), options.points, options.seed, view_px=40)]
    for samples in every:
        if len(samples) <= options.neighbours:
            raise ValueError(
                f"{samples.name} has {len(samples)} nuclei; take fewer than "
                f"{options.neighbours} --neighbours"
            )
        try:
            slides = batch_variables(samples)[1]
        except ValueError:  # of one slide
            slides = np.full(len(samples), samples.name)
        sources, ill_posed = slide_stains(samples, slides)
        changed = [restained(samples, slides, sources, *target) for target in targets.items()]
        labelled = np.flatnonzero(samples.labels != "")
        probed = samples.take(labelled) if len(samples.classes) > 1 else None
        tests = folds(probed, "stratified", options.folds, options.seed) if probed else []
        moved, accuracies = {}, {}
        for encoder in open_encoders(options):
            keep = bool(options.benchmark) and encoder.cached
            original = embed(encoder, samples, options.out, options.overwrite, keep)
            moved[encoder.name], conditions = {}, {"original": original[labelled]}
            for name, other in zip(targets, changed, strict=True):
                embeddings = embed(encoder, other, options.out, options.overwrite, keep)
                moved[encoder.name][name] = stability(original, embeddings, options.neighbours)
                conditions[name] = embeddings[labelled]
            if probed:
                accuracies[encoder.name] = shifted_probe(
                    original[labelled], conditions, probed, tests, encoder.components, options.seed
                )
        text = save(
            options.out, samples, changed, list(targets), moved, accuracies, options.neighbours,
            ill_posed, len(sources), bool(options.reference), options.seed,
        )  # fmt: skip
        print(text)
