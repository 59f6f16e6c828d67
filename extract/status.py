"""What became of every slide of a cohort, checked against the files; and what to submit again."""

import csv
import hashlib
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from extract.inputs import changed
from extract.ledger import read_outcome
from extract.slides import Entry
from shards.folder import visible
from shards.schema import CODECS, FATES, key
from shards.write import BLOCK, atomic

# stale: made from a slide, mask or segmentation that has changed since; broken: the files differ
OUTCOMES = ("done", "skipped", "failed", "stale", "broken", "missing")
AGAIN = ("failed", "stale", "broken", "missing")  # what `resubmit.csv` lists
NUMBER = re.compile(r"\b(\d+(?:[.,]\d+)*(?:e[+-]?\d+)?)\b")
PROBED = 16  # members of a tar whose headers are read
RESUBMIT_COLUMNS = ("slide_id", "path", "project", "mpp", "case", "size", "md5")

COLUMNS = pa.schema(
    [
        ("slide", pa.string()),
        ("project", pa.string()),
        ("case", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("mpp", pa.float64()),
        ("detected", pa.int64()),
        *((fate.replace(" ", "_"), pa.int64()) for fate in FATES),
        ("damaged_tiles", pa.int64()),
        ("seconds", pa.float64()),
        ("path", pa.string()),
    ]
)


def survey(cells: Path, entries: list[Entry] | None, digests: bool = False) -> list[dict]:
    """Look at every slide's record and files.

    Args:
        entries: the slides there should be; None: those that left a record.
        digests: read the tars whole and compare their SHA-256.

    Returns:
        A row a slide with the keys of COLUMNS, `entry`, and what its record names: `command`, and
        `version` of the segmenter.

    Raises:
        FileNotFoundError: no such folder, or nothing in it and no list of slides.
    """
    if not cells.is_dir():
        raise FileNotFoundError(f"no cells folder {cells}")
    if entries is None:
        names = sorted(path.stem for path in visible(cells.glob("*.json")))
        if not names:
            raise FileNotFoundError(f"{cells} holds no outcome of extract (<slide>.json)")
        listed = {name: None for name in names}
    else:
        listed = {entry.slide: entry for entry in entries}
    return [_row(cells, slide, entry, digests) for slide, entry in listed.items()]


def _row(cells: Path, slide: str, entry: Entry | None, digests: bool) -> dict:
    """Return a slide's row."""
    record: dict[str, Any] | None
    try:
        record = read_outcome(cells, slide)
    except ValueError as error:
        record = {"outcome": "broken", "reason": str(error)}
    if record is None:
        record = {"outcome": "missing", "reason": ""}
    else:
        final = record["outcome"] in ("done", "skipped")
        if final and (change := changed(record, entry)):
            record |= {"outcome": "stale", "reason": change}
        elif record["outcome"] == "done" and (problem := fault(cells, record, digests)):
            record |= {"outcome": "broken", "reason": problem}
    if entry is None and "path" in record:
        given: dict[str, Any] = {name: record.get(name) for name in ("project", "case", "size")}
        entry = Entry(slide, Path(record["path"]), mpp=record.get("given_mpp"), **given)
    fates = record.get("fates", {})
    return {
        "slide": slide,
        "project": entry and entry.project,
        "case": entry and entry.case,
        "outcome": record["outcome"],
        "reason": record["reason"],
        "mpp": record.get("mpp"),
        "detected": record.get("detected"),
        **{fate.replace(" ", "_"): fates.get(fate, 0) if fates else None for fate in FATES},
        "damaged_tiles": len(record["damaged"]) if "damaged" in record else None,
        "seconds": record.get("seconds"),
        "path": entry and str(entry.path.absolute()),
        "entry": entry,
        "command": record.get("command", ""),
        "version": record.get("versions", {}).get("segmenter"),
    }


def fault(cells: Path, record: dict, digests: bool = False) -> str | None:
    """Say what is wrong with the files of a slide that is done, or nothing.

    Detected must be the sum of the fates in the record, in the table, and in the tar: the members
    must follow one another without a gap from the first byte to the last, one a kept nucleus.

    Args:
        digests: compare the tar's SHA-256 too.
    """
    slide, fates = record["slide"], record["fates"]
    if sum(fates.values()) != record["detected"]:
        return f"the record's fates sum to {sum(fates.values())}, not {record['detected']}"
    try:
        columns = ["nucleus", "fate", "offset", "size"]
        table = pq.read_table(cells / f"{slide}.parquet", columns=columns)
    except (OSError, pa.ArrowException) as error:
        return f"{slide}.parquet: {error}"
    if not np.array_equal(table["nucleus"], np.arange(record["detected"])):
        return f"{slide}.parquet has {len(table)} rows, detected were {record['detected']}"
    found = Counter(table["fate"].cast(pa.string()).to_pylist())
    if found != Counter({fate: n for fate, n in fates.items() if n}):
        return f"{slide}.parquet counts {dict(found)}, the record {fates}"
    kept = table.filter(pc.field("fate").cast(pa.string()) == "kept")
    return _tar_fault(cells / f"{slide}.tar", slide, kept, record, digests)


def _tar_fault(path: Path, slide: str, kept: pa.Table, record: dict, digests: bool) -> str | None:
    """Say what is wrong with a tar whose members should be the kept nuclei's, or nothing."""
    offset, size, nucleus = (np.asarray(kept[name]) for name in ("offset", "size", "nucleus"))
    order = np.argsort(offset)
    offset, size, nucleus = offset[order], size[order], nucleus[order]
    ends = offset + size + -size % BLOCK
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    if not np.array_equal(offset, starts + BLOCK):
        return f"{slide}.parquet's offsets leave gaps in the tar"
    expected = int(ends[-1]) if len(ends) else 0
    try:
        with open(path, "rb") as file:
            length = file.seek(0, io.SEEK_END)
            if length != expected + 2 * BLOCK:
                return f"{path.name} has {length} bytes instead of {expected + 2 * BLOCK}"
            extension = CODECS[record["settings"]["codec"]]
            for i in np.unique(np.linspace(0, len(offset) - 1, PROBED).astype(int))[: len(offset)]:
                file.seek(int(offset[i]) - BLOCK)
                name = file.read(100).rstrip(b"\0").decode("ascii", "replace")
                if name != f"{key(slide, int(nucleus[i]))}.{extension}":
                    return f"{path.name} holds {name!r} in the place of nucleus {nucleus[i]}"
            if digests:
                file.seek(0)
                found = hashlib.file_digest(file, "sha256").hexdigest()
                if found != record["sha256"]:
                    return f"{path.name} has SHA-256 {found} instead of {record['sha256']}"
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None


def write_status(rows: list[dict], out: Path) -> None:
    """Write `slides.parquet`, `slides.csv` and `resubmit.csv`, a list that extract takes."""
    out.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([{n: row[n] for n in COLUMNS.names} for row in rows], COLUMNS)
    with atomic(out / "slides.parquet") as file:
        pq.write_table(table, file, compression="zstd")
    with atomic(out / "slides.csv", "w") as file:
        writer = csv.DictWriter(file, COLUMNS.names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with atomic(out / "resubmit.csv", "w") as file:
        writer = csv.writer(file)
        writer.writerow(RESUBMIT_COLUMNS)
        for row in rows:
            entry = row["entry"]
            if row["outcome"] in AGAIN and entry is not None:
                facts = (entry.project, entry.mpp, entry.case, entry.size, entry.md5)
                writer.writerow([entry.slide, entry.path.absolute(), *facts])


def describe(rows: list[dict]) -> str:
    """Return the table to print: outcomes, reasons without what differs among slides, and sums."""
    lines = [f"{'':9} {'slides':>7} {'nuclei':>12} {'crops':>12} {'hours':>8}"]
    for outcome in OUTCOMES:
        group = [row for row in rows if row["outcome"] == outcome]
        if not group:
            continue
        nuclei, crops = (sum(row[name] or 0 for row in group) for name in ("detected", "kept"))
        hours = sum(row["seconds"] or 0 for row in group) / 3600
        lines.append(f"{outcome:9} {len(group):7,} {nuclei:12,} {crops:12,} {hours:8.2f}")
        lines += [f"{'':9} {count:7,}   {reason}" for reason, count in _reasons(group)]
    done = [row for row in rows if row["outcome"] == "done"]
    fates = {fate: sum(row[fate.replace(" ", "_")] for row in done) for fate in FATES}
    shown = ", ".join(f"{count:,} {fate}" for fate, count in fates.items() if count)
    lines.append(f"detected {sum(fates.values()):,}" + (f" = {shown}" if shown else ""))
    versions = Counter(row["version"] for row in done if row.get("version"))
    lines += [f"segmented by {version}: {count:,}" for version, count in sorted(versions.items())]
    damaged = [row for row in done if row["damaged_tiles"]]
    if damaged:
        tiles = sum(row["damaged_tiles"] for row in damaged)
        lines.append(f"{tiles:,} damaged tiles on {len(damaged):,} slides that are done")
    return "\n".join(lines)


def _reasons(group: list[dict]) -> list[tuple[str, int]]:
    """Return reasons, with # for numbers that differ among slides, and how many have each."""
    kinds: dict[tuple[str, ...], list[list[str]]] = {}
    for row in group:
        if row["reason"]:
            words = NUMBER.split(_unnamed(row))  # text, number, text, …
            kinds.setdefault(tuple(words[::2]), []).append(words[1::2])
    found = []
    for texts, numbers in kinds.items():
        same = [own[0] if len(set(own)) == 1 else "#" for own in zip(*numbers, strict=True)]
        said = "".join(text + number for text, number in zip(texts, [*same, ""], strict=True))
        found.append((said, len(numbers)))
    return sorted(found, key=lambda one: -one[1])


def _unnamed(row: dict) -> str:
    """Return a slide's reason without its names."""
    reason = row["reason"]
    if row["path"]:
        for own in (row["path"], str(row["entry"].path), Path(row["path"]).name):
            reason = reason.replace(own, "<slide>")
    # whole: a slide may be called `dicom`, which is no part of its `dicom.mpp-x`
    return re.sub(rf"(?<![\w-]){re.escape(row['slide'])}(?!\.?[\w-])", "<slide>", reason)
