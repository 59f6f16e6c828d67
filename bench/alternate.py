"""Take turns, ours and the plain way in one run, and word the line that a benchmark ends with."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def alternate(
    ways: Mapping[str, Callable[[], T]], repeats: int, warm_up: int = 0
) -> dict[str, list[T]]:
    """Call every way in turn, so that whatever else the machine does slows all alike.

    Args:
        ways: by name; each returns what it measured.
        repeats: turns that count.
        warm_up: turns before them that do not.

    Returns:
        What each returned, by name.
    """
    measured: dict[str, list[T]] = {name: [] for name in ways}
    for turn in range(warm_up + repeats):
        for name, way in ways.items():
            value = way()
            if turn >= warm_up:
                measured[name].append(value)
    return measured


def ratio(ours: Sequence[float], plain: Sequence[float], digits: int = 2) -> str:
    """Return the median and the range of the turns' ratios in words.

    Args:
        ours: rates, one a turn.
        plain: likewise.
        digits: after the point.
    """
    ratios = np.array(ours) / np.array(plain)
    middle, low, high = np.median(ratios), ratios.min(), ratios.max()
    return f"ratio {middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f} of {len(ratios)})"


def last_line(
    name: str, ours: Sequence[float], plain: Sequence[float], unit: str, digits: int = 2
) -> str:
    """Return the last line: `NAME: ratio R (min–max of n) ours A plain B unit`.

    Args:
        name: of the benchmark.
        ours: rates, one a turn.
        plain: likewise.
        unit: of the rates.
        digits: of the ratio after the point.
    """
    a, b = (f"{m:.1f}" if m < 100 else f"{m:.0f}" for m in (np.median(ours), np.median(plain)))
    return f"{name}: {ratio(ours, plain, digits)} ours {a} plain {b} {unit}"
