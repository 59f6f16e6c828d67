"""A benchmark's CSV file, read and checked column by column."""

from pathlib import Path

import numpy as np

from shards.table import MISSING, read_table


def read_columns(
    path: Path,
    words: tuple[str, ...],
    numbers: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    may_be_empty: bool = False,
    say_unknown: bool = False,
    as_written: tuple[str, ...] = (),
    perhaps: tuple[str, ...] = (),
) -> dict[str, np.ndarray]:
    """Read the named columns of a CSV file with a header; others are passed over.

    Args:
        words: columns that must be there.
        numbers: columns that must be there, finite numbers in every row.
        optional: columns that may be there; where absent, they are '' in every row.
        may_be_empty: whether a header and no rows is a table too.
        say_unknown: warn of other columns: in a table that its user has written.
        perhaps: columns that may be there, numbers; NaN where absent or empty.
        as_written: columns whose words for no value (`nan`, `NA`) stay, to be counted.

    Returns:
        Column name -> (N,) str, '' where there is no value; or float64 for `numbers` and
        `perhaps`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no table, a column is absent, there are no rows, a row is short or long,
            or a number is none; names the line.
    """
    table = read_table(path, (*words, *numbers), (*optional, *perhaps), say_unknown)
    if not len(table) and not may_be_empty:
        raise ValueError(f"{path}: a header and no rows")
    texts = {
        name: np.array(table.words(name, () if name in as_written else MISSING), np.str_)
        for name in (*words, *optional)
    }
    values = {name: table.numbers(name) for name in numbers}
    return texts | values | {name: table.numbers(name, MISSING) for name in perhaps}
