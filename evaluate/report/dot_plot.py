"""A dot plot as inline SVG: a metric of each encoder, mean ± s.d., under both kinds of folds."""

from html import escape

import numpy as np

from evaluate.tables.table import Table

ROW_PX = 34
LEFT_PX = 122
WIDTH_PX = 440  # narrow, so that its letters stay legible on a phone
RIGHT_PX = 18
HEAD_PX = 18  # for what is said of a dot


def dot_plot(tables: list[Table], column: int, metric: str, chance: float | None) -> str:
    """Draw one metric of one benchmark, a row per encoder.

    Args:
        tables: one or two of the same benchmark, the paper's split first.
        column: of the metric.
        metric: its name.
        chance: what guessing gives, drawn as a line; None for no line.

    Returns:
        An <svg> element, all text escaped.
    """
    low = min((table.mean[:, column] - table.sd[:, column]).min() for table in tables)
    high = max((table.mean[:, column] + table.sd[:, column]).max() for table in tables)
    floor = 0.0 if low >= 0 else -1.0
    low = max(floor, np.floor(10 * min(low, chance if chance is not None else low) - 0.2) / 10)
    high = min(1.0, np.ceil(10 * high + 0.2) / 10)
    encoders = list(dict.fromkeys(name for table in tables for name in table.encoders))
    top = HEAD_PX + 16
    bottom = top + ROW_PX * len(encoders)

    def x(value: float) -> float:
        share = (value - low) / (high - low)
        return round(LEFT_PX + share * (WIDTH_PX - LEFT_PX - RIGHT_PX), 1)

    parts = [
        f'<svg viewBox="0 0 {WIDTH_PX} {bottom + 46}" role="img" '
        f'aria-label="{escape(metric)} of each encoder">'
    ]
    for tick in np.arange(round(low * 10), round(high * 10) + 1) / 10:
        parts.append(
            f'<line class="tick" x1="{x(tick)}" x2="{x(tick)}" y1="{HEAD_PX + 8}" y2="{bottom}"/>'
            f'<text class="axis" x="{x(tick)}" y="{bottom + 18}">{tick:.1f}</text>'
        )
    if chance is not None:
        parts.append(
            f'<line class="chance" x1="{x(chance)}" x2="{x(chance)}" y1="{HEAD_PX + 8}" '
            f'y2="{bottom}"/>'
        )
    middle = (LEFT_PX + WIDTH_PX - RIGHT_PX) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{bottom + 38}">{escape(metric)}</text>')
    for i, name in enumerate(encoders):
        y = top + ROW_PX * (i + 0.5)
        short = name if len(name) <= 15 else name[:14] + "…"
        parts.append(f'<text class="name" x="{LEFT_PX - 12}" y="{y + 5}">{escape(short)}</text>')
        for table in tables:
            if name not in table.encoders:
                continue
            row = table.encoders.index(name)
            mean, sd = table.mean[row, column], table.sd[row, column]
            first = table.split in ("stratified", "slide")
            at, kind = (y - 5, "stratified") if first else (y + 6, "grouped")
            said = escape(f"{name}, {table.split}: {mean:.3f} ± {sd:.3f}")
            parts.append(  # what is said of a dot stands above the plot while it is pointed at
                f'<g class="dot {kind}" tabindex="0" role="img" aria-label="{said}">'
                f'<line x1="{x(max(mean - sd, low))}" '
                f'x2="{x(min(mean + sd, high))}" y1="{at}" y2="{at}"/>'
                f'<circle class="at" cx="{x(mean)}" cy="{at}" r="5"/>'
                f'<rect class="near" x="{x(mean) - 14}" y="{at - 6}" width="28" height="12"/>'
                f'<text class="tip" x="{WIDTH_PX - RIGHT_PX}" y="16">{said}</text></g>'
            )
    return "".join([*parts, "</svg>"])
