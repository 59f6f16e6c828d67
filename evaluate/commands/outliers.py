"""The cells of a cohort that are least like any other: a contact sheet and a table."""

import argparse
from collections import Counter

from evaluate.commands import flags

SLIDES = 3  # that are named


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    flags.cohort(command.add_argument_group("data"))
    group = command.add_argument_group("neighbours")
    flags.number(group, "--count", 96, "cells to show")
    flags.number(group, "-k", 10, "a cell's distance is to its N-th nearest")
    group.add_argument(
        "--other-slides",
        action="store_true",
        help="compare with other slides' cells alone: what one slide alone has is far, too",
    )
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Find the farthest cells, write a table and a sheet."""
    from evaluate.analyses.cohort import crops_of, open_parts
    from evaluate.analyses.outliers import outliers
    from evaluate.report.class_sheet import headed
    from evaluate.report.figures import save_picture, save_table

    parts = open_parts(options.folder, options.cells)
    far = outliers(parts, options.count, options.k, options.other_slides)
    keys = list(zip(far.slides, far.nuclei, strict=True))
    name = f"outliers--{options.folder.name}"
    rows = [
        [place + 1, slide, nucleus, f"{distance:.4f}"]
        for place, ((slide, nucleus), distance) in enumerate(zip(keys, far.distances, strict=True))
    ]
    total = sum(len(part.embeddings) for part in parts)
    whose = "nearest cell of another slide" if options.other_slides else "nearest other"
    caption = f"Of {total:,} cells of {options.folder.name}, by the distance to the {options.k}-th "
    caption += f"{whose}: Euclidean, of standardised embeddings, over the root of their width."
    facts = {"section": "Outliers", "command": "outliers"}
    header = ["rank", "slide", "nucleus", "distance"]
    print(save_table(options.out, name, header, rows, title="", caption=caption, **facts))
    heading = f"farthest first  ·  {far.distances[0]:.3g} to {far.distances[-1]:.3g}"
    picture = headed([(heading, crops_of(keys, options.cells, options.shards))])
    print(save_picture(options.out, name, picture, title="Least alike", caption=caption, **facts))
    slides = Counter(far.slides)
    most = ", ".join(f"{slide} {number}" for slide, number in slides.most_common(SLIDES))
    print(f"{len(keys)} of {total:,} cells, of {len(slides)} slides; most are of {most}")
