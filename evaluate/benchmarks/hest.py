"""HEST (Jaume et al. 2024): expression of 50 genes in cells of Xenium slides, a regression.

Not from `st/*.h5ad`: for Xenium those hold bins of 100 µm, not cells.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, vstack

from evaluate.benchmark import Benchmark
from evaluate.benchmarks import transcripts
from evaluate.benchmarks.expression import Slide, build
from shards.filetype import check_file
from shards.folder import visible
from shards.scale import check_mpp
from shards.table import read_table

LAYOUT = "wsis/, transcripts/, xenium_seg/ and metadata/, with the slides of one organ"
SLIDES = {  # paper, A.1
    "hest-bowel": ("TENX149", "TENX148", "TENX147", "TENX139", "TENX111"),
    "hest-breast": ("NCBI783", "NCBI785", "TENX94", "TENX95", "TENX98"),
    "hest-lung": tuple(
        "NCBI856 NCBI857 NCBI858 NCBI859 NCBI860 NCBI861 NCBI864 NCBI865 NCBI866 NCBI867 "
        "NCBI870 NCBI873 NCBI875 NCBI876 NCBI879 NCBI880 NCBI881 NCBI882 NCBI883 NCBI884".split()
    ),
}
OUTLINES = {"nucleus": "xenium_nucleus_seg", "cell": "xenium_cell_seg"}


class Organ:
    """One of the three benchmarks, with a module's `matches` and `load`."""

    LAYOUT = LAYOUT

    def __init__(self, name: str):
        self.name = name
        self.load = partial(load, name)

    def matches(self, path: Path) -> bool:
        """Tell whether a folder holds this benchmark's slides."""
        ids = SLIDES[self.name]
        return (path / "transcripts").is_dir() and all(_transcripts(path, i).is_file() for i in ids)


def load(
    name: str,
    path: Path,
    view_px: int = 40,
    mpp: float | None = None,
    outline: str = "nucleus",
    cells: int = 10_000,
    genes: int = 50,
    quality: float = 20.0,
    slides: tuple[str, ...] = (),
    seed: int = 0,
) -> list[Benchmark]:
    """Cut random cells of each slide and count their transcripts of the genes most expressed.

    Paper, A.1: per slide the mean expression per gene is ranked; ranks are combined and the 50
    highest kept; 10,000 cells a slide are drawn uniformly. Paper leaves open: how ranks are
    combined, what becomes of genes that are not on every slide's panel, of cells without
    transcripts, and the centre and scale of crops. Here: the mean of the ranks (ties by name) over
    all segmented cells, genes common to all slides, cells without transcripts stay with zeros,
    the centroid of the nucleus' outline, crops resampled to 0.25 µm/px.

    Args:
        name: one of SLIDES.
        mpp: of all slides, µm/px; None: each one's `pixel_size_um_estimated` (`_embedded` is
            wrong for some). 0.25 cuts native pixels.
        outline: whose centroid is the centre, `nucleus` or `cell`; cells without one are dropped.
        quality: least qv of a transcript.
        slides: ids instead of the paper's.

    Returns:
        One benchmark with `targets`, transcripts as counted; batch variables slide and patient.

    Raises:
        FileNotFoundError: a slide's file is absent.
        ValueError: a file is not as published, or the slides share too few genes.
    """
    if outline not in OUTLINES:
        raise ValueError(f"an outline of {outline!r}; there are {', '.join(OUTLINES)}")
    ids = slides or SLIDES[name]
    facts = {i: _facts(path, i, mpp) for i in ids}
    found = (_slide(path, i, outline, quality, *facts[i]) for i in ids)
    return [build(name, found, view_px, cells, genes, seed)]


def _slide(path: Path, slide: str, outline: str, quality: float, mpp: float, patient: str) -> Slide:
    """Return a slide with its outlined cells."""
    ids, xy, smaller, bare = transcripts.centres(
        _file(path / "xenium_seg", f"{slide}_{OUTLINES[outline]}.parquet")
    )
    file = _file(path / "transcripts", _transcripts(path, slide).name)
    found, panel, matrix, notes = transcripts.count(file, quality)
    place = np.searchsorted(found, ids).clip(max=len(found) - 1)
    counted = found[place] == ids
    if not counted.any():
        raise ValueError(
            f"{slide}: no cell_id of the transcripts ({found[0]}, …) is one of the outlines "
            f"({ids[0]}, …)"
        )
    # A row of zeros at the end stands for the cells without a transcript.
    blank = csr_array((1, len(panel)), dtype=matrix.dtype)
    matrix = csr_array(vstack([matrix, blank], format="csr"))
    rows = np.where(counted, place, len(found))
    said = [
        *notes,
        f"{len(ids)} cells with a {outline} outline, {(~counted).sum()} of them without "
        f"transcripts, {smaller} smaller outlines passed over; "
        f"{len(found) - counted.sum()} cells with transcripts have none: dropped",
    ]
    if bare:
        said.append(f"{bare} outlines passed over that are empty or no polygons")
    image = _file(path / "wsis", f"{slide}.tif")
    return Slide(slide, image, mpp, xy, panel, matrix[rows], tuple(said), {"patient": patient})


def _facts(path: Path, slide: str, mpp: float | None) -> tuple[float, str]:
    """Return a slide's scale, if not given, and patient: of its metadata or HEST's table."""
    file = path / "metadata" / f"{slide}.json"
    if file.is_file():
        check_file(file)
        try:
            row = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON: {error}") from error
    else:
        row = _sample(path, slide)
    try:
        scale = float(mpp or row["pixel_size_um_estimated"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{slide}: no pixel_size_um_estimated ({error!r}); give --mpp") from error
    by = "--mpp" if mpp else "pixel_size_um_estimated"
    check_mpp(scale, f"{slide} (by {by})", "give the true one as --mpp")
    patient = row.get("patient")
    known = isinstance(patient, str | int) and str(patient).strip() not in ("", "nan", "None")
    return scale, str(patient).strip() if known else f"unknown ({slide})"


def _sample(path: Path, slide: str) -> dict:
    for file in visible(path.glob("**/HEST_v*.csv"))[::-1]:
        table = read_table(file, ["id"], ["pixel_size_um_estimated", "patient"], say_unknown=False)
        ids = table.words("id")
        if slide in ids:
            return {name: table.words(name)[ids.index(slide)] for name in table.columns}
    raise FileNotFoundError(f"neither {path}/metadata/{slide}.json nor a row of HEST_v*.csv")


def _transcripts(path: Path, slide: str) -> Path:
    return path / "transcripts" / f"{slide}_transcripts.parquet"


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise FileNotFoundError(f"HEST's {name} is not in {folder}")
    check_file(folder / name)
    return folder / name


BENCHMARKS = {name: Organ(name) for name in SLIDES}
