"""A list of slides or patients to keep out of training, and whose slides it names.

Patients of a benchmark are kept out of pretraining by it: the fields of NuCLS (TCGA breast) and
PanNuke (partly TCGA, 19 organs) show patients whose slides one pretrains on. What a list fails to
name is trained on, so it is read however it was written: one or several ids a line or a table,
TCGA-18-5592 also as R (TCGA.18.5592) and Word (with its own dashes) write it, by case, slide,
barcode or file name. What it names that is not here is said.
"""

import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from shards.header import loose
from shards.table import read_header, read_table
from shards.text import read_text

CASE = re.compile(r"TCGA([-._ ])([A-Z0-9]{2})\1([A-Z0-9]{4})(?![A-Z0-9])", re.IGNORECASE)
DASHES = re.compile("[\u2010-\u2015\u2212\ufe63\uff0d\u00ad]")  # hyphens, dashes, minus signs
# Columns of tables that say who a row is; others of the table are not read.
COLUMNS = (
    *("case", "case_id", "cases", "case_submitter_id", "submitter_id", "bcr_patient_barcode"),
    *("patient", "patient_id", "barcode", "slide", "slide_id", "slide_name", "image", "wsi"),
    *("sample_id", "file", "file_name", "path"),
)
ENDING = re.compile(
    r"\.(svs|tiff?|ndpi|mrxs|scn|vms|vmu|bif|svslide|qptiff|dcm|czi|png|jpe?g)$", re.IGNORECASE
)
VECTOR = re.compile(r"^(?:[\w.]+ *(?:<-|=) *)?(?:c?\(|\[)(.*)[)\]],?$")  # as R and Python print one
SHOWN = 5  # ids named in a message

log = logging.getLogger(__name__)


def excluded(path: Path, cells: Path, slides: Sequence[str]) -> set[str]:
    """Return the slides that a list names, by themselves or by their case; say how many.

    Args:
        path: of the list: ids, one or several a line, `#` begins a comment; or a table with a
            column of COLUMNS.
        cells: what extract wrote: the records hold the cases.
        slides: ids to choose from.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it has no entry, or is no text.
    """
    owners: dict[str, set[str]] = {}  # what is compared of a slide's or a case's name -> slides
    patients: dict[str, set[str]] = {}
    for slide in slides:
        recorded = json.loads((cells / f"{slide}.json").read_text()).get("case") or ""
        cases = {_same(name) for name in (case(slide), *recorded.split(", ")) if name}
        for name in {_same(slide), *cases}:
            owners.setdefault(name, set()).add(slide)
        for name in cases:
            patients.setdefault(name, set()).add(slide)
    entries = {frozenset(map(_same, names)): names for names in _entries(path, owners)}
    if not entries:
        raise ValueError(f"{path} lists no case; without --exclude-cases nothing is left out")
    found, left_out, absent = 0, set(), []
    for keys, names in entries.items():
        named = set().union(*(owners.get(key, ()) for key in keys))
        found, left_out = found + bool(named), left_out | named
        for others in patients.values():  # another slide of the same patient goes as well
            left_out |= others if others & named else set()
        if not named:
            absent.append(names[0])
    log.info(
        "%s: %d of its %d cases are here, %d slides left out",
        *(path, found, len(entries), len(left_out)),
    )
    _say_absent(path, absent, bool(found), owners)
    return left_out


def case(name: str) -> str:
    """Return the patient of a TCGA slide: the barcode's first three fields; else the id itself.

    Args:
        name: a slide id, barcode or file name, with dashes, or R's periods in their place.
    """
    found = CASE.match(DASHES.sub("-", name))
    return f"TCGA-{found[2]}-{found[3]}".upper() if found else name


def _same(name: str) -> str:
    """Return what is compared of a name: the case of TCGA's, else it without folder and ending."""
    plain = re.split(r"[/\\]", name.strip().strip("\"'").strip())[-1]
    patient = case(plain)
    if CASE.match(patient):
        return patient
    return (plain.split(".")[0] if ENDING.search(plain) else plain).casefold()


def _entries(path: Path, known: dict[str, set[str]]) -> Iterator[list[str]]:
    """Yield the names of each entry of a list: one and the same slide or case by several names."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} of cases to exclude")
    text = read_text(path)
    if not text.strip():
        return
    header = {loose(name) for name in read_header(path, COLUMNS)}
    # A single word in a comment is no header: `# cases` stands above a list.
    commented = len(header) == 1 and text.lstrip().startswith("#")
    if header & set(map(loose, COLUMNS)) and not commented:
        table = read_table(path, (), COLUMNS, say_unknown=False)
        for row in zip(*(table.words(name) for name in table.columns), strict=True):
            if names := [name for cell in row for name in _names(cell, known)]:
                yield names
        return
    for line in text.split("\n"):
        names = _names(line.split("#")[0], known)
        cases = [name for name in names if CASE.match(_same(name)) or _same(name) in known]
        yield from ([name] for name in cases or names)


def _names(text: str, known: dict[str, set[str]]) -> list[str]:
    """Cut a text that is no id as a whole at commas and the like, and at blanks between ids.

    What R's and Python's printed vectors put around is taken off: c("…", "…"), ['…', '…'].
    """
    if not _is_whole(text, known):
        text = VECTOR.sub(r"\1", text.strip())
    names = []
    for part in [text] if _is_whole(text, known) else re.split(r"[,;|\t]", text):
        words = part.split()
        ids = any(CASE.match(_same(word)) or _same(word) in known for word in words)
        names += words if ids and not _is_whole(part, known) else [part]
    return [bare for name in names if (bare := name.strip("\"' \t"))]


def _is_whole(text: str, known: dict[str, set[str]]) -> bool:
    """Tell whether a text is the id of a slide or case here, though it may hold blanks."""
    return _same(text) in known and not CASE.match(_same(text))


def _say_absent(path: Path, absent: list[str], any_found: bool, known: dict[str, set[str]]) -> None:
    """Say which entries are not here; warn of those that look like mistakes."""
    shown = ", ".join(absent[:SHOWN])
    more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
    alike = {loose(name): name for name in known}
    if not any_found:
        log.warning(
            "%s: none of its cases is here, NOTHING is left out (it names %s%s; slides are called "
            "like %s)",
            *(path, shown, more, next(iter(next(iter(known.values()))))),
        )
    elif absent:
        log.info("%s: not here: %s%s", path, shown, more)
    for name in absent:
        if meant := alike.get(loose(_same(name))):
            log.warning("%s: %s is not here, but %s is; is it meant?", path, name, meant)
        elif _same(name).startswith("tcga") and len(_same(name)) < len("TCGA-18-5592"):
            log.warning("%s: %s is no whole TCGA case, such as TCGA-18-5592", path, name)
