"""Which slides to extract: a folder, a CSV, a GDC manifest, or one slide or image."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from extract import gdc
from extract.scans import ALL, SUFFIXES, find_scans
from shards.errors import dead_link
from shards.filetype import check_file, describe
from shards.location import located, refuse_url
from shards.scans.dicom import SUFFIX as DICOM
from shards.scans.dicom import find_series, volume_of
from shards.schema import check_slide_id
from shards.table import read_header, read_table
from shards.text import read_text

# Excel's and packed ones cannot be read, and are named as such.
LISTS = (".csv", ".tsv", ".tab", ".txt", ".lst", ".xlsx", ".xls", ".gz", ".zip")
COLUMNS = ("path", "slide_id", "project", "mpp", "case", "size", "md5")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A slide to extract."""

    slide: str  # id: names its files and keys
    path: Path
    project: str | None = None  # e.g. TCGA-BRCA
    mpp: float | None = None  # µm/px at level 0; None: what the slide says
    case: str | None = None  # the patient
    size: int | None = None  # bytes the file must have; None: not known
    md5: str | None = None  # that it must have; None: not to be checked
    nuclei: Path | str | None = None  # its segmentation, or why it has none; None: not looked for
    mask: Path | str | None = None  # likewise, where nuclei are sought
    said: str = field(default="", compare=False)  # file and line that name it; '': its path


def list_slides(
    source: Path,
    mpp: float | None = None,
    slides_root: Path | None = None,
    sample_sheet: Path | None = None,
    frozen: bool = False,
    verify_md5: bool = False,
) -> list[Entry]:
    """List the slides of a folder (in depth, behind links too), a CSV, a GDC manifest, or a slide.

    The list is sorted by id, so that it is cut into the same parts whatever the order on disk. A
    slide that a CSV or manifest names and that is not there stays in the list, to be recorded as
    failed. Frozen sections are left out of folders and manifests; a CSV's rows are taken as given.

    Args:
        source: a folder; a CSV with the columns path and, optionally, slide_id, project, mpp, case,
            size, md5, or a list of paths alone (relative to its folder); a GDC manifest; or a
            slide.
        mpp: µm/px for the slides to which the CSV gives none.
        slides_root: the folder into which gdc-client downloaded the manifest's files.
        sample_sheet: of the GDC, for project and case.
        frozen: take frozen sections too.
        verify_md5: have the files' MD5 checked where the source gives one.

    Raises:
        FileNotFoundError: no such path, no slides in it, or none of the listed slides is there.
        ValueError: a CSV without a path column, an id that cannot be used, an id twice (in
            another case, too: on some disks their files would be one), a URL.
    """
    if not source.exists():
        refuse_url(str(source), "the slides")
        raise FileNotFoundError(
            f"no such folder, CSV, manifest or slide: {source}{dead_link(source)}"
        )
    if source.is_dir():
        entries = _read_folder(source, frozen)
    elif source.suffix.lower() == DICOM:
        series, _ = find_series([source])
        entries = [Entry(series[0].slide if series else _default_id(source), source)]
    elif source.suffix.lower() in ALL:
        entries = [Entry(_default_id(source), source)]
    elif source.suffix.lower() in LISTS or describe(source) == "text":
        header = read_header(source, (*COLUMNS, *gdc.MANIFEST_COLUMNS))
        if {"id", "filename"} <= header and "path" not in header:
            entries = _read_manifest(source, slides_root, frozen)
        else:
            entries = _read_list(source)
    elif describe(source) == "JSON":
        raise ValueError(
            f"{source} is JSON and no list of slides; give a table with the column path, or the "
            "GDC's manifest as it is downloaded (text)"
        )
    else:
        entries = [Entry(_default_id(source), source)]  # of a kind unknown here; OpenSlide will say
    sheet = gdc.read_sheet(sample_sheet) if sample_sheet else {}
    entries = [_complete(entry, sheet, mpp, verify_md5) for entry in entries]
    if sheet and (strangers := sum(e.project is None for e in entries)):
        log.warning("%d slides have no project: %s does not name them", strangers, sample_sheet)
    _check_ids(entries)
    return sorted(entries, key=lambda e: e.slide)


def _check_ids(entries: list[Entry]) -> None:
    """Say which slides are one file."""
    seen: dict[str, Entry] = {}
    files: dict[str, Entry] = {}
    for entry in entries:
        try:
            check_slide_id(entry.slide)
        except ValueError as error:
            raise ValueError(f"{entry.said or entry.path}: {error}") from error
        before = seen.setdefault(entry.slide.casefold(), entry)
        if before is not entry:
            which = f"have the id {entry.slide}"
            if before.slide != entry.slide:
                which = (
                    f"have ids that differ only in case, {before.slide} and {entry.slide}, whose "
                    "files are one on many disks"
                )
            at = [f"{e.path}" + f" ({e.said})" * bool(e.said) for e in (before, entry)]
            raise ValueError(
                f"two slides {which}: {at[0]} and {at[1]}; give each its own in the slide_id "
                "column of a CSV"
            )
        other = files.setdefault(os.path.abspath(entry.path), entry)
        if other is not entry:
            log.warning(
                "%s and %s are one file, %s: each of its nuclei will be there twice",
                *(other.slide, entry.slide, entry.path),
            )


