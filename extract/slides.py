"""Which slides to extract: a folder, a CSV, or one slide."""

import csv
from dataclasses import dataclass
from pathlib import Path

from shards.schema import check_slide_id

SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide")


@dataclass(frozen=True)
class Entry:
    """A slide to extract."""

    slide: str  # id: names its files and keys
    path: Path
    project: str | None = None  # e.g. TCGA-BRCA
    mpp: float | None = None  # µm/px at level 0; None: what the slide says


def list_slides(source: Path, mpp: float | None = None) -> list[Entry]:
    """List the slides of a folder (searched in depth), a CSV, or one slide, sorted by id.

    Args:
        source: a folder; a CSV with the columns path and, optionally, slide_id, project, mpp
            (paths relative to the CSV's folder); or a slide.
        mpp: µm/px for the slides to which the CSV gives none.

    Raises:
        FileNotFoundError: no such path, no slides in it, or a listed slide is absent.
        ValueError: a CSV without a path column, an id that cannot be used, an id twice.
    """
    if not source.exists():
        raise FileNotFoundError(f"no such folder, CSV or slide: {source}")
    if source.is_dir():
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise FileNotFoundError(f"no slides ({' '.join(SUFFIXES)}) in {source}")
        entries = [Entry(_default_id(path), path, mpp=mpp) for path in paths]
    elif source.suffix.lower() == ".csv":
        entries = _read_csv(source, mpp)
    else:
        entries = [Entry(_default_id(source), source, mpp=mpp)]
    seen: dict[str, Path] = {}
    for entry in entries:
        check_slide_id(entry.slide)
        if entry.slide in seen:
            raise ValueError(
                f"two slides have the id {entry.slide}: {seen[entry.slide]} and {entry.path}; "
                "give each its own in the slide_id column of a CSV"
            )
        seen[entry.slide] = entry.path
    return sorted(entries, key=lambda e: e.slide)


def _default_id(path: Path) -> str:
    """Return the file's name up to its first period."""
    return path.name.split(".")[0]


def _read_csv(source: Path, mpp: float | None) -> list[Entry]:
    """Read a CSV of slides."""
    with open(source, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "path" not in (reader.fieldnames or []):
            raise ValueError(
                f"{source} has no path column (it has {', '.join(reader.fieldnames or ['none'])}); "
                "needed: path; optional: slide_id, project, mpp"
            )
        rows = list(reader)
    if not rows:
        raise FileNotFoundError(f"{source} lists no slides")
    entries = []
    for number, row in enumerate(rows, start=2):
        path = source.parent / row["path"]
        if not path.exists():
            raise FileNotFoundError(
                f"{source}, line {number}: no slide {path} (paths count from the CSV's folder)"
            )
        given = row.get("mpp") or mpp
        try:
            scale = float(given) if given else None
        except ValueError as error:
            raise ValueError(f"{source}, line {number}: mpp {given!r} is no number") from error
        slide = row.get("slide_id") or _default_id(path)
        entries.append(Entry(slide, path, row.get("project") or None, scale))
    return entries
