"""Which file of a folder belongs to which slide: by full id, full name or TCGA barcode.

An ending that is not known (extract.segment.naming) is said in a pattern, whose `*` then stands for
the slide's name.
"""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from extract.segment.naming import barcodes, names_of, stripped
from extract.segment.options import Import
from extract.slides import Entry
from shards.folder import list_folder, visible

log = logging.getLogger(__name__)


def find_file(source: Path, entry: Entry, flag: str) -> Path:
    """Return the one file of a folder, or of a pattern, that belongs to a slide.

    Args:
        source: a folder (searched in depth), a pattern such as `seg/*/cells.json`, or one file.

    Raises:
        FileNotFoundError: no file there, or none for the slide.
        ValueError: several files for the slide.
    """
    if source.is_file():
        return source
    (found,) = find_files(source, [entry], flag).values()
    if isinstance(found, Path):
        return found
    raise found


def find_files(
    source: Path, entries: Sequence[Entry], flag: str
) -> dict[str, Path | FileNotFoundError | ValueError]:
    """Find the file of every slide of a list.

    A file belongs to the slide that its own name names, else to the one that the nearest of its
    folders names: what is one slide's by its full name is no other's.

    Returns:
        By id, the file, or the error that says why there is none.

    Raises:
        FileNotFoundError: no file there.
        ValueError: a file belongs to two slides.
    """
    files = list(_named_files(source))
    if not files:
        raise FileNotFoundError(f"{flag} {source}: no such folder, or no files in it")
    by_name: dict[str, set[str]] = {}
    for entry in entries:
        for name in names_of(entry):
            by_name.setdefault(name, set()).add(entry.slide)
    own: dict[str, list[Path]] = {}
    for path, names in files:
        owners = next((by_name[name] for name in names if name in by_name), set())
        if len(owners) > 1:
            raise ValueError(
                f"{flag} {source}: {path.name} belongs to {len(owners)} slides, "
                f"{' and '.join(sorted(owners)[:4])}, but a file is one slide's: give each its own "
                "file, called by the slide's id"
            )
        for owner in owners:
            own.setdefault(owner, []).append(path)
    rest = [path for path, names in files if by_name.keys().isdisjoint(names)]
    return {e.slide: _only(own.get(e.slide, []), source, e, flag, rest) for e in entries}


def with_files(entries: Sequence[Entry], masks: str | None, imported: Import | None) -> list[Entry]:
    """Give every slide of a list its own mask and segmentation, before any work starts.

    Args:
        entries: all slides of the list, of whatever part.

    Raises:
        ValueError: a file for two slides.
    """
    masked = _each(entries, masks, "--masks") if masks else {}
    segmented = _each(entries, imported.source, "--from") if imported else {}
    return [
        replace(entry, mask=masked.get(entry.slide), nuclei=segmented.get(entry.slide))
        for entry in entries
    ]


def _each(entries: Sequence[Entry], source: str, flag: str) -> dict[str, Path | str]:
    """Return by id what is a slide's own, or why there is none."""
    from extract.segment.table import names_slides  # shapely and scipy take a third of a second

    path = Path(source)
    if path.is_file():
        if len(entries) > 1 and not (flag == "--from" and names_slides(path)):
            raise ValueError(
                f"{flag} {source} is one file, but there are many slides ({len(entries)}): give a "
                "folder with a file a slide, or a pattern"
                + (", or a table whose column slide says whose a row is" * (flag == "--from"))
            )
        return {entry.slide: path for entry in entries}
    try:
        found = find_files(path, entries, flag)
    except FileNotFoundError as error:  # whoever is finished does without
        return {entry.slide: str(error) for entry in entries}
    return {slide: f if isinstance(f, Path) else str(f) for slide, f in found.items()}


def own_file(given: Path | str | None, source: str, entry: Entry, flag: str) -> Path:
    """Return the file that the list gave a slide, or look for it where no list has been seen.

    Raises:
        FileNotFoundError: none belongs to the slide.
        ValueError: several do.
    """
    if given is None:
        return find_file(Path(source), entry, flag)
    if isinstance(given, str):
        raise FileNotFoundError(given)
    return given


def _only(
    found: list[Path], source: Path, entry: Entry, flag: str, rest: list[Path]
) -> Path | FileNotFoundError | ValueError:
    """Return the one file found for a slide, or what is wrong."""
    if len(found) == 1:
        return found[0]
    own = names_of(entry)
    below = f"{source}/**/" if source.is_dir() else f"{source.parent}/"
    if found:
        return ValueError(
            f"{flag} {source}: {len(found)} files belong to slide {entry.slide}: "
            f"{', '.join(str(p) for p in found[:4])}{' …' if len(found) > 4 else ''}; name the "
            f"kind wanted by a pattern, e.g. {flag} '{below}{_pattern(found[0], own)}'"
        )
    alike = next((path for path in rest if path.name.startswith(tuple(own))), None)
    hint = f"there is, e.g., {rest[0].name}" if rest else "all files are other slides'"
    if alike:
        hint = (
            f"{alike.name} only begins like it: if it is the slide's, say so by a pattern, "
            f"{flag} '{below}{_pattern(alike, own)}'"
        )
    return FileNotFoundError(
        f"{flag} {source}: no file there belongs to slide {entry.slide} (looked for a file or "
        f"folder called {' or '.join(sorted(own))}; {hint})"
    )


def _named_files(source: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield files and the names they may be known by: their own, then their folders', outwards."""
    if source.is_dir():
        folder = list_folder(source)
        for remark in folder.remarks():
            log.warning("%s: %s", source, remark)
        paths, root, star = folder.files, source, None
    else:
        paths = visible(map(Path, glob.glob(str(source), recursive=True)))
        paths = [path for path in paths if path.is_file()]
        root = Path(re.split(r"[*?\[]", str(source), maxsplit=1)[0].rpartition("/")[0] or "/")
        root = root if source.is_absolute() else Path(str(root).lstrip("/"))
        star = _star(source.name)
    for path in paths:
        names = list(stripped(path.name))
        if star and (found := star.fullmatch(path.name)):
            names += stripped(found[1])
        names += barcodes(names)
        if path.is_relative_to(root):
            for folder in reversed(path.relative_to(root).parts[:-1]):
                called = list(stripped(folder))
                names += [*called, *barcodes(called)]
        yield path, names


def _star(pattern: str) -> re.Pattern | None:
    """Return an expression whose group is what a pattern's `*` stands for, if it has just one."""
    if re.fullmatch(r"[^*?\[]*\*[^*?\[]*", pattern) is None:
        return None
    return re.compile("(.+)".join(map(re.escape, pattern.split("*"))))


def _pattern(path: Path, own: set[str]) -> str:
    """Return a pattern for files named like this one."""
    for name in sorted(own, key=len, reverse=True):
        if path.name.startswith(name):
            return f"*{path.name[len(name) :]}"
    return path.name
