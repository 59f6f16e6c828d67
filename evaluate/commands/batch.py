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
    """Read a CSV whose first column is the slide; return kind -> {slide: origin}.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no column `slide` in front, no other column, or a slide named twice.
    """
    import csv

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    if len(header) < 2 or header[0] != "slide":
        raise ValueError(f"{path}: the first line must be slide,<kind>[,<kind>…], found {header}")
    slides = [row[0] for row in rows]
    twice = [slide for slide in slides if slides.count(slide) > 1]
    if twice:
        raise ValueError(f"{path} names slide {twice[0]!r} twice")
    return {
        kind: {row[0]: row[i] for row in rows if len(row) > i} for i, kind in enumerate(header) if i
    }
