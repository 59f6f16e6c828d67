"""The names of a slide, and what a file's name says of whose it is.

A name never belongs to a slide because it begins like it: P07_2.json is not P07's. What programs
are known to add is taken off first (ENDINGS, SUFFIXES).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from extract.slides import SUFFIXES as SLIDES
from extract.slides import Entry

# project-site-participant-sample-portion-slide, as in TCGA-06-0129-01Z-00-DX1, and a UUID or not
BARCODE = re.compile(r"(TCGA-\w{2}-\w{4}-\d{2}[A-Z]-\d{2}-[A-Z]{2}\w)(?:\.[^.]*)?", re.IGNORECASE)

# What programs add to a slide's name: CellViT, HEST, Xenium, HistoQC, QuPath's scripts, and people.
ENDINGS = (
    "_cells",
    "_cell_detection",
    "_cellvit_seg",
    "_xenium_nucleus_seg",
    "_xenium_cell_seg",
    "_nucleus_boundaries",
    "_nuclei",
    "_nuclei_seg",
    "_detections",
    "_measurements",
    "_segmentation",
    "_seg",
    "_mask_use",
    "_mask",
)
SUFFIXES = (
    *SLIDES,
    *(".vsi", ".czi", ".lif", ".nd2", ".qptiff", ".zarr", ".dcm", ".ome"),  # QuPath reads them
    *(".json", ".geojson", ".gz", ".zip", ".snappy", ".csv", ".tsv", ".txt", ".parquet"),
    *(".geoparquet", ".png", ".jpg", ".jpeg", ".bmp", ".webp"),
)


def names_of(entry: Entry) -> set[str]:
    """Return the full names of a slide: its id, its file's with and without suffix, its barcode."""
    names = [entry.slide, entry.path.name, entry.path.stem]
    return {*names, *barcodes(names)}


def barcodes(names: Iterable[str]) -> list[str]:
    """Return the TCGA slide barcodes that names consist of, in upper case."""
    return [found[1].upper() for found in map(BARCODE.fullmatch, names) if found]


def stripped(name: str, known: Sequence[str] = (*SUFFIXES, *ENDINGS)) -> Iterator[str]:
    """Yield a name, and what is left of it as known suffixes and endings are taken off."""
    while True:
        yield name
        lower = name.lower()
        ending = next((e for e in known if lower.endswith(e) and len(name) > len(e)), None)
        if ending is None:
            return
        name = name[: -len(ending)]


def belongs(name: str, entry: Entry) -> bool:
    """Tell whether an image's name in a table is a slide's; it may be a path of another system.

    QuPath names one image of a file that holds several `P07.vsi - 20x_01`.
    """
    name = re.split(r"[/\\]", name.strip())[-1]
    file = name.split(" - ")[0]
    found = list(stripped(name, SUFFIXES))
    if file != name and file.lower().endswith(SUFFIXES):
        found += stripped(file, SUFFIXES)
    return not names_of(entry).isdisjoint([*found, *barcodes(found)])
