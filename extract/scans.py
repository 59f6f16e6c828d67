"""Which files of a folder are slides, and what is to be said of the rest.

Scanners' formats, TIFFs and DICOM are slides. Plain images are slides in a folder that holds
nothing else: beside slides they are thumbnails, masks and labels. What has one channel by its head
is a mask or a label image, and no slide.
"""

import os
from collections import Counter
from pathlib import Path

from shards.folder import list_folder, named
from shards.scans import dicom
from shards.scans.head import is_mask
from shards.scans.image import SUFFIXES as IMAGES

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
ALL = (*SUFFIXES, dicom.SUFFIX, *IMAGES)
TIFFS = (".tif", ".tiff")
SMALL = 32 << 20  # bytes up to which the head of a TIFF is looked at: label images are small
KINDS = 8  # of other files, that are named


def find_scans(folder: Path) -> tuple[dict[Path, str | None], list[str]]:
    """Find the slides in a folder and those below it, behind links too.

    Returns:
        The paths, links to slides that are not there among them, of DICOM the file of level 0,
        each with the id that a DICOM slide has; and, a sentence a kind, what was passed over.
    """
    found = list_folder(folder)
    files = found.files + found.dangling
    scans = [p for p in files if p.suffix.lower() in SUFFIXES]
    series, others = dicom.find_series(p for p in files if p.suffix.lower() == dicom.SUFFIX)
    taken = (*SUFFIXES, dicom.SUFFIX)
    images = [p for p in files if p.suffix.lower() in IMAGES]
    if not scans and not series:
        scans, taken = images, ALL
    masks = [p for p in scans if _may_be_mask(p) and is_mask(p)]
    scans = sorted(set(scans).difference(masks))
    once = _once(scans)
    remarks = found.remarks()
    if len(once) < len(scans):
        remarks.append(f"{len(scans) - len(once)} slides are there twice by links, taken once")
    if masks:
        remarks.append(
            f"{named(masks, 'image')} of one channel or a few colours left out, as masks or labels"
        )
    if others:
        remarks.append(f"{named(others, 'DICOM file')} that hold no slide left out")
    remarks += _others(found.files, taken)
    if taken is not ALL and images:
        remarks.append(
            "PNG, JPEG and the like are taken for slides only where they are alone; a CSV names any"
        )
    slides: dict[Path, str | None] = dict.fromkeys(once)
    slides |= {one.volume: one.slide for one in series}
    return dict(sorted(slides.items())), remarks


def _may_be_mask(path: Path) -> bool:
    """Tell whether a file may be a mask by its kind and size; scanners' formats are not opened."""
    suffix = path.suffix.lower()
    if suffix in TIFFS:
        return path.exists() and path.stat().st_size <= SMALL
    return suffix in IMAGES and path.exists()


def _once(paths: list[Path]) -> list[Path]:
    """Return a slide once where several links of one name lead to it."""
    names = Counter(path.name for path in paths)
    real: dict[tuple[str, str], Path] = {}
    for path in paths:
        target = str(path) if names[path.name] == 1 else os.path.realpath(path)
        real.setdefault((path.name, target), path)
    return list(real.values())


def _others(files: list[Path], taken: tuple[str, ...]) -> list[str]:
    """Say which files are no slides by their names: unfinished downloads, and the rest by kind."""
    data = {p.with_suffix("") for p in files if p.suffix.lower() == ".mrxs"}  # folders of their own
    others = [p for p in files if p.suffix.lower() not in taken and data.isdisjoint(p.parents)]
    partial = sum(p.suffix == ".partial" for p in others)
    rest = [p for p in others if p.suffix != ".partial"]
    said = []
    if partial:
        said.append(f"{partial} unfinished downloads (*.partial) left out")
    if rest:
        kinds = Counter(p.suffix.lower() or "without ending" for p in rest)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(KINDS))
        more = ", …" if len(kinds) > KINDS else ""
        said.append(
            f"{len(rest)} files that are no slides by their names left out ({counts}{more}; the "
            f"first {rest[0].name})"
        )
    return said
