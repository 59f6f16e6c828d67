"""Batch effects: slide, site or scanner predicted from embeddings."""

import argparse
from pathlib import Path

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoder(command)
    flags.source(command)
    group = command.add_argument_group("batch variables")
    what = "slide,scanner[,site,…]: where slides come from, in any words"
    flags.path(group, "--variables", "CSV", what)
    group.add_argument(
        "--within", metavar="VARIABLE", help="probe within class and this variable, say, project"
    )
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Write the table, the figure and every class's figures."""
    import numpy as np

    from evaluate.analyses.batch_effects import batch_variables, class_score, effects
    from evaluate.analyses.batch_report import save
    from evaluate.commands.inputs import open_encoders, samples_of, source_of
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders

    check_encoders(options.encoder)
    source, folder = source_of(options)
    samples = samples_of(source, folder, options.points, options.seed, view_px=40)
    more = read_variables(options.variables) if options.variables else None
    variables, slides = batch_variables(samples, more)
    strata = samples.labels
    if options.within:
        if options.within not in variables:
            raise ValueError(f"--within {options.within}: known are {', '.join(variables)}")
        strata = np.char.add(np.char.add(strata, " · "), variables.pop(options.within))
        strata = np.char.strip(strata, " ·")
    found, seed = {}, options.seed
    for encoder in open_encoders(options):
        keep = source == "benchmark" and encoder.cached
        embeddings = embed(encoder, samples, options.out, keep=keep)
        measured = [
            effect
            for variable, levels in variables.items()
            for effect in effects(
                embeddings, samples, variable, levels, slides, strata, encoder.components, seed
            )
        ]
        if not measured:
            raise ValueError(
                f"{samples.name}: no two levels of {', '.join(variables)} have enough cells and "
                "slides within a class"
            )
        score = None
        if len(samples.classes) > 1:
            score = class_score(embeddings, samples, slides, encoder.components, seed)
        found[encoder.name] = (score, measured)
    print(save(options.out, samples, found, options.within))


def read_variables(path: Path) -> dict[str, dict[str, str]]:
    """Read a table with the columns `slide` and others; return variable -> {slide: level}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no column `slide`, no other column, or a slide named twice.
    """
    from shards.table import read_table

    table = read_table(path, ["slide"], None)
    variables = [name for name in table.columns if name != "slide"]
    if not variables:
        raise ValueError(f"{path}: needed are slide,<variable>[,<variable>…], found only slide")
    slides, seen = table.words("slide"), set()
    for row, slide in enumerate(slides):
        if slide in seen:
            raise ValueError(f"{table.where(row)} names slide {slide!r} a second time")
        seen.add(slide)
    return {name: dict(zip(slides, table.words(name), strict=True)) for name in variables}