def check_download(entry: Entry) -> None:
    """Compare a slide's file with what its source says of it; an absent file is not judged here.

    Raises:
        ValueError: the size or the MD5 is another.
    """
    if not entry.path.is_file():
        return
    if entry.size is not None or entry.md5 is not None:
        check_file(entry.path)
    size = entry.path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise ValueError(
            f"{entry.path} has {size} bytes instead of {entry.size}; download it again"
        )
    if entry.md5 is not None:
        with open(entry.path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != entry.md5.lower():
            raise ValueError(
                f"{entry.path} has MD5 {found} instead of {entry.md5}; download it again"
            )


def _default_id(path: Path) -> str:
    """Return the file's name up to its first period."""
    return path.name.split(".")[0]


def _complete(
    entry: Entry, sheet: Mapping[str, gdc.Sample], mpp: float | None, verify_md5: bool
) -> Entry:
    """Add what sheet, command line and the file's name say to what the source said."""
    sample = sheet.get(entry.path.parent.name) or sheet.get(entry.path.name)
    return replace(
        entry,
        project=entry.project or (sample.project if sample else None),
        case=entry.case or (sample.case if sample else None) or gdc.case_of(entry.path.name),
        mpp=entry.mpp or mpp,
        md5=entry.md5 if verify_md5 else None,
    )


def _read_folder(source: Path, frozen: bool) -> list[Entry]:
    """List the slides in a folder and those below it, behind links too; say what is left out.

    A link to a slide that is not there stays in the list, to be recorded as failed.
    """
    paths, remarks = find_scans(source)
    if not paths:
        raise FileNotFoundError(
            f"no slides ({' '.join(ALL)}) in {source}; {'; '.join(remarks) or 'it is empty'}"
        )
    for remark in remarks:
        log.warning("%s: %s", source, remark)
    kept = paths if frozen else [p for p in paths if not gdc.is_frozen(p.name)]
    _say_frozen(source, len(paths) - len(kept), len(kept))
    kinds = Counter(path.suffix.lower() for path in kept)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    log.info("%s: %d slides (%s)", source, len(kept), counts)
    entries = [Entry(paths[path] or _default_id(path), path) for path in kept]
    _say_absent(source, entries, "a link to nowhere; is its disk mounted?")
    return entries


def _read_manifest(source: Path, root: Path | None, frozen: bool) -> list[Entry]:
    """List the slides of a GDC manifest."""
    if root is None:
        raise ValueError(f"{source} is a GDC manifest: say with --slides-root where its files are")
    if not root.is_dir():
        raise FileNotFoundError(f"--slides-root {root} is no folder")
    files = [f for f in gdc.read_manifest(source) if f.name.lower().endswith(SUFFIXES)]
    if not files:
        raise FileNotFoundError(f"{source} lists no slides ({' '.join(SUFFIXES)})")
    kept = files if frozen else [f for f in files if not gdc.is_frozen(f.name)]
    _say_frozen(source, len(files) - len(kept), len(kept))
    entries = [
        Entry(_default_id(path), path, size=file.size, md5=file.md5)
        for file in kept
        for path in [gdc.find(file, root)]
    ]
    _say_absent(source, entries, f"below --slides-root {root}")
    return entries


def _say_frozen(source: Path, left_out: int, kept: int) -> None:
    """Say how many frozen sections were left out."""
    if left_out and not kept:
        raise FileNotFoundError(f"{source} holds frozen sections only; --frozen takes them")
    if left_out:
        log.warning("%s: %d frozen sections left out (--frozen takes them)", source, left_out)


def _say_absent(source: Path, entries: list[Entry], where: str) -> None:
    """Say how many of the listed slides are not there."""
    absent = [entry for entry in entries if not entry.path.exists()]
    if len(absent) == len(entries):
        raise FileNotFoundError(
            f"{source}: none of its {len(entries)} slides is there, the first "
            f"{absent[0].path} ({where})"
        )
    if absent:
        log.warning(
            "%s: %d of %d slides are not there, the first %s; they will be recorded as failed",
            source,
            len(absent),
            len(entries),
            absent[0].path,
        )


def _read_list(source: Path) -> list[Entry]:
    """Read a table of slides, or a list of their paths, one a line, without a header."""
    lines = [line.strip().strip("\"'") for line in read_text(source).splitlines()]
    numbered = [(n, s) for n, s in enumerate(lines, 1) if s and not s.startswith("#")]
    if numbered and numbered[0][1].lower().endswith(ALL):
        entries = []
        for number, line in numbered:
            said = f"{source}, line {number}"
            path = located(source, line, said)
            entries.append(Entry(_default_id(path), path, said=said))
    else:
        entries = _read_table(source)
    where = "paths count from the list's folder"
    if any("\\" in entry.path.name for entry in entries):
        where += "; folders are separated by / here"
    _say_absent(source, entries, where)
    return entries


def _read_table(source: Path) -> list[Entry]:
    """Read a table of slides."""
    table = read_table(source, COLUMNS[:1], COLUMNS[1:], kind="list of slides")
    if not len(table):
        raise FileNotFoundError(f"{source} lists no slides")
    numbers = {name: table.numbers(name, missing=("",)) for name in ("mpp", "size")}
    for name, column in numbers.items():
        if (column <= 0).any():
            row = int(np.argmax(column <= 0))
            raise ValueError(f"{table.where(row)}: {name} {column[row]:g} is not above 0")
    words = (table.words(name) for name in ("path", "slide_id", "project", "case", "md5"))
    entries = []
    for row, (name, slide, project, case, md5) in enumerate(zip(*words, strict=True)):
        if not name:
            raise ValueError(f"{table.where(row)}: the path is empty")
        path = named = located(source, name, table.where(row))
        if path.is_dir():
            path = volume_of(path)
        mpp, size = numbers["mpp"][row], numbers["size"][row]
        entries.append(
            Entry(
                slide=slide or _default_id(named),
                path=path,
                said=table.where(row),
                project=project or None,
                mpp=None if np.isnan(mpp) else float(mpp),
                case=case or None,
                size=None if np.isnan(size) else int(size),
                md5=md5 or None,
            )
        )
    return entries
