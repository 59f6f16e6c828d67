"""The header of a table that a user gives: found below comments, its names told from others."""

import csv
import difflib
import re
from collections.abc import Sequence
from pathlib import Path

SEPARATORS = (",", ";", "\t", " ")
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?', re.I)
SHOWN = 12  # columns named in a message


def find_header(path: Path, data: bytes, wanted: Sequence[str]) -> tuple[list[str], str, int, int]:
    """Find the header.

    Returns:
        Its names; the separator; the number of the line behind it, and the byte where that begins.
    """
    place, number, given = 0, 0, None
    candidates: list[tuple[str, int, int]] = []  # comments and then the first other line
    while place < len(data):
        end = data.find(b"\n", place)
        end = len(data) if end < 0 else end
        line = data[place:end].decode().strip(" ")
        place, number = end + 1, number + 1
        if not line.strip():
            continue
        if not candidates and (excel := EXCEL_SEPARATOR.fullmatch(line)):
            given = excel[1]
            continue
        candidates.append((line, number + 1, place))
        if not line.startswith("#"):
            break
    if not any(line.strip("# ") for line, _, _ in candidates):
        raise ValueError(
            f"{path} is empty: a header was expected, with {', '.join(wanted[:SHOWN])}"
        )
    best = ([], ",", 0, 0, -1)
    row = candidates[-1][0]
    for line, after, begin in candidates[-2:][::-1]:  # `# x,y` is how NumPy writes a header
        for separator in (given,) if given else SEPARATORS:
            names = _cells(line.lstrip("# ") if line.startswith("#") else line, separator)
            if line is not row and len(names) != len(_cells(row, separator)):
                continue  # a comment in words
            keys = {loose(name) for name in names}
            known = sum(loose(name) in keys for name in wanted)
            if separator == " " and '"' not in line and known < len(names):
                continue  # words; R, whose separator it is, quotes them
            wider = known == best[4] == 0 and len(names) > len(best[0])
            if known > best[4] or wider:
                best = (names, separator, after, begin, known)
    return best[:4]


def _cells(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], **dialect(separator)), [])]


def dialect(separator: str) -> dict:
    """Return how Python's csv is to read cells so separated."""
    return {"delimiter": separator, "skipinitialspace": True}


def choose(
    path: Path, header: list[str], wanted: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Find the wanted columns: by name, else by its letters and digits alone.

    Returns:
        Wanted name -> place; what was taken for what, in words.
    """
    keys = [key(name) for name in header]
    chosen: dict[str, int] = {}
    taken = []
    for close, same in ((False, key), (True, loose)):
        free = [i for i in range(len(header)) if not close or i not in chosen.values()]
        for name in (n for n in wanted if n not in chosen):
            places = [i for i in free if keys[i] and same(header[i]) == same(name)]
            if len(places) > 1:
                raise ValueError(
                    f"{path} has {len(places)} columns {name} (columns "
                    f"{', '.join(f'{i + 1}: {header[i]!r}' for i in places)}); leave one"
                )
            if places:
                chosen[name] = places[0]
                if close:
                    taken.append(f"{header[places[0]]!r} is taken for {name}")
    return chosen, tuple(taken)


def key(name: str) -> str:
    """Return a column's name without regard to case and to blanks around and between words."""
    return " ".join(name.split()).casefold()


def loose(name: str) -> str:
    """Return a column's letters and digits: slide_id, Slide-ID and SlideID are alike."""
    return "".join(c for c in name.casefold() if c.isalnum())


def absence(
    header: list[str], absent: list[str], needed: Sequence[str], optional: Sequence[str]
) -> str:
    """Say which columns are absent, and which might have been meant."""
    found = ", ".join(name or "(no name)" for name in header[:SHOWN])
    more = f", and {len(header) - SHOWN} more" if len(header) > SHOWN else ""
    meant = [f"{n!r} for {name}" for name in absent for n in near(name, header)]
    return (
        f"no column {', '.join(map(repr, absent))}; found {found}{more}"
        + (f" (rename {', '.join(meant)}, if it is meant)" if meant else "")
        + f"; needed are {', '.join(needed)}"
        + (f"; optional are {', '.join(optional)}" if optional and len(optional) < SHOWN else "")
    )


def near(name: str, others: Sequence[str]) -> list[str]:
    """Return the one of other names that is nearly this one."""
    names = {loose(other): other for other in others if other}
    return [names[n] for n in difflib.get_close_matches(loose(name), names, 1, 0.75)]
