"""Tables that users give, read and checked: CSV as Excel, R, pandas and portals write it.

Separators are recognised by the header: comma, semicolon, tab, or the blank of R's write.table.
Names of columns are compared without regard to case and blanks. Values are kept as text until a
caller asks for numbers. What is wrong is an error with the file, the line and the cure.
"""

import functools
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shards.header import SHOWN, absence, choose, find_header, key, near
from shards.rows import read_rows
from shards.text import clean, read_bytes

pc: Any = pyarrow.compute  # which makes its functions when it is imported

# How programs write that there is no value, as pandas reads it.
MISSING = ("", "NA", "N/A", "n/a", "<NA>", "#N/A", "nan", "NaN", "NAN", "null", "NULL", "None")
# A first column that numbers the rows: pandas' index, readr's name for a column without one.
INDEX = re.compile(r"(unnamed: ?\d+[\w.]*|\.\.\.1)?", re.I)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """A table's wanted columns, as text.

    Attributes:
        path: for the errors.
        header: every column's name, as it stands there.
        columns: wanted name -> its cells, without blanks around; absent ones are not in it.
        lines: (N,) the lines that its rows stand in.
        decimal_comma: whether a comma may be a decimal sign.
    """

    path: Path
    header: list[str]
    columns: dict[str, pa.ChunkedArray]
    lines: Sequence[int]
    decimal_comma: bool

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.lines)

    def where(self, row: int) -> str:
        """Name a row, from 0, in an error: the file and the line."""
        return f"{self.path}, line {self.lines[row]}"

    def words(self, name: str, missing: tuple[str, ...] = MISSING) -> list[str]:
        """Return a column's cells; '' where one stands for no value, or the column is absent."""
        if name not in self.columns:
            return [""] * len(self)
        blank: dict[Any, Any] = dict.fromkeys(missing, "")
        cells: list[Any] = self.columns[name].to_pylist()
        return [blank.get(cell, cell) for cell in cells]

    def numbers(self, name: str, missing: tuple[str, ...] = ()) -> np.ndarray:
        """Return a column as (N,) float64.

        Args:
            name: of the column; an absent one is NaN in every row.
            missing: what cells may be instead of a number, such as ("",); they are NaN.

        Raises:
            ValueError: a cell is no finite number; names its line.
        """
        if name not in self.columns:
            return np.full(len(self), np.nan)
        cells = self.columns[name]
        comma = pc.match_substring(cells, ",")
        if self.decimal_comma and pc.any(comma).as_py():
            if pc.any(pc.match_substring(cells, ".")).as_py():
                row = pc.index(comma, True).as_py()
                raise ValueError(
                    f"{self.where(row)}: {name} is {cells[row].as_py()!r}, and other rows have "
                    "decimal points; write all numbers in one way, without marks for thousands"
                )
            cells = pc.replace_substring(cells, ",", ".")
        empty = pc.is_in(cells, pa.array(missing, pa.string()))
        cells = pc.if_else(empty, None, cells)
        try:
            numbers = pc.cast(cells, pa.float64()).to_numpy()
            bad = ~np.isfinite(numbers) & ~empty.to_numpy()
        except pa.ArrowInvalid:  # it does not say which
            numbers = None
            bad = np.array([not _is_number(cell) for cell in cells.to_pylist()], bool)
        if bad.any():
            row = int(bad.argmax())
            cell = self.columns[name][row].as_py()
            raise ValueError(
                f"{self.where(row)}: {name} is {cell!r}, not a number"
                if cell
                else f"{self.where(row)}: no {name}"
            )
        assert numbers is not None
        return numbers


