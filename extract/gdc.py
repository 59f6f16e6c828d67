"""What the Genomic Data Commons says of slides: manifest, sample sheet, TCGA's names."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

MANIFEST_COLUMNS = ("id", "filename", "md5", "size")
SHEET_COLUMNS = ("File ID", "File Name", "Project ID", "Case ID")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# TCGA-<site>-<participant>-<sample><vial>-<portion>-<slide>: TS, BS and MS are frozen sections
# (top, bottom, middle) cut beside the piece that was sequenced, DX is the FFPE diagnostic slide.
FROZEN = re.compile(r"TCGA-\w\w-\w{4}-\d\d[A-Z]?-\d\d-[TBM]S", re.IGNORECASE)
CASE = re.compile(r"TCGA-\w\w-\w{4}(?=[-.]|$)", re.IGNORECASE)


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


def is_manifest(path: Path) -> bool:
    """Tell whether a text file begins like a GDC manifest."""
    with open(path, "rb") as file:
        return file.readline(1000).lstrip(b"\xef\xbb\xbf").startswith(b"id\tfilename\t")


def read_manifest(path: Path) -> list[File]:
    """Read a GDC manifest: `id filename md5 size state`, separated by tabs.

    Raises:
        ValueError: a column is missing, an id is no UUID, a name is a path, a size no number.
    """
    files = []
    for number, row in _rows(path, MANIFEST_COLUMNS, "GDC manifest"):
        name, size = row["filename"], row["size"]
        if not UUID.fullmatch(row["id"]):
            raise ValueError(f"{path}, line {number}: id {row['id']!r} is no UUID")
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"{path}, line {number}: {name!r} is no plain file name")
        if size and not size.isdecimal():
            raise ValueError(f"{path}, line {number}: size {size!r} is no number of bytes")
        files.append(File(row["id"], name, row["md5"] or None, int(size) if size else None))
    return files


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
        ValueError: a column is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no sample sheet {path}")
    samples = {}
    for _, row in _rows(path, SHEET_COLUMNS, "GDC sample sheet"):
        sample = Sample(_distinct(row["Project ID"]), _distinct(row["Case ID"]))
        samples[row["File ID"]] = samples[row["File Name"]] = sample
    return samples


def _distinct(cell: str) -> str | None:
    return (
        ", ".join(dict.fromkeys(part.strip() for part in cell.split(",") if part.strip())) or None
    )


def _rows(path: Path, columns: tuple[str, ...], kind: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a file of tab-separated values with their line numbers.

    Raises:
        ValueError: a column is missing, or a row is cut short.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [c for c in columns if c not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(
                f"{path} is no {kind}: it has no column {', '.join(missing)} "
                f"(tab-separated, it has {', '.join(reader.fieldnames or ['none'])})"
            )
        rows = [(reader.line_num, row) for row in reader]
    for number, row in rows:
        if any(row[c] is None for c in columns):
            raise ValueError(f"{path}, line {number} ends early; download the {kind} again")
    return rows
