"""Tables in the paper's form: a row per encoder, a column per metric, mean (s.d.), best in bold."""

import csv
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evaluate.endings import described
from evaluate.probes.metrics import METRICS
from evaluate.results import rank, read_facts, read_rows
from shards.write import write_text

CLASSIFICATION = ("stratified", "grouped")
SPLITS = (*CLASSIFICATION, "slide", "patient")
PEARSON = "Pearson"
PAPER_SPLIT = {METRICS[0]: "stratified", PEARSON: "slide"}  # of the metrics that sum a benchmark up


@dataclass(frozen=True)
class Table:
    """One benchmark under one kind of folds."""

    benchmark: str
    split: str  # `stratified` or `grouped`; of a regression `slide` or `patient`
    caption: str
    encoders: tuple[str, ...]
    mean: np.ndarray  # (encoders, metrics)
    sd: np.ndarray  # likewise; the sample's, over folds
    metrics: tuple[str, ...] = METRICS

    def cell(self, row: int, column: int) -> str:
        """Return a value as the paper prints it: 0.746 (0.015)."""
        return f"{self.mean[row, column]:.3f} ({self.sd[row, column]:.3f})"

    def best(self, row: int, column: int) -> bool:
        """Tell whether no encoder has a better value, to the digits shown."""
        shown = self.mean.round(3)
        return len(self.encoders) > 1 and shown[row, column] == shown[:, column].max()


def read_tables(out: Path) -> list[Table]:
    """Summarise `probe.csv` over folds; no tables if nothing was probed.

    Paper leaves open: which s.d.; here: of the sample (n - 1).
    """
    rows, facts = read_rows(out), read_facts(out)
    values: dict[tuple, list[float]] = {}
    for row in rows:
        key = (row["benchmark"], row["split"], row["encoder"], row["metric"])
        values.setdefault(key, []).append(row["value"])
    tables = []
    for benchmark in sorted({key[0] for key in values}):
        for split in SPLITS:
            names = {key[2] for key in values if key[:2] == (benchmark, split)}
            if not names:
                continue
            encoders = tuple(sorted(names, key=rank))
            metrics = METRICS if split in CLASSIFICATION else (PEARSON,)
            folds = np.array(
                [[values[benchmark, split, e, m] for m in metrics] for e in encoders]
            )  # (encoders, metrics, folds)
            caption = _caption(
                benchmark, split, folds.shape[2], facts["benchmarks"].get(benchmark, {})
            )
            mean, sd = folds.mean(axis=2), folds.std(axis=2, ddof=1)
            tables.append(Table(benchmark, split, caption, encoders, mean, sd, metrics))
    return tables


def take(table: Table, rows: list[int]) -> Table:
    """Return a table of some of its encoders."""
    names = tuple(table.encoders[i] for i in rows)
    return replace(table, encoders=names, mean=table.mean[rows], sd=table.sd[rows])


def _caption(name: str, split: str, count: int, facts: dict) -> str:
    if not facts:
        return name
    used = facts.get("used", f"{facts['nuclei']:,} nuclei")
    if split not in CLASSIFICATION:
        genes = len(facts["targets"])
        return f"{name}, {used}, {genes} genes; each {split} of {count} left out"
    folds = f"{count} stratified folds, nuclei shuffled"
    if split == "grouped":
        kind = facts["group_kind"]
        folds = f"{count} folds that keep each {kind} whole ({facts['groups']} {kind}s)"
    positive = f", AUPR of {facts['positive']}" if facts["positive"] else ""
    return f"{name}, {used}, {len(facts['classes'])} classes{positive}; {folds}"


def markdown(tables: list[Table]) -> str:
    """Return the tables as aligned Markdown, legible in a terminal too."""
    parts = []
    for table in tables:
        head = ["encoder", *table.metrics]
        body = [
            [
                markdown_text(encoder),
                *(
                    f"**{table.cell(i, j)}**" if table.best(i, j) else table.cell(i, j)
                    for j in range(len(table.metrics))
                ),
            ]
            for i, encoder in enumerate(table.encoders)
        ]
        parts.append(f"{markdown_text(table.caption)}:\n\n{markdown_table(head, body)}\n")
    note = "Mean (s.d.) over folds; the best of each column in bold."
    return "\n".join([*parts, note, ""]) if parts else ""


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns are aligned; cells are Markdown already."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |" for line in lines
    )


def latex(tables: list[Table]) -> str:
    """Return the tables as LaTeX (booktabs)."""
    parts = []
    for table in tables:
        lines = []
        for i, encoder in enumerate(table.encoders):
            cells = [
                rf"\textbf{{{table.cell(i, j)}}}" if table.best(i, j) else table.cell(i, j)
                for j in range(len(table.metrics))
            ]
            lines.append(" & ".join([latex_text(encoder), *cells]) + r" \\")
        head = [" & ".join(["Encoder", *table.metrics]) + r" \\", r"\midrule"]
        caption = latex_text(table.caption) + ". Mean (s.d.) over folds."
        parts.append(latex_frame(caption, len(table.metrics), [*head, *lines]))
    return "\n".join(parts)


def latex_frame(caption: str, columns: int, lines: list[str]) -> str:
    """Return a LaTeX table of lines between booktabs' outer rules.

    Args:
        caption: LaTeX.
        columns: beside the first.
        lines: LaTeX, the head's and the rules within included.
    """
    return (
        "\\begin{table}\n\\centering\n\\caption{"
        + caption
        + "}\n\\begin{tabular}{l"
        + "c" * columns
        + "}\n\\toprule\n"
        + "\n".join(lines)
        + "\n\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )


def comma_separated(tables: list[Table]) -> str:
    """Return all tables as one CSV, a row per benchmark, split and encoder."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [*METRICS, *([PEARSON] if any(PEARSON in t.metrics for t in tables) else [])]
    writer.writerow(["benchmark", "split", "encoder", *columns])
    for table in tables:
        for i, encoder in enumerate(table.encoders):
            cells = [
                table.cell(i, table.metrics.index(name)) if name in table.metrics else ""
                for name in columns
            ]
            writer.writerow([table.benchmark, table.split, encoder, *cells])
    return text.getvalue()


def write_tables(out: Path) -> str:
    """Write `table.md`, `table.csv` and `table.tex`; return the first."""
    tables = read_tables(out)
    write_text(Path(out) / "table.csv", comma_separated(tables))
    write_text(Path(out) / "table.tex", latex(tables))
    text = markdown(tables) + "".join(f"{note}\n" for note in readouts(read_facts(out)))
    write_text(Path(out) / "table.md", text)
    return text


def readouts(facts: dict) -> list[str]:
    """Return a sentence on each encoder whose embeddings are not used as they are."""
    manifests = {name: m for known in facts["encoders"].values() for name, m in known.items()}
    said = {name: described(manifest) for name, manifest in manifests.items()}
    return [f"{name}: {text}." for name, text in sorted(said.items()) if text]


def markdown_text(text: str) -> str:
    """Return a text with Markdown's signs escaped."""
    return re.sub(r"([|*<>`\\])", r"\\\1", text)


def latex_text(text: str) -> str:
    """Return a text with LaTeX's signs escaped."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda found: special.get(found[0], "\\" + found[0]), text)
