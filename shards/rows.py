"""The rows of a table that a user gives: read fast; where they are uneven, judged one by one."""

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pcsv

from shards.header import dialect

pc: Any = pyarrow.compute  # which makes its functions when it is imported

BLOCK = 16 << 20  # bytes that hold a row


def read_rows(
    path: Path, body: bytes, first: int, header: list[str], separator: str, places: list[int]
) -> tuple[dict[int, pa.ChunkedArray], Sequence[int]]:
    """Read the cells of some columns: by pyarrow, and where rows are uneven, evened before.

    Args:
        path: for the errors.
        body: what stands below the header.
        first: the line it begins with.
        header: the names.
        separator: between cells.
        places: of the columns.

    Returns:
        Place -> cells; the line of each row.
    """
    quoted = b'"' in body
    mark = separator.encode()
    if separator != " " and not (quoted and re.search(re.escape(mark) + rb' +"', body)):
        try:
            columns = _arrow(body, len(header), separator, places)
            rows = len(columns[places[0]]) if places else 0
            if not quoted or rows == sum(1 for line in body.split(b"\n") if line):
                return columns, _Lines(body, first, rows)
        except pa.ArrowInvalid:
            pass  # an uneven row, which is judged below
    text, lines = io.StringIO(newline=""), []
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    width = len(header)
    for number, cells in _even(path, body.decode(), first, header, separator, places):
        writer.writerow(cells)
        lines.append(number)
    return _arrow(text.getvalue().encode(), width, ",", places), lines


def _arrow(
    body: bytes, width: int, separator: str, places: list[int]
) -> dict[int, pa.ChunkedArray]:
    """Read cells as text, without blanks around."""
    if not body.strip(b"\n"):
        return {i: pa.chunked_array([[]], pa.string()) for i in places}
    names = [str(i) for i in range(width)]
    table = pcsv.read_csv(
        pa.BufferReader(body),
        pcsv.ReadOptions(use_threads=False, column_names=names, block_size=BLOCK),
        pcsv.ParseOptions(delimiter=separator, newlines_in_values=b'"' in body),
        pcsv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
            check_utf8=False,
            include_columns=[str(i) for i in places],
        ),
    )
    return {i: pc.utf8_trim_whitespace(table[str(i)]) for i in places}


class _Lines(Sequence[int]):
    """The lines of rows that are a line each; counted when an error asks."""

    def __init__(self, body: bytes, first: int, rows: int) -> None:
        self.body, self.first, self.rows = body, first, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= row < self.rows:
            raise IndexError(row)
        return next(itertools.islice(self, row, None))

    def __iter__(self) -> Iterator[int]:
        lines = enumerate(self.body.split(b"\n"), self.first)
        return (number for number, line in lines if line)


def _even(
    path: Path, text: str, first: int, header: list[str], separator: str, places: list[int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield rows as wide as the header, with their lines.

    Empty cells beyond the header are cut, absent ones below names that are empty are filled. R's
    row names, which have no name over them, are taken off where they count 1, 2, 3 …
    """
    width = len(header)
    named = max((i + 1 for i, name in enumerate(header) if name), default=width)
    numbered = blank = rows = 0
    one_more = True
    for _, cells in _rows(path, text, first, separator, header, places):
        rows += 1
        one_more &= len(cells) == width + 1
        numbered += cells[0].strip() == str(rows)
        blank += not cells[-1].strip()
    row_names = one_more and numbered == rows > max(blank, 1)
    cure = "a value that holds the separator must stand in quotation marks"
    if one_more:
        cure += "; of R's write.table, whose row names have no name: row.names = FALSE"
    for number, cells in _rows(path, text, first, separator, header, places):
        if row_names:
            cells = cells[1:]
        if any(map(str.strip, cells[width:])):
            found = f"{len(cells)} cells under {_count(width, 'name')}"
            raise ValueError(f"{path}, line {number} has {found} ({cure})")
        if len(cells) < named:
            raise ValueError(
                f"{path}, line {number} ends early: it has "
                f"{_count(len(cells), 'cell')} under {_count(width, 'name')}"
            )
        yield number, [*cells[:width], *[""] * (width - len(cells))]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rows(
    path: Path, text: str, first: int, separator: str, header: list[str], places: list[int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, with the lines in which they begin."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, **dialect(separator))
    before, quoted = first, '"' in text
    try:
        for cells in reader:
            number, before = before, first + reader.line_num
            if not any(map(str.strip, cells)):
                continue
            if quoted and any("\n" in cell for cell in cells):
                _check_lines(path, number, cells, separator, len(header), places)
            yield number, cells
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {before}: {error}; a quotation mark that does not close, or one within "
            "a value?"
        ) from error


def _check_lines(
    path: Path, number: int, cells: list[str], separator: str, width: int, places: list[int]
) -> None:
    """Raise a ValueError for a cell over several lines that is wanted, or holds rows."""
    for i, cell in enumerate(cells):
        between = cell.split("\n")[1:-1]
        swallowed = any(s.count(separator) + 1 >= width > 1 for s in between)
        if "\n" in cell and (i in places or swallowed):
            raise ValueError(
                f"{path}, line {number}: a cell goes over {cell.count(chr(10)) + 1} lines; "
                "a quotation mark that does not close?"
            )
