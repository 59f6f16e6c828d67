"""The cells of a cohort that are most like given ones: a contact sheet and a table."""

import argparse

from evaluate.commands import flags


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    data = command.add_argument_group("data")
    data.add_argument(
        "--cell", nargs="+", required=True, metavar="SLIDE:NUCLEUS", help="as in the cells' keys"
    )
    flags.cohort(data)
    group = command.add_argument_group("neighbours")
    flags.number(group, "-k", 24, "cells to show for each")
    group.add_argument(
        "--other-slides", action="store_true", help="leave out those of the cell's own slide"
    )
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Find the nearest cells, write a table and a sheet."""
    from evaluate.analyses.cohort import crops_of, open_parts
    from evaluate.analyses.similar import read_cell, similar
    from evaluate.report.class_sheet import headed
    from evaluate.report.figures import save_picture, save_table

    wanted = [read_cell(word) for word in options.cell]
    parts = open_parts(options.folder, options.cells)
    found = similar(parts, wanted, options.k, options.other_slides)
    name = f"similar--{options.folder.name}"
    rows, blocks = [], []
    for (slide, nucleus), near in zip(wanted, found, strict=True):
        listed = list(zip(near.slides, near.nuclei, near.distances, strict=True))
        rows += [
            [f"{slide}:{nucleus}", place + 1, s, n, f"{d:.4f}"]
            for place, (s, n, d) in enumerate(listed)
        ]
        shown = [(slide, nucleus), *((s, n) for s, n, _ in listed)]
        crops = crops_of(shown, options.cells, options.shards)
        others = len(set(near.slides) - {slide})
        blocks.append((f"{slide}:{nucleus}  ·  itself, then its {options.k} nearest", crops))
        print(
            f"{slide}:{nucleus}: nearest {near.slides[0]}:{near.nuclei[0]}; "
            f"{others} other slides among its {options.k} nearest"
        )
    facts = {"section": "Similar cells", "command": "similar"}
    total = sum(len(part.embeddings) for part in parts)
    caption = f"Of {total:,} cells of {options.folder.name}, by Euclidean distance of standardised "
    caption += "embeddings over the root of their width; exact."
    header = ["cell", "rank", "slide", "nucleus", "distance"]
    print(save_table(options.out, name, header, rows, title="", caption=caption, **facts))
    picture = headed(blocks)
    print(save_picture(options.out, name, picture, title="Most alike", caption=caption, **facts))
