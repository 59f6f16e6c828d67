"""Which files of a folder are slides, and what is to be said of the rest."""

import os
from collections import Counter
from pathlib import Path

from shards.folder import list_folder

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")
KINDS = 8  # of other files, that are named


def find_scans(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the slides in a folder and those below it, behind links too.

    Returns:
        The paths, links to slides that are not there among them; and, a sentence a kind, what was
        passed over.
    """
    found = list_folder(folder)
    scans = [p for p in found.files + found.dangling if p.suffix.lower() in SUFFIXES]
    once = _once(scans)
    remarks = found.remarks()
    if len(once) < len(scans):
        remarks.append(f"{len(scans) - len(once)} slides are there twice by links, taken once")
    return once, remarks + _others(found.files)


def _once(paths: list[Path]) -> list[Path]:
    """Return a slide once where several links of one name lead to it."""
    names = Counter(path.name for path in paths)
    real: dict[tuple[str, str], Path] = {}
    for path in paths:
        target = str(path) if names[path.name] == 1 else os.path.realpath(path)
        real.setdefault((path.name, target), path)
    return list(real.values())


def _others(files: list[Path]) -> list[str]:
    """Say which files are no slides by their names: unfinished downloads, and the rest by kind."""
    data = {p.with_suffix("") for p in files if p.suffix.lower() == ".mrxs"}  # folders of their own
    others = [p for p in files if p.suffix.lower() not in SUFFIXES and data.isdisjoint(p.parents)]
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
