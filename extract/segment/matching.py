"""Which file of a folder belongs to a slide: by the slide's id, its name or its TCGA barcode."""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from extract.slides import Entry

# project-site-participant-sample-portion-slide, as in TCGA-06-0129-01Z-00-DX1
BARCODE = re.compile(r"(TCGA-\w{2}-\w{4}-\d{2}[A-Z]-\d{2}-[A-Z]{2}\w)(?![\w])", re.IGNORECASE)


def find_file(source: Path, entry: Entry, flag: str) -> Path:
    """Return the one file of a folder, or of a pattern, that belongs to a slide.

    In order: the file, or a folder it lies in, is called as the slide's id or file name, up to its
    endings; begins with one of these and `_` or `.`; has the slide's TCGA barcode.

    Args:
        source: a folder (searched in depth), a pattern such as `seg/*/cells.json`, or one file.
        entry: the slide.
        flag: that gave the source, for the errors.

    Raises:
        FileNotFoundError: no file there, or none for the slide.
        ValueError: several files for the slide.
    """
    if source.is_file():
        return source
    pairs = list(_named_files(source))
    if not pairs:
        raise FileNotFoundError(f"{flag} {source}: no such folder, or no files in it")
    own = {entry.slide, entry.path.name, entry.path.stem, entry.path.name.split(".")[0]}
    barcode = _barcode(entry.slide) or _barcode(entry.path.name)
    found = (
        [p for p, names in pairs if any(name.split(".")[0] in own or name in own for name in names)]
        or [
            p
            for p, names in pairs
            if any(name.startswith((f"{o}_", f"{o}.")) for name in names for o in own)
        ]
        or [p for p, names in pairs if barcode and barcode in map(_barcode, names)]
    )
    if not found:
        raise FileNotFoundError(
            f"{flag} {source}: none of its {len(pairs)} files belongs to slide {entry.slide} "
            f"(looked for {' or '.join(sorted(own))}{f' or {barcode}' if barcode else ''} at the "
            f"start of a file's or folder's name; there is, e.g., {pairs[0][0].name})"
        )
    if len(found) > 1:
        raise ValueError(
            f"{flag} {source}: {len(found)} files belong to slide {entry.slide}: "
            f"{', '.join(str(p) for p in found[:4])}{' …' if len(found) > 4 else ''}; name the "
            f"kind wanted by a pattern, e.g. {flag} '{source}/**/{_pattern(found[0], own)}'"
        )
    return found[0]


def _named_files(source: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield files and the names they may be known by: their own and their folders'."""
    if source.is_dir():
        paths, root = source.rglob("*"), source
    else:
        paths = map(Path, glob.glob(str(source), recursive=True))
        root = Path(re.split(r"[*?\[]", str(source), maxsplit=1)[0].rpartition("/")[0] or "/")
        root = root if source.is_absolute() else Path(str(root).lstrip("/"))
    for path in sorted(paths):
        if path.is_file() and not path.name.startswith("."):
            folders = path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()
            yield path, [path.name, *folders]


def _barcode(name: str) -> str | None:
    """Return the TCGA slide barcode a name begins with, in upper case."""
    found = BARCODE.match(name)
    return found[1].upper() if found else None


def _pattern(path: Path, own: set[str]) -> str:
    """Return a pattern for files named like this one."""
    for name in sorted(own, key=len, reverse=True):
        if path.name.startswith(name):
            return f"*{path.name[len(name) :]}"
    return path.name
