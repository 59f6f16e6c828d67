"""Tables 1, 10, 11 and 12 in the paper's layout, from any results, the paper's numbers beside ours.

`paper_tables.json` beside this file holds what the paper prints. A table's rows are encoders in
families, its columns metrics of benchmarks; the best of each column is in bold, ours and the
paper's apart.
"""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluate.probes.metrics import METRICS
from evaluate.results import DECISIVE, rank, read_pairs
from evaluate.tables.table import (
    PEARSON,
    SPLITS,
    latex_frame,
    latex_text,
    markdown_table,
    markdown_text,
)

DATA = Path(__file__).with_name("paper_tables.json")
TITLES = {
    "midog25": "MIDOG25 (majority)",
    "nucls-super": "NuCLS (super)",
    "pannuke": "PanNuke (classification)",
    "hest-bowel": "HEST-Bowel",
    "hest-breast": "HEST-Breast",
    "hest-lung": "HEST-Lung",
}
SHORT = {
    "AUC": "auc",
    "AUPR": "aupr",
    "balanced accuracy": "bal acc",
    "F1 macro": "f1 (macro)",
    "F1 weighted": "f1 (weighted)",
    PEARSON: "pcc",
}
FIVE = tuple(name for name in SHORT if name in METRICS)  # in the order of Tables 10-12
FAMILIES = {  # by how an encoder's name begins; the rest are of the last
    "Baselines": ("pixels", "morphology", "untrained"),
    "Natural images TL": ("resnet18", "resnet50", "efficientnet"),
    "Natural images FM": ("dinov2-",),
    "Tile level FM": ("uni", "virchow2", "h-optimus-0"),
    "Cell level FM": (),
}
Cell = tuple[float, float]  # mean and s.d. over folds


@dataclass(frozen=True)
class Layout:
    """A table to be rendered: what the paper prints, and what was found."""

    title: str
    columns: list[tuple[str, str]]  # benchmark and metric
    rows: list[str]  # encoders
    ours: dict[str, dict[tuple[str, str], Cell]]
    paper: dict[str, dict[tuple[str, str], Cell]] | None  # None: not asked for
    names: dict[str, str]  # of encoders, as the paper prints them

    def families(self) -> list[tuple[str, list[str]]]:
        """Return the encoders by family, empty families left out."""
        grouped: dict[str, list[str]] = {family: [] for family in FAMILIES}
        for encoder in self.rows:
            grouped[_family(encoder)].append(encoder)
        return [(family, encoders) for family, encoders in grouped.items() if encoders]

    def sources(self) -> list[tuple[str, dict]]:
        """Return what stands side by side in a column."""
        return [("", self.ours)] + ([("paper", self.paper)] if self.paper is not None else [])

    def cell(self, source: dict, encoder: str, column: tuple[str, str]) -> tuple[str, bool]:
        """Return a cell's text, and whether it is the best of its column, to the digits shown."""
        found = source.get(encoder, {}).get(column)
        if found is None:
            return "–", False
        shown = [round(row[column][0], 3) for row in source.values() if column in row]
        best = len(shown) > 1 and round(found[0], 3) == max(shown)
        return f"{found[0]:.3f} ({found[1]:.3f})", best


def layouts(
    folders: list[Path], numbers: list[str], paper: bool = False, grouped: bool = False
) -> list[Layout]:
    """Lay the tables out.

    Args:
        folders: results of `probe`; together they must be of one protocol.
        numbers: of the paper's tables; a table without any result is left out unless `paper`.
            Benchmarks the paper has not are columns of Table 1, and tables of their own.
        paper: put the paper's numbers beside ours.
        grouped: folds that keep groups whole, or patients, instead of the paper's.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no such table, nothing to show, or results that do not belong in one table.
    """
    data = json.loads(DATA.read_text(encoding="utf-8"))
    unknown = [number for number in numbers if number not in data["tables"]]
    if unknown:
        raise ValueError(f"no table {unknown[0]}; there are {', '.join(data['tables'])}")
    ours = _read(folders, grouped)
    own = sorted({column for row in ours.values() for column in row})
    own_names = list(dict.fromkeys(name for name, _ in own if name not in TITLES))
    tables = []
    for number in numbers:
        known = data["tables"][number]
        columns = [tuple(column) for column in known["columns"]]
        if number == "1":
            columns += [
                (name, metric)
                for name in own_names
                for metric in (METRICS[0], PEARSON)
                if (name, metric) in own
            ]
        printed = {
            encoder: dict(zip(columns, map(tuple, cells), strict=False))
            for encoder, cells in known["rows"].items()
        }
        title = f"Table {number}: {known['caption']}"
        tables.append(_layout(title, columns, ours, printed if paper else None, data["encoders"]))
    tables += [
        _layout(name, [(name, m) for m in FIVE], ours, {} if paper else None, data["encoders"])
        for name in own_names
        if (name, METRICS[0]) in own
    ]
    tables = [table for table in tables if table.rows]
    if not tables:
        raise ValueError(f"{', '.join(map(str, folders))}: no results for these tables")
    return tables


