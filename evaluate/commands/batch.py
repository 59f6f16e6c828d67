"""Batch effects: how well slide, site or scanner are told from embeddings."""

import argparse
from pathlib import Path

from evaluate.commands import flags


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.encoders(command)
    flags.source(command)
    command.add_argument(
        "--origins",
        type=Path,
        metavar="CSV",
        help="slide,scanner[,site,…]: where slides come from, in any words",
    )
    command.add_argument(
        "--within", metavar="KIND", help="tell origins apart within class and, say, project"
    )
    flags.points(command)
    flags.network(command)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Write the table, the figure and every class's figures."""
    import numpy as np

    from evaluate.analyses.batch_effects import class_score, effects, origins_of
    from evaluate.analyses.batch_report import save
    from evaluate.commands.inputs import samples_of
    from evaluate.embeddings import embed
    from evaluate.encoders import check_encoders, open_encoders

    check_encoders(options.encoder)
    kind_of_source, samples = samples_of(options, options.points, view_px=40)
    kinds, slides = origins_of(samples, read_origins(options.origins) if options.origins else None)
    strata = samples.labels
    if options.within:
        if options.within not in kinds:
            raise ValueError(f"--within {options.within}: known are {', '.join(kinds)}")
        strata = np.char.add(np.char.add(strata, " · "), kinds.pop(options.within))
        strata = np.char.strip(strata, " ·")
    found = {}
    for encoder in open_encoders(options.encoder, options.seed, options.batch, options.precision):
        keep = kind_of_source == "benchmark" and encoder.cached
        vectors = embed(encoder, samples, options.out, keep=keep)
        measured = [
            effect
            for kind, origins in kinds.items()
            for effect in effects(
                vectors, samples, kind, origins, slides, strata, encoder.components, options.seed
            )
        ]
        if not measured:
            raise ValueError(
                f"{samples.name}: no two origins ({', '.join(kinds)}) have enough cells and slides "
                "within a class"
            )
        score = None
        if len(samples.classes) > 1:
            score = class_score(vectors, samples, slides, encoder.components, options.seed)
        found[encoder.name] = (score, measured)
    print(save(options.out, samples, found, options.within))


def read_origins(path: Path) -> dict[str, dict[str, str]]:
    """Read a table with the columns `slide` and others; return kind -> {slide: origin}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no column `slide`, no other column, or a slide named twice.
    """
    from shards.table import read_table

    table = read_table(path, ["slide"], None)
    kinds = [name for name in table.columns if name != "slide"]
    if not kinds:
        raise ValueError(f"{path}: needed are slide,<kind>[,<kind>…], found only slide")
    slides, seen = table.words("slide"), set()
    for row, slide in enumerate(slides):
        if slide in seen:
            raise ValueError(f"{table.where(row)} names slide {slide!r} a second time")
        seen.add(slide)
    return {kind: dict(zip(slides, table.words(kind), strict=True)) for kind in kinds}
