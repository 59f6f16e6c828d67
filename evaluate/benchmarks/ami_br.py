"""AMi-Br (Bertram et al. 2025): mitotic figures at 40X, atypical (AMF) or normal (NMF)."""

from pathlib import Path

import numpy as np
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.columns import read_columns
from shards.crop import cut
from shards.schema import MPP

LAYOUT = "crops/*.png, labels.csv (file, majority, slide)"
CLASSES = ("AMF", "NMF")


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return (path / "labels.csv").is_file() and (path / "crops").is_dir()


def load(path: Path, view_px: int = 40) -> list[Benchmark]:
    """Cut the middle of every crop; labels are the experts' majority, groups the slides.

    The positive class is NMF: with it the paper's MIDOG25 AUPR of 0.94-0.98 fits a prevalence of
    0.85, and the publisher's notebook maps AMF to 0 and NMF to 1.

    Args:
        path: crops/ at 0.25 µm/px with the mitotic figure in the middle, and labels.csv.
        view_px: side of a window, px at 0.25 µm/px.

    Raises:
        FileNotFoundError: a crop is absent.
        ValueError: a column is absent, a label is foreign, or a crop is too small.
    """
    table = read_columns(path / "labels.csv", ("file", "majority", "slide"))
    crops = np.empty((len(table["file"]), view_px, view_px, 3), np.uint8)
    for i, name in enumerate(table["file"].tolist()):
        if not (path / "crops" / name).is_file():
            raise FileNotFoundError(f"labels.csv names {name}, but {path / 'crops'} has none")
        with Image.open(path / "crops" / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        if min(pixels.shape[:2]) < view_px:
            raise ValueError(f"{path / 'crops' / name} is {pixels.shape[:2]} px, under {view_px}")
        centre = ((pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2)
        crops[i] = cut(pixels, np.array([centre]), MPP, view_px)[0]
    blank = crops.max(axis=3) == 0  # (N, view, view): the publisher fills beyond the image with 0
    black = blank.all(axis=2).any(axis=1) | blank.all(axis=1).any(axis=1)
    return [
        Benchmark(
            name="ami-br",
            crops=crops,
            labels=table["majority"],
            classes=CLASSES,
            groups=table["slide"],
            group_kind="slide",
            positive="NMF",
            notes=(
                f"{black.sum()} of {len(crops)} nuclei kept with a black margin: "
                f"the publisher filled what lies beyond the image",
            ),
            origins={"slide": table["slide"]},
        )
    ]