def markdown(tables: list[Layout]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for table in tables:
        lines = [["", *(f"{_title(b)} {SHORT[m]}{tag}" for b, m, tag, _ in _columns(table))]]
        for family, encoders in table.families():
            lines.append([f"*{family}*", *[""] * (len(lines[0]) - 1)])
            for encoder in encoders:
                texts = [table.cell(s, encoder, (b, m)) for b, m, _, s in _columns(table)]
                cells = [f"**{text}**" if best else text for text, best in texts]
                lines.append([markdown_text(table.names.get(encoder, encoder)), *cells])
        parts.append(f"{markdown_text(table.title)}:\n\n{markdown_table(lines[0], lines[1:])}\n")
    return "\n".join([*parts, "Mean (s.d.) over folds; the best of each column in bold.", ""])


def latex(tables: list[Layout]) -> str:
    """Return the tables as LaTeX (booktabs), benchmarks spanning their columns."""
    parts = []
    for table in tables:
        columns = _columns(table)
        heads: list[list] = []
        for benchmark, *_ in columns:
            if heads and heads[-1][0] == benchmark:
                heads[-1][1] += 1
            else:
                heads.append([benchmark, 1])
        spans = [rf"\multicolumn{{{n}}}{{c}}{{{latex_text(_title(b))}}}" for b, n in heads]
        lines = [
            " & ".join(["", *spans]) + r" \\",
            " & ".join(["", *(latex_text(SHORT[m] + tag) for _, m, tag, _ in columns)]) + r" \\",
        ]
        for family, encoders in table.families():
            lines += [r"\midrule", rf"\textit{{{latex_text(family)}}} \\"]
            for encoder in encoders:
                texts = [table.cell(s, encoder, (b, m)) for b, m, _, s in columns]
                cells = [rf"\textbf{{{text}}}" if best else text for text, best in texts]
                name = latex_text(table.names.get(encoder, encoder))
                lines.append(" & ".join([name, *cells]).replace("–", "--") + r" \\")
        note = ". Values are mean (s.d.) over folds, best values are in bold."
        parts.append(latex_frame(latex_text(table.title) + note, len(columns), lines))
    return "\n".join(parts)


def comma_separated(tables: list[Layout]) -> str:
    """Return all cells as one CSV, a row per table, encoder, benchmark, metric and source."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("table", "family", "encoder", "benchmark", "metric", "source", "mean", "sd", "best")
    writer.writerow(names)
    for table in tables:
        for family, encoders in table.families():
            for encoder in encoders:
                for benchmark, metric, tag, source in _columns(table):
                    found = source.get(encoder, {}).get((benchmark, metric))
                    if found:
                        best = table.cell(source, encoder, (benchmark, metric))[1]
                        place = [table.title, family, encoder, benchmark, metric]
                        numbers = [f"{value:.6g}" for value in found]
                        writer.writerow([*place, tag.strip() or "ours", *numbers, int(best)])
    return text.getvalue()


def _read(folders: list[Path], grouped: bool) -> dict[str, dict[tuple[str, str], Cell]]:
    """Return mean and s.d. by encoder, benchmark and metric."""
    facts: dict[str, tuple[Path, dict]] = {}
    values: dict[tuple[str, str, str], list[float]] = {}
    seen: dict[tuple[str, str], Path] = {}
    splits = (SPLITS[1], SPLITS[3]) if grouped else (SPLITS[0], SPLITS[2])
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"no results folder {folder}; `probe` makes one")
        for pair in read_pairs(folder):
            name, encoder = pair["benchmark"], pair["encoder"]
            first, known = facts.setdefault(name, (folder, pair["facts"]))
            for key in DECISIVE:
                if known.get(key) != pair["facts"].get(key):
                    what = "other nuclei" if key == "sha256" else "another protocol"
                    raise ValueError(
                        f"{folder} holds {name} of {what} than {first}: they are no one table"
                    )
            if (name, encoder) in seen:
                raise ValueError(
                    f"{encoder} on {name} is in {seen[name, encoder]} and in {folder}; give one "
                    "of them, or probe under another name, as in mine=PATH"
                )
            seen[name, encoder] = folder
            for row in pair["rows"]:
                if row["split"] in splits and row["metric"] in SHORT:
                    values.setdefault((encoder, name, row["metric"]), []).append(row["value"])
    found: dict[str, dict[tuple[str, str], Cell]] = {}
    for (encoder, name, metric), folds in values.items():
        cell = (float(np.mean(folds)), float(np.std(folds, ddof=1)))
        found.setdefault(encoder, {})[name, metric] = cell
    return found


def _layout(
    title: str,
    columns: list[tuple[str, str]],
    ours: dict[str, dict[tuple[str, str], Cell]],
    printed: dict[str, dict[tuple[str, str], Cell]] | None,
    names: dict[str, str],
) -> Layout:
    shown = {e: row for e, row in ours.items() if any(column in row for column in columns)}
    order = list(names)
    every: set[str] = set(shown) | set(printed or {})
    encoders = sorted(every, key=lambda e: (order.index(e) if e in order else len(order), rank(e)))
    return Layout(title, columns, encoders, shown, printed, names)


def _columns(table: Layout) -> list[tuple[str, str, str, dict]]:
    """Return benchmark, metric, tag and source of every printed column, empty ones left out."""
    return [
        (benchmark, metric, f" {tag}" if tag else "", source)
        for benchmark, metric in table.columns
        for tag, source in table.sources()
        if any((benchmark, metric) in row for row in source.values())
    ]


def _family(encoder: str) -> str:
    for family, starts in FAMILIES.items():
        if starts and encoder.startswith(starts):
            return family
    return "Cell level FM"


def _title(benchmark: str) -> str:
    return TITLES.get(benchmark, benchmark)
