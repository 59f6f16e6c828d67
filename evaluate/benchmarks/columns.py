"""A benchmark's CSV file, read and checked column by column."""

import csv
import math
from pathlib import Path

import numpy as np


def read_columns(
    path: Path,
    words: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> dict[str, np.ndarray]:
    """Read the named columns of a CSV file with a header; others are passed over.

    Args:
        path: UTF-8, with or without a byte-order mark.
        words: columns that must be there.
        numbers: columns that must be there, finite numbers in every row.
        optional: columns that may be there; where absent, they are '' in every row.
        may_be_empty: whether a header and no rows is a table too.

    Returns:
        Column name -> (N,) str, or float64 for `numbers`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no UTF-8, a column is absent, there are no rows, a row is short, or a
            number is none; names the line.
    """
    columns = {name: [] for name in words + numbers + optional}
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            header = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = header
            missing = [name for name in words + numbers if name not in header]
            if missing:
                raise ValueError(
                    f"{path}: no column {missing[0]!r}; found {', '.join(header) or 'nothing'}; "
                    f"needed are {', '.join(words + numbers)}"
                )
            for row in reader:
                for name, column in columns.items():
                    value = row.get(name, "") if name in optional else row[name]
                    if value is None:
                        raise ValueError(f"{path}, line {reader.line_num}: no {name}; a short row")
                    value = value.strip()
                    column.append(_number(path, reader, name, value) if name in numbers else value)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path} is no UTF-8 CSV file: {error}") from error
    if not columns[words[0]] and not may_be_empty:
        raise ValueError(f"{path}: a header and no rows")
    return {
        name: np.array(column, np.float64 if name in numbers else np.str_)
        for name, column in columns.items()
    }


def _number(path: Path, reader: csv.DictReader, name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}, line {reader.line_num}: {name} is {value!r}, not a number")
    return number
