"""AMi-Br (Bertram et al. 2025): mitotic figures at 40X, atypical (AMF) or normal (NMF)."""

import hashlib
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import find_twins, no_class
from evaluate.benchmarks.columns import read_columns
from evaluate.benchmarks.picture import black_margins, read_pixels, strays
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

    Raises:
        FileNotFoundError: a crop is absent.
        ValueError: a column is absent, a label is foreign, or a crop is too small.
    """
    table = read_columns(
        path / "labels.csv", ("file", "majority", "slide"), as_written=("majority",)
    )
    labels, none = no_class(table["majority"])
    rows = np.flatnonzero(labels != "")
    files, labels, slides = table["file"][rows], labels[rows], table["slide"][rows]
    if (slides == "").any():
        raise ValueError(
            f"{path / 'labels.csv'}: {(slides == '').sum()} rows have no slide, the first of "
            f"{files[slides == ''][0]}; the folds need to know which crops are of one slide"
        )
    crops = np.empty((len(rows), view_px, view_px, 3), np.uint8)
    seen: dict[str, str] = {}
    first = []  # (N,) the first name of each crop
    for i, name in enumerate(files.tolist()):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(
                f"labels.csv names {name}, which leads out of {path / 'crops'}; names of files in "
                "it are wanted"
            )
        if not (path / "crops" / name).is_file():
            raise FileNotFoundError(f"labels.csv names {name}, but {path / 'crops'} has none")
        pixels = read_pixels(path / "crops" / name, "labels.csv")
        if min(pixels.shape[:2]) < view_px:
            raise ValueError(f"{path / 'crops' / name} is {pixels.shape[:2]} px, under {view_px}")
        centre = ((pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2)
        crops[i] = cut(pixels, np.array([centre]), MPP, view_px)[0]
        first.append(seen.setdefault(hashlib.sha256(pixels.tobytes()).hexdigest(), name))
    twins, said = find_twins("labels.csv", np.array(first), np.zeros((len(rows), 2)), labels)
    if none:
        said.append(f"{none.total()} of {len(table['file'])} rows passed over: no label")
    return [
        Benchmark(
            name="ami-br",
            crops=crops,
            labels=labels,
            classes=CLASSES,
            groups=slides,
            group_kind="slide",
            positive="NMF",
            notes=(
                f"{black_margins(crops)} of {len(crops)} nuclei kept with a black margin: "
                f"the publisher filled what lies beyond the image",
                *said,
                *strays(path / "crops" / name for name in set(table["file"].tolist())),
            ),
            batch_variables={"slide": slides},
            left_out={"without a label": none.total()},
            twins=twins,
        )
    ]
