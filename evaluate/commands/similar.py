"""The cells of a cohort that are most like given ones: a contact sheet and a table."""

import argparse
from pathlib import Path

from evaluate.commands import flags


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    data = command.add_argument_group("data")
    data.add_argument(
        "--cell", nargs="+", required=True, metavar="SLIDE:NUCLEUS", help="as in the cells' keys"
    )
    data.add_argument(
        "--in",
        dest="folder",
        type=Path,
        required=True,
        metavar="DIR",
        help="an encoder's embeddings: results/embeddings/NAME, of `embed`, `apply` or `slide`",
    )
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--cells", type=Path, metavar="DIR", help="whose slides they are of")
    source.add_argument("--shards", type=Path, metavar="DIR", help="likewise, embedded by `embed`")
    group = command.add_argument_group("neighbours")
    group.add_argument("-k", type=flags.at_least(1), default=24, help="cells to show for each")
    group.add_argument(
        "--other-slides", action="store_true", help="leave out those of the cell's own slide"
    )
    flags.run(command)


def run(options: argparse.Namespace) -> None:
    """Find the nearest cells, write a table and a sheet."""
    from evaluate.analyses.similar import open_parts, read_cell, similar
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
        crops = _crops(options, [(slide, nucleus), *((s, n) for s, n, _ in listed)])
        others = len(set(near.slides) - {slide})
        blocks.append((f"{slide}:{nucleus}  ·  itself, then its {options.k} nearest", crops))
        print(f"{slide}:{nucleus}: nearest {near.slides[0]}:{near.nuclei[0]}, of {others} others")
    facts = {"section": "Similar cells", "command": "similar"}
    total = sum(len(part.embeddings) for part in parts)
    caption = f"Of {total:,} cells of {options.folder.name}, by Euclidean distance of standardised "
    caption += "embeddings over the root of their width; exact."
    header = ["cell", "rank", "slide", "nucleus", "distance"]
    print(save_table(options.out, name, header, rows, title="", caption=caption, **facts))
    picture = headed(blocks)
    print(save_picture(options.out, name, picture, title="Most alike", caption=caption, **facts))


def _crops(options: argparse.Namespace, keys: list[tuple[str, int]]):
    """Return the crops of cells, (N, 40, 40, 3) uint8."""
    import numpy as np

    from evaluate.slides.extraction import find, open_nuclei
    from shards.read import Shards
    from shards.schema import VIEW_PX

    crops = []
    if options.cells:
        opened = {slide: open_nuclei(options.cells, find(options.cells, slide))
                  for slide in dict.fromkeys(slide for slide, _ in keys)}  # fmt: skip
        for slide, nucleus in keys:
            rows = np.flatnonzero(opened[slide].table["nucleus"].to_numpy() == nucleus)
            crops.append(opened[slide].crops(rows, VIEW_PX)[0])
        return np.stack(crops)
    shards = Shards(options.shards)
    numbers = shards.index["nucleus"].to_numpy()
    for slide, nucleus in keys:
        rows = np.flatnonzero(numbers == nucleus)
        rows = [r for r in rows.tolist() if shards.index["slide"][r].as_py() == slide]
        if not rows:
            raise ValueError(f"{options.shards} holds no cell {slide}:{nucleus}")
        crops.append(shards.read(np.array(rows[:1]))[0].transpose(1, 2, 0))
    stack = np.stack(crops)
    margin = (stack.shape[1] - VIEW_PX) // 2
    return stack[:, margin : margin + VIEW_PX, margin : margin + VIEW_PX]