def read_table(
    path: Path,
    needed: Sequence[str],
    optional: Sequence[str] | None = (),
    say_unknown: bool = True,
    data: bytes | None = None,
    kind: str = "",
) -> Table:
    """Read the wanted columns of a table with a header.

    Args:
        needed: columns that must be there.
        optional: columns that may be there; None: every other column, by its name in the file.
        say_unknown: warn of columns that are neither, once a file.
        data: its content, where it has been read already; else it is read from the path.
        kind: what it should be, for the error where a column is absent: `GDC manifest`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text or no table, a column is absent or there twice, a row is longer
            or shorter than the header; names the line.
    """
    data = clean(read_bytes(path) if data is None else data, path)
    # Rows of separators alone, as Excel leaves below a table, are blank lines.
    if re.search(rb"(?m)^[ \t;,]+$", data):
        data = re.sub(rb"(?m)^[ \t;,]+$", b"", data)
    header, separator, first, start = find_header(path, data, [*needed, *(optional or ())])
    if optional is None:
        known = {key(name) for name in needed}
        named = header[1:] if INDEX.fullmatch(header[0]) else header
        optional = [name for name in named if name and key(name) not in known]
    wanted = [*needed, *optional]
    chosen, taken = choose(path, header, wanted)
    absent = [name for name in needed if name not in chosen]
    if absent:
        said = f"{path} is no {kind}" if kind else str(path)
        raise ValueError(f"{said}: {absence(header, absent, needed, optional)}")
    nameless = [i for i, name in enumerate(header) if not name and i]
    parsed, lines = read_rows(
        path, data[start:], first, header, separator, sorted({*chosen.values(), *nameless})
    )
    columns = {name: parsed[place] for name, place in chosen.items()}
    _check_joined(path, header, chosen, columns, lines)
    full = [i for i in nameless if pc.any(pc.not_equal(parsed[i], "")).as_py()]
    unknown = [n for i, n in enumerate(header) if n and i not in chosen.values()]
    if unknown and INDEX.fullmatch(header[0]) and header[0] in unknown:
        unknown.remove(header[0])
    if say_unknown:
        _warn_of_columns(
            path, unknown, full, taken, tuple(name for name in wanted if name not in chosen)
        )
    return Table(path, header, columns, lines, separator != ",")


def _check_joined(
    path: Path,
    header: list[str],
    chosen: dict[str, int],
    columns: dict[str, pa.ChunkedArray],
    lines: Sequence[int],
) -> None:
    """Raise a ValueError where a row is the header again: two files were joined."""
    same = [pc.equal(columns[name], header[place]) for name, place in chosen.items()]
    again = functools.reduce(pc.and_, same) if same else pa.array([], pa.bool_())
    if pc.any(again).as_py():
        row = pc.index(again, True).as_py()
        raise ValueError(
            f"{path}, line {lines[row]} is the header again: two files, joined? Take it out"
        )


def read_header(path: Path, wanted: Sequence[str]) -> set[str]:
    """Return the names of a table's columns, in lower case, for who tells kinds of tables by them.

    Args:
        wanted: names by which its separator is recognised.

    Raises:
        ValueError: it is no text.
    """
    return {key(name) for name in find_header(path, clean(read_bytes(path), path), wanted)[0]}


@functools.lru_cache(4096)  # said once
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def _warn_of_columns(
    path: Path, unknown: list[str], full: list[int], taken: tuple[str, ...], left: tuple[str, ...]
) -> None:
    """Warn of what was not taken as it stands."""
    for text in taken:
        _warn_once(f"{path}: column {text}")
    for i in full:
        _warn_once(f"{path}: column {i + 1} has values and no name; it is passed over")
    if unknown:
        meant = {name: n for name in unknown for n in near(name, left)}
        shown = [f"{name!r} (meant for {n}?)" for name, n in meant.items()]
        shown += [name for name in unknown if name not in meant]
        more = f", and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        _warn_once(f"{path}: columns passed over: {', '.join(shown[:SHOWN])}{more}")


def _is_number(cell: str | None) -> bool:
    try:
        return cell is None or bool(np.isfinite(float(cell)))
    except ValueError:
        return False
