"""The paper's comparisons (Tables 2 and 6): a row per run or runs, a column per benchmark."""

from pathlib import Path

import numpy as np

from evaluate.report.figures import save_table
from evaluate.results import read_rows
from evaluate.tables.table import PAPER_SPLIT, markdown_table, markdown_text

SHORT = {"balanced accuracy": "bal acc", "Pearson": "pcc"}  # as the paper heads columns


def compare(
    out: Path, rows: list[str], first: str, name: str, wanted: dict[str, str] = PAPER_SPLIT
) -> str:
    """Write results/tables/<name>.csv and .md from `probe.csv`; return the table as Markdown.

    Paper leaves open: which s.d.; here: of the sample (n - 1), over folds. A row of several
    runs has the mean over runs, and its standard error.

    Args:
        rows: `LABEL=ENCODER` each, or `LABEL=ENCODER,ENCODER`, runs that differ by seed, or the
            name of an encoder that was probed, in order.
        wanted: metrics, and the split that each is of.

    Raises:
        ValueError: an encoder that was not probed, or on no benchmark that all others were.
    """
    values: dict[str, dict[tuple[str, str], list[float]]] = {}  # encoder -> column -> folds
    for row in read_rows(out):
        if wanted.get(row["metric"]) == row["split"]:
            column = (row["benchmark"], row["metric"])
            values.setdefault(row["encoder"], {}).setdefault(column, []).append(row["value"])
    runs: list[tuple[str, list[str]]] = []  # a row's label, and encoders
    for label, _, word in (row.rpartition("=") for row in rows):
        runs.append((label or word, [word] if word in values else word.split(",")))
    for encoder in (encoder for _, encoders in runs for encoder in encoders):
        if encoder not in values:
            what = " or ".join(f"{split} {metric}" for metric, split in wanted.items())
            raise ValueError(
                f"{out}/probe.csv holds no {what} of {encoder!r}; it holds "
                f"{', '.join(sorted(values)) or 'nothing'}"
            )
    shared = set.intersection(*(set(values[e]) for _, encoders in runs for e in encoders))
    columns = sorted(shared, key=lambda c: (list(wanted).index(c[1]), c[0]))
    if not columns:
        raise ValueError(f"{out}/probe.csv holds no benchmark that all of the rows were probed on")
    table = [[_summary([values[e][c] for e in encoders]) for c in columns] for _, encoders in runs]
    header = [first, *(f"{benchmark} {SHORT.get(metric, metric)}" for benchmark, metric in columns)]
    cells = [
        [label, *(f"{mean:.3f} ({spread:.3f})" for mean, spread in row)]
        for (label, _), row in zip(runs, table, strict=True)
    ]
    kinds = "; ".join(f"{metric}, {split} folds" for metric, split in wanted.items())
    spreads = "(s.d.) over folds"
    if any(len(encoders) > 1 for _, encoders in runs):
        spreads += "; (standard error) over runs where a row has several"
    save_table(
        out,
        name,
        header,
        cells,
        section="Comparison",
        title=f"{first.removesuffix('s')}s compared",
        caption=f"Linear probe, mean {spreads}: {kinds}.",
        command="compare",
        best=dict.fromkeys(header[1:], "max"),
    )
    mean = np.array(table)[:, :, 0]  # (rows, columns)
    best = mean.round(3) == mean.round(3).max(axis=0)
    shown = [
        [
            markdown_text(line[0]),
            *(f"**{c}**" if b else c for c, b in zip(line[1:], row, strict=True)),
        ]
        for line, row in zip(cells, best, strict=True)
    ]
    return markdown_table(header, shown)


def _summary(folds: list[list[float]]) -> tuple[float, float]:
    """Return mean and s.d. over the folds of one run; of several, mean and its standard error."""
    if len(folds) == 1:
        return float(np.mean(folds[0])), float(np.std(folds[0], ddof=1))
    means = [np.mean(run) for run in folds]
    return float(np.mean(means)), float(np.std(means, ddof=1) / len(means) ** 0.5)
