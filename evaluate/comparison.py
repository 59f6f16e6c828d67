"""The paper's comparisons (Tables 2 and 6): a row per run, a column per benchmark, mean (s.d.)."""

from pathlib import Path

import numpy as np

from evaluate.exhibits import save_table
from evaluate.results import read_rows


def compare(
    out: Path,
    rows: list[str],
    first: str,
    name: str,
    metric: str = "balanced accuracy",
    split: str = "stratified",
) -> str:
    """Write results/tables/<name>.csv and .md from `probe.csv`; return the table as Markdown.

    Paper leaves open: which s.d.; here: of the sample (n - 1), over folds.

    Args:
        out: the results folder.
        rows: `LABEL=ENCODER` each, or the name of an encoder that was probed, in order.
        first: title of the first column.
        name: of the table's files.
        metric: one of evaluate.metrics.METRICS.
        split: `stratified` or `grouped`.

    Raises:
        ValueError: an encoder that was not probed, or on no benchmark that all others were.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for row in read_rows(out):
        if (row["metric"], row["split"]) == (metric, split):
            values.setdefault((row["encoder"], row["benchmark"]), []).append(row["value"])
    pairs = [(label or encoder, encoder) for label, _, encoder in (r.rpartition("=") for r in rows)]
    probed = {encoder for encoder, _ in values}
    for _, encoder in pairs:
        if encoder not in probed:
            raise ValueError(
                f"{out}/probe.csv holds no {split} {metric} of {encoder!r}; it holds "
                f"{', '.join(sorted(probed)) or 'nothing'}"
            )
    benchmarks = [
        benchmark
        for benchmark in sorted({benchmark for _, benchmark in values})
        if all((encoder, benchmark) in values for _, encoder in pairs)
    ]
    if not benchmarks:
        raise ValueError(f"{out}/probe.csv holds no benchmark that all of the rows were probed on")
    folds = [[values[encoder, b] for b in benchmarks] for _, encoder in pairs]
    mean = np.array([[np.mean(f) for f in row] for row in folds])  # (rows, benchmarks)
    sd = np.array([[np.std(f, ddof=1) for f in row] for row in folds])
    header = [first, *(f"{benchmark}: {metric}" for benchmark in benchmarks)]
    cells = [
        [label, *(f"{m:.3f} ({s:.3f})" for m, s in zip(*row, strict=True))]
        for (label, _), *row in zip(pairs, mean, sd, strict=True)
    ]
    kind = "stratified folds" if split == "stratified" else "folds that keep each group whole"
    save_table(
        out,
        name,
        header,
        cells,
        section="Comparison",
        title=f"{first}s compared: {metric}",
        caption=f"Linear probe, mean (s.d.) over {len(folds[0][0])} {kind}.",
        command="compare",
        best=dict.fromkeys(header[1:], "max"),
    )
    best = mean.round(3) == mean.round(3).max(axis=0)
    shown = [
        [line[0], *(f"**{c}**" if b else c for c, b in zip(line[1:], row, strict=True))]
        for line, row in zip(cells, best, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(header, *shown, strict=True)]
    lines = [header, ["-" * width for width in widths], *shown]
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines
    )
