"""The paper's comparisons (Tables 2 and 6): a row per run, a column per benchmark, mean (s.d.)."""

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

    Paper leaves open: which s.d.; here: of the sample (n - 1), over folds.

    Args:
        rows: `LABEL=ENCODER` each, or the name of an encoder that was probed, in order.
        wanted: metrics, and the split that each is of.

    Raises:
        ValueError: an encoder that was not probed, or on no benchmark that all others were.
    """
    values: dict[str, dict[tuple[str, str], list[float]]] = {}  # encoder -> column -> folds
    for row in read_rows(out):
        if wanted.get(row["metric"]) == row["split"]:
            column = (row["benchmark"], row["metric"])
            values.setdefault(row["encoder"], {}).setdefault(column, []).append(row["value"])
    pairs = [(label or encoder, encoder) for label, _, encoder in (r.rpartition("=") for r in rows)]
    for _, encoder in pairs:
        if encoder not in values:
            what = " or ".join(f"{split} {metric}" for metric, split in wanted.items())
            raise ValueError(
                f"{out}/probe.csv holds no {what} of {encoder!r}; it holds "
                f"{', '.join(sorted(values)) or 'nothing'}"
            )
    shared = set.intersection(*(set(values[encoder]) for _, encoder in pairs))
    columns = sorted(shared, key=lambda c: (list(wanted).index(c[1]), c[0]))
    if not columns:
        raise ValueError(f"{out}/probe.csv holds no benchmark that all of the rows were probed on")
    folds = [[values[encoder][column] for column in columns] for _, encoder in pairs]
    mean = np.array([[np.mean(f) for f in row] for row in folds])  # (rows, columns)
    sd = np.array([[np.std(f, ddof=1) for f in row] for row in folds])
    header = [first, *(f"{benchmark} {SHORT.get(metric, metric)}" for benchmark, metric in columns)]
    cells = [
        [label, *(f"{m:.3f} ({s:.3f})" for m, s in zip(*row, strict=True))]
        for (label, _), *row in zip(pairs, mean, sd, strict=True)
    ]
    kinds = "; ".join(f"{metric} over {split} folds" for metric, split in wanted.items())
    save_table(
        out,
        name,
        header,
        cells,
        section="Comparison",
        title=f"{first.removesuffix('s')}s compared",
        caption=f"Linear probe, mean (s.d.): {kinds}.",
        command="compare",
        best=dict.fromkeys(header[1:], "max"),
    )
    best = mean.round(3) == mean.round(3).max(axis=0)
    shown = [
        [
            markdown_text(line[0]),
            *(f"**{c}**" if b else c for c, b in zip(line[1:], row, strict=True)),
        ]
        for line, row in zip(cells, best, strict=True)
    ]
    return markdown_table(header, shown)
