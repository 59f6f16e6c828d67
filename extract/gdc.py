"""What the Genomic Data Commons says of slides: manifest, sample sheet, TCGA's names."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.table import Table, read_table

MANIFEST_COLUMNS = ("id", "filename", "md5", "size")
SHEET_COLUMNS = ("File ID", "File Name", "Project ID", "Case ID")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# TCGA-<site>-<participant>-<sample><vial>-<portion>-<slide>: TS, BS and MS are frozen sections
# (top, bottom, middle) cut beside the piece that was sequenced, DX is the FFPE diagnostic slide.
FROZEN = re.compile(r"TCGA-\w\w-\w{4}-\d\d[A-Z]?-\d\d-[TBM]S", re.IGNORECASE)
PROJECT = re.compile(r"[A-Z]\w*\.?\w*(-[\w.]+)+", re.IGNORECASE)  # TCGA-BRCA, CPTAC-3
MD5 = re.compile("[0-9a-f]{32}", re.IGNORECASE)
CASE = re.compile(r"TCGA-\w\w-\w{4}(?=[-.]|$)", re.IGNORECASE)


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A line of a manifest."""

    id: str  # UUID
    name: str
    md5: str | None
    size: int | None  # bytes


@dataclass(frozen=True)
class Sample:
    """What a sample sheet says of a file."""

    project: str | None  # e.g. TCGA-BRCA
    case: str | None  # the patient, e.g. TCGA-A7-A13E


def is_frozen(name: str) -> bool:
    """Tell by its TCGA name whether a slide is a frozen section."""
    return FROZEN.match(name) is not None


def case_of(name: str) -> str | None:
    """Return the patient that a TCGA file name tells, else None."""
    found = CASE.match(name)
    return found[0].upper() if found else None


def read_manifest(path: Path) -> list[File]:
    """Read a GDC manifest: `id filename md5 size state`, separated by tabs.

    Raises:
        ValueError: a column is missing, an id is no UUID, a name is a path, a size no number.
    """
    table = read_table(path, MANIFEST_COLUMNS, say_unknown=False, kind="GDC manifest")
    files = []
    for row, (id, name, md5, size) in enumerate(_rows(table, MANIFEST_COLUMNS)):
        if not UUID.fullmatch(id):
            raise ValueError(f"{table.where(row)}: id {id!r} is no UUID")
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"{table.where(row)}: {name!r} is no plain file name")
        if size and not size.isdecimal():
            raise ValueError(f"{table.where(row)}: size {size!r} is no number of bytes")
        if md5 and not MD5.fullmatch(md5):
            raise ValueError(f"{table.where(row)}: md5 {md5!r} is no MD5 (32 digits, 0-9 and a-f)")
        files.append(File(id, name, md5 or None, int(size) if size else None))
    once = list(dict.fromkeys(files))
    if len(once) < len(files):  # several manifests in one
        log.warning("%s: %d rows repeat another, taken once", path, len(files) - len(once))
    return once


def find(file: File, root: Path) -> Path:
    """Return where a file of a manifest is, or would be: `root/<id>/<name>` as gdc-client has it.

    Slides laid flat in `root` are found as well.
    """
    flat = root / file.name
    nested = root / file.id / file.name
    return flat if flat.is_file() and not nested.exists() else nested


def read_sheet(path: Path) -> dict[str, Sample]:
    """Read a GDC sample sheet; a file is found under its id and under its name.

    A cell that names one value several times ("TCGA-A7-A13E, TCGA-A7-A13E") counts once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a column is missing; a project is none; a case is not the one in the file's
            name; a file is there twice, with other values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no sample sheet {path}")
    table = read_table(path, SHEET_COLUMNS, say_unknown=False, kind="GDC sample sheet")
    samples: dict[str, Sample] = {}
    for row, (id, name, project, case) in enumerate(_rows(table, SHEET_COLUMNS)):
        sample = Sample(_distinct(project), _distinct(case))
        for word in (sample.project or "").split(", "):
            if word and (CASE.match(word) or not PROJECT.fullmatch(word)):
                raise ValueError(
                    f"{table.where(row)}: Project ID {word!r} is no project, as TCGA-BRCA is one; "
                    "are the columns shifted? Download the sample sheet again"
                )
        own, cases = case_of(name), (sample.case or "").upper().split(", ")
        if own and sample.case and own not in cases:
            raise ValueError(
                f"{table.where(row)}: Case ID is {sample.case!r}, but the file is named {name}; "
                "are the columns shifted? Download the sample sheet again"
            )
        for known in filter(None, (id, name)):
            if samples.setdefault(known, sample) != sample:
                raise ValueError(
                    f"{table.where(row)}: {known} is there a second time, as {sample.project}, "
                    f"{sample.case}; before as {samples[known].project}, {samples[known].case}"
                )
    return samples


def _distinct(cell: str) -> str | None:
    parts = (part.strip() for part in re.split("[,;|]", cell))
    return ", ".join(dict.fromkeys(filter(None, parts))) or None


def _rows(table: Table, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return zip(*(table.words(name) for name in columns), strict=True)
