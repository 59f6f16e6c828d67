"""Paint the demo's slides: some to train on, some held out with every nucleus' kind known.

python demo/main.py --out demo-data/
python demo/main.py --out demo-data/ --slides 6 --held-out 2 --size 2560 --seed 0
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import csv
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from demo.paint import SMALLEST_PX, paint, write_slide
from demo.stain import PROJECTS
from shards.command_line import program_parser
from shards.crop import inside
from shards.progress import Bar, say_next
from shards.schema import CROP_PX, MPP
from shards.write import atomic

BENCHMARK = "painted-nuclei"  # folder of the held-out slides, which gives the benchmark its name
MOST = 9_999  # slides of either sort: their numbers have four digits, their seeds must not meet


def main() -> int:
    """Run the command line; return 0, or 2 where the arguments cannot be used."""
    parser = program_parser("demo/main.py", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--slides", type=int, default=6, help="slides to train on")
    parser.add_argument("--held-out", type=int, default=2, help="further slides, for the benchmark")
    parser.add_argument("--size", type=int, default=2560, help="side of a slide, px")
    parser.add_argument("--seed", type=int, default=0, help="of everything painted")
    arguments = parser.parse_args()
    out, size, seed = arguments.out, arguments.size, arguments.seed
    if not 1 <= arguments.slides <= MOST or not 0 <= arguments.held_out <= MOST:
        parser.error(f"--slides must be 1 to {MOST} and --held-out 0 to {MOST}")
    if size < SMALLEST_PX:
        parser.error(f"--size {size} is too small; it must be {SMALLEST_PX} px or more")
    if seed < 0:
        parser.error(f"--seed {seed} must not be negative")
    try:
        for name in ("slides", BENCHMARK, "truth"):
            (out / name).mkdir(parents=True, exist_ok=True)
        _check_settings(out, {"size": size, "seed": seed})
    except (OSError, ValueError) as error:
        parser.error(f"--out {out} cannot be used: {error}")

    projects = list(PROJECTS)
    training = [(f"PAINTED-{n:04d}", n) for n in range(1, arguments.slides + 1)]
    held_out = [(f"HELDOUT-{n:04d}", n + MOST) for n in range(1, arguments.held_out + 1)]
    style = {slide: projects[(n - 1) % len(projects)] for slide, n in training}
    style |= {slide: projects[(n - 1 - MOST) % len(projects)] for slide, n in held_out}
    truth, benchmark = [], []
    for slide, number in Bar(training + held_out, "paint", "slides"):
        # The number, not the place in the list, makes the seed: more slides leave the rest alone.
        own = seed * 2 * (MOST + 1) + number
        kept_back = number > MOST
        path = out / (BENCHMARK if kept_back else "slides") / f"{slide}.tiff"
        nuclei = _finish(path, out / "truth" / f"{slide}.csv", size, own, style[slide])
        truth += [(slide, *nucleus) for nucleus in nuclei]
        if kept_back:
            xy = np.array([nucleus[:2] for nucleus in nuclei], np.float64)
            whole = inside(xy, size, size, MPP, CROP_PX)
            benchmark += [
                (path.name, *nucleus, slide)
                for nucleus, keep in zip(nuclei, whole, strict=True)
                if keep
            ]
    _write_rows(out / "truth.csv", "slide_id,x,y,kind", truth)
    _write_rows(out / BENCHMARK / "cells.csv", "image,x,y,label,group", benchmark)
    rows = [(slide, f"slides/{slide}.tiff", style[slide]) for slide, _ in training]
    _write_rows(out / "slides.csv", "slide_id,path,project", rows)
    print(
        f"{out}: {len(training)} slides to train on and {len(held_out)} held out, "
        f"{len(truth)} nuclei, {len(benchmark)} of them in {BENCHMARK}/cells.csv"
    )
    say_next(["python", "extract/main.py", out / "slides.csv", "--out", "cells/"])
    return 0


def _check_settings(out: Path, settings: dict) -> None:
    """Refuse a folder painted otherwise: its slides would be taken for finished ones."""
    path = out / "settings.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != settings:
            raise ValueError(
                f"it holds slides painted with {found}, not {settings}; "
                "give the same settings, or another folder"
            )
    else:
        with atomic(path, "w") as file:
            json.dump(settings, file)


def _finish(path: Path, truth: Path, size: int, seed: int, project: str) -> list[tuple]:
    """Paint a slide unless it is there; return its nuclei as (x, y, kind).

    `truth` is the commit mark: it is written after the slide.
    """
    if not (truth.exists() and path.exists()):
        rgb, nuclei = paint(size, size, seed, project)
        write_slide(path, rgb, MPP)
        rows = ((f"{n['x']:.2f}", f"{n['y']:.2f}", n["kind"]) for n in nuclei)
        _write_rows(truth, "x,y,kind", rows)
    with open(truth, newline="") as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


def _write_rows(path: Path, header: str, rows: Iterable[tuple]) -> None:
    """Write a CSV file, whole or not at all."""
    with atomic(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
