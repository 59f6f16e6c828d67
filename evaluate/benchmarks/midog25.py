"""MIDOG 2025, track 2 (Weiss et al. 2025), training set: atypical (AMF) or normal mitosis (NMF)."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.columns import read_columns
from shards.crop import cut, inside

LAYOUT = "MIDOG25*.csv (image_id, filename, Scanner, majority, …) and the folder of its images"
CLASSES = ("NMF", "AMF")
EXPERTS = ("expert1", "expert2", "expert3")
# Neither table nor images say their scale, µm/px. Hamamatsu's is deduced: at 0.23 its 128-px
# patches are 118 px at 0.25, and leaving them out gives the paper's Table 8 exactly.
SCANNERS = {
    "3D Histech": 0.25,
    "Aperio CS2": 0.25,
    "Hamamatsu XR": 0.23,
    "Hamamatsu S360": 0.23,
}


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return bool(list(path.glob("MIDOG25*.csv")))


def load(
    path: Path, view_px: int = 40, mpp: float | None = None, duplicates: str = "keep"
) -> list[Benchmark]:
    """Cut the middle of every patch; labels are the column `majority`, groups the cases.

    The positive class is NMF: only with it the paper's AUPR of 0.94-0.98 fits a prevalence of
    0.85, and the publisher's notebook maps AMF to 0 and NMF to 1. In 49 rows `majority` is not
    the vote of the three experts; it is taken as it is. The paper's 11,939 are two rows more than
    MIDOG++ has mitotic figures, so duplicates are kept by default.

    Args:
        path: holds the table, and a folder of the patches that it names.
        view_px: side of a crop, px at 0.25 µm/px; patches that are smaller are dropped.
        mpp: scale of all patches, µm/px; None: by scanner. 0.25 cuts native pixels.
        duplicates: `keep` or `drop` rows that repeat an image.

    Raises:
        FileNotFoundError: a patch is absent.
        ValueError: a column is absent, a label or a scanner is foreign.
    """
    if duplicates not in ("keep", "drop"):
        raise ValueError(f"duplicates are to be kept or dropped, not {duplicates!r}")
    (file,) = sorted(path.glob("MIDOG25*.csv"))[:1]
    words = ("image_id", "filename", "Tumor", "Scanner", "Origin", "Species", "majority")
    table = read_columns(file, words, optional=EXPERTS)
    folder = _folder(path, file, table["image_id"][0])
    _, first = np.unique(table["image_id"], return_index=True)
    again = np.ones(len(table["image_id"]), bool)
    again[first] = False
    if duplicates == "drop":
        table = {name: column[~again] for name, column in table.items()}
    # The breast cases' scanner is misspelt by the publisher.
    scanners = np.char.replace(table["Scanner"], "Hamammatsu", "Hamamatsu")
    unknown = sorted(set(scanners.tolist()) - set(SCANNERS))
    if unknown and mpp is None:
        raise ValueError(
            f"{file}: unknown scanner {unknown[0]!r}; known are {', '.join(SCANNERS)}; give --mpp"
        )
    count = len(table["image_id"])
    crops = np.zeros((count, view_px, view_px, 3), np.uint8)
    whole, sizes = np.zeros(count, bool), Counter()
    for i, name in enumerate(table["image_id"].tolist()):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{file.name} names {name}, but {folder} has none")
        with Image.open(folder / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width = pixels.shape[:2]
        sizes[f"{width}x{height}"] += 1
        centre = np.array([((width - 1) / 2, (height - 1) / 2)])
        scale = mpp or SCANNERS[scanners[i]]
        if inside(centre, width, height, scale, view_px)[0]:
            crops[i], whole[i] = cut(pixels, centre, scale, view_px)[0], True
    notes = (
        f"{count} patches of {', '.join(f'{s} px ({n})' for s, n in sizes.most_common(3))}; "
        + (f"all at {mpp} µm/px" if mpp else "scale by scanner: 0.25, Hamamatsu's 0.23 µm/px"),
        f"{again.sum()} rows repeat an image: "
        + ("kept, as in the paper's count" if duplicates == "keep" else "dropped"),
        f"{(~whole).sum()} of {count} dropped: {view_px} px at 0.25 µm/px leave the patch",
        f"{_outvoted(table)} rows whose `majority` is not their experts' vote: taken as it is",
        f"{_black(crops[whole])} of {whole.sum()} kept with a black margin",
    )
    origins = {
        "slide": table["filename"],
        "scanner": scanners,
        "tumor": table["Tumor"],
        "origin": table["Origin"],
        "species": table["Species"],
    }
    origins = {kind: words[whole] for kind, words in origins.items()}
    return [
        Benchmark(
            name="midog25",
            crops=crops[whole],
            labels=table["majority"][whole],
            classes=CLASSES,
            groups=origins["slide"],
            group_kind="slide",
            positive="NMF",
            notes=notes,
            origins=origins,
        )
    ]


def _folder(path: Path, file: Path, first: str) -> Path:
    """Return the folder that holds the first image: beside the table, or one below."""
    for folder in (path, *sorted(p for p in path.iterdir() if p.is_dir())):
        for inner in (folder, folder / folder.name):  # unpacked into a folder of its own name
            if (inner / first).is_file():
                return inner
    raise FileNotFoundError(f"{file} names {first}, but neither {path} nor a folder in it has it")


def _outvoted(table: dict[str, np.ndarray]) -> int:
    votes = np.stack([table[expert] for expert in EXPERTS])  # (3, N)
    atypical, given = (votes == "AMF").sum(axis=0), (votes != "").sum(axis=0)
    vote = np.where(2 * atypical > given, "AMF", "NMF")
    return int(((vote != table["majority"]) & (given > 0) & (2 * atypical != given)).sum())


def _black(crops: np.ndarray) -> int:
    """Count crops with a whole black row or column: what lay beyond the image."""
    blank = crops.max(axis=3) == 0  # (N, view, view)
    return int((blank.all(axis=2).any(axis=1) | blank.all(axis=1).any(axis=1)).sum())
