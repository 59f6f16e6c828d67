"""Figures and tables in a results folder, as any command leaves them for the report to find.

    results/figures/<name>.svg, <name>.png    a figure; the report shows the SVG if there are both
    results/tables/<name>.csv, <name>.md      a table; the report shows the CSV if there are both
    results/figures/<name>.json               what to say of it, optional; likewise in tables/

The JSON holds any of FIELDS. A file without one is shown under its own name, in the section `More`.
`save_figure` and `save_table` write all of it.
"""

import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluate.results import is_baseline, running_line
from shards.write import atomic, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

FIELDS = {
    "section": "of the report, such as Batch effects; the same word for a figure and its table",
    "title": "a line",
    "caption": "what is to be seen, how it was computed, in a sentence or two",
    "headline": "one sentence for the head of the report: the finding, with its figures",
    "command": "of evaluate/main.py that made it, in a word; the report prints its command line",
    "line": "its whole command line, filled in here while it runs",
    "colours": "of a picture: {what: '#rrggbb'}, its legend",
    "best": "of a table: {column: 'max' or 'min'}, whose best value is set in bold",
}
FIGURES, TABLES = ("svg", "png"), ("csv", "md")  # the first of a name is shown
DPI = 160  # of the PNG
NAMED = 4  # encoders of which a headline speaks


@dataclass(frozen=True)
class Entry:
    """A figure or a table, and what its JSON says of it."""

    path: Path
    kind: str  # `figures` or `tables`
    section: str = "More"
    title: str = ""
    caption: str = ""
    headline: str = ""
    command: str = ""
    line: str = ""
    colours: dict[str, str] = field(default_factory=dict)
    best: dict[str, str] = field(default_factory=dict)


def save_figure(out: Path, name: str, figure: "Figure", **facts: object) -> Path:
    """Write a matplotlib figure as SVG and PNG, and what to say of it; return the SVG's path.

    The same figure gives the same bytes.

    Args:
        name: of the files: letters, digits and _+=@.- only.
        facts: some of FIELDS.

    Raises:
        ValueError: a name or a field that is none.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    base = _describe(out, "figures", name, facts)
    FigureCanvasAgg(figure)
    settings: dict[str, dict[str, Any]] = {"png": {"dpi": DPI}, "svg": {"metadata": {"Date": None}}}
    for kind, options in settings.items():
        data = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": name}):
            figure.savefig(data, format=kind, bbox_inches="tight", facecolor="white", **options)
        with atomic(base.with_name(f"{name}.{kind}")) as file:
            file.write(data.getvalue())
    return base.with_name(f"{name}.svg")


def save_picture(out: Path, name: str, picture: "Image", **facts: object) -> Path:
    """Write a picture as PNG, and what to say of it; return its path.

    Raises:
        ValueError: a name or a field that is none.
    """
    path = _describe(out, "figures", name, facts).with_name(f"{name}.png")
    with atomic(path) as file:
        picture.save(file, "PNG")
    return path


def save_table(out: Path, name: str, header: list[str], rows: list[list], **facts: object) -> Path:
    """Write a table as CSV and Markdown, and what to say of it; return the CSV's path.

    Args:
        rows: of cells, a number or text such as `0.746 (0.015)`; texts are written as they are.
        facts: some of FIELDS.

    Raises:
        ValueError: a name or a field that is none.
    """
    base = _describe(out, "tables", name, facts)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(base.with_name(f"{name}.csv"), text.getvalue())
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join(f"| {' | '.join(_markdown(cell) for cell in line)} |" for line in lines)
    title = f"{facts['title']}\n\n" if facts.get("title") else ""
    note = f"\n{facts['caption']}\n" if facts.get("caption") else ""
    write_text(base.with_name(f"{name}.md"), f"{title}{table}\n{note}")
    return base.with_name(f"{name}.csv")


def headline(of: str, parts: dict[str, str]) -> str:
    """Return one sentence on some encoders: the learnt ones first, NAMED at most.

    Args:
        of: what they are asked.
        parts: encoder -> what came out, to stand behind its name.
    """
    learnt_first = sorted(parts, key=is_baseline)
    said = [f"{encoder} {parts[encoder]}" for encoder in learnt_first[:NAMED]]
    more = [f"{len(parts) - NAMED} more below"] if len(parts) > NAMED else []
    return f"{of}: {'; '.join(said + more)}."


def label(text: str, length: int = 40) -> str:
    """Return a text that matplotlib neither sets as mathematics nor hides, cut to a length."""
    short = text if len(text) <= length else f"{text[: length - 1]}…"
    return short.replace("$", r"\$").lstrip("_")


def read_entries(out: Path) -> list[Entry]:
    """Return the figures and tables of a results folder, in the order of their names.

    Raises:
        ValueError: a JSON beside one that is not of this shape.
    """
    found = []
    for kind, endings in (("figures", FIGURES), ("tables", TABLES)):
        paths: dict[str, Path] = {}
        for ending in reversed(endings):
            paths |= {path.stem: path for path in (Path(out) / kind).glob(f"*.{ending}")}
        for stem, path in sorted(paths.items()):
            facts = _facts(path.with_name(f"{stem}.json"))
            facts.setdefault("title", stem.replace("_", " "))
            found.append(Entry(path, kind, **facts))
    return found


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of a CSV, or of the first table of a Markdown file.

    Raises:
        ValueError: it holds no table.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    else:
        lines = [line.strip() for line in text.splitlines()]
        found = re.search(r"(^\|.*\n?)+", "\n".join(lines), re.MULTILINE)
        lines = found[0].splitlines() if found else []
        rows = [
            [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for i, line in enumerate(lines)
            if i != 1  # the rule below the header
        ]
    if not rows or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"{path} is no table with as many cells in each row as in the first")
    return rows[0], rows[1:]


def _describe(out: Path, kind: str, name: str, facts: dict) -> Path:
    """Write the JSON of a figure or table and return its path, from which the others are named."""
    if not re.fullmatch(r"[\w+=@.-]+", name):
        raise ValueError(f"{name!r} names no file: letters, digits and _+=@.- only")
    if unknown := sorted(set(facts) - set(FIELDS)):
        raise ValueError(f"{name}: no field {unknown[0]!r}; there are {', '.join(FIELDS)}")
    if line := running_line(facts.get("command", "")):
        facts = facts | {"line": line}
    path = Path(out) / kind / f"{name}.json"
    write_text(path, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return path


def _facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        facts = {"headline" if k == "answer" else k: v for k, v in facts.items()}  # its first name
        shape = {name: dict if name in ("best", "colours") else str for name in FIELDS}
        wrong = [k for k, v in facts.items() if not isinstance(v, shape.get(k, ()))]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no description of a figure or table: {error!r}") from error
    if wrong:
        raise ValueError(f"{path}: {wrong[0]!r} is unknown or of another type; {', '.join(FIELDS)}")
    return facts


def _markdown(cell: object) -> str:
    return re.sub(r"([|<>\\])", r"\\\1", str(cell))
