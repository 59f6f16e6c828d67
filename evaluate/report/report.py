"""The report: one HTML file with every table, figure, map and sheet, and where they come from.

Any command adds to it by leaving files in the results folder (`save_figure` and `save_table` of
evaluate/report/figures.py write them):

    results/figures/<name>.svg, <name>.png    a figure; the SVG is shown if there are both
    results/tables/<name>.csv, <name>.md      a table; the CSV is shown if there are both
    results/{figures,tables}/<name>.json      optional: section, title, caption, headline, command,
                                              line, best (figures.FIELDS says what each is)

The findings come first, then a section for each analysis. There is no script in the page: tooltips
are CSS, and an interactive map is a page of its own in a sandboxed frame, loaded when opened.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from evaluate.report import panels
from evaluate.report.dot_plot import dot_plot
from evaluate.report.figures import Entry, read_entries
from evaluate.report.terms import KEPT_WHOLE, explained
from evaluate.report.verdict import Verdict, first_screen, judge
from evaluate.results import read_commands, read_facts
from evaluate.tables.detail import SECTION as DETAILS
from evaluate.tables.table import CLASSIFICATION, Table, read_tables, readouts, take
from shards.write import write_text

# The order of sections; those of other names come after Molecules.
ORDER = (
    *("Probes", "Slides", DETAILS, "Comparison", "Compute", "Composition"),
    *("Robustness to staining", "Batch effects", "Molecules"),
)
LAST = ("Maps", "Cells", "More", "Provenance")


def write_report(
    results: Path,
    path: Path,
    extra: Sequence[Path] = (),
    title: str = "LEMON: what the encoder learnt",
    beside: Sequence[Path] = (),
) -> None:
    """Write one self-contained HTML file: pictures and interactive maps inside.

    An interactive map too large to embed is linked.

    Args:
        extra: further pictures, each under its file's name.
        beside: other results folders, whose figures and tables are shown too, but for what stands
            behind their probes.

    Raises:
        FileNotFoundError: no such results folder, or no such picture.
        ValueError: the folder holds nothing to report, or a file in it does not open.
    """
    results = Path(results)
    for folder in (results, *beside):
        if not folder.is_dir():
            raise FileNotFoundError(f"no results folder {folder}; `probe` makes one")
    tables, facts = _without_grid(results, read_tables(results)), read_facts(results)
    commands, entries = read_commands(results), read_entries(results)
    for folder in beside:
        commands = read_commands(folder) + commands
        entries += [one for one in read_entries(folder) if one.section != DETAILS]
    drawn = [*results.glob("maps/*.png"), *results.glob("maps/*.html")]
    maps = sorted({one.with_suffix("") for one in drawn})
    sheets = sorted((results / "sheets").glob("*.png"))
    if not (tables or entries or maps or sheets or extra):
        raise ValueError(
            f"{results} holds no probe.csv, figures/, tables/, maps/ or sheets/; run `probe` first"
        )
    parts = {"Probes": _probes(tables, facts, commands)}
    for one in entries:
        parts[one.section] = parts.get(one.section, "") + panels.entry(one, commands)
    parts["Maps"] = parts.get("Maps", "") + "".join(
        panels.map_panel(
            stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.html"), path, commands
        )
        for stem in maps
    )
    parts["Cells"] = parts.get("Cells", "") + "".join(map(panels.sheet_panel, sheets))
    parts["More"] = parts.get("More", "") + "".join(
        panels.figure(Path(p), Path(p).stem, escape(Path(p).stem)) for p in extra
    )
    parts["Provenance"] = _provenance(facts, commands)
    between = sorted(set(parts) - {*ORDER, *LAST})
    sections = [name for name in (*ORDER, *between, *LAST) if parts.get(name)]
    entries = sorted(entries, key=lambda one: sections.index(one.section))
    head = _head(title, tables, facts, commands) + _findings(judge(tables, facts), results, entries)
    write_text(Path(path), _page(title, head, {name: parts[name] for name in sections}))


def _page(title: str, head: str, sections: dict[str, str]) -> str:
    """Put the page together."""
    links = "".join(f'<a href="#{_anchor(name)}">{escape(name)}</a>' for name in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{escape(name)}</h2>{html}</section>'
        for name, html in sections.items()
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    # The maps' frames inherit this policy; the page itself has no script.
    scripts = "script-src 'unsafe-inline'; " if "<iframe " in body else ""
    policy = (
        f"default-src 'none'; {scripts}style-src 'unsafe-inline'; img-src data: blob:; "
        "form-action 'none'; base-uri 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f"<nav>{links}</nav><main>{head}{body}</main></body></html>\n"
    )


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def _without_grid(results: Path, tables: list[Table]) -> list[Table]:
    """Leave out the runs of a composition grid, which has a section of its own."""
    runs = {path.stem for path in (results / "selections").glob("*.parquet")}
    left = []
    for table in tables:
        rows = [i for i, encoder in enumerate(table.encoders) if encoder not in runs]
        if rows:
            left.append(take(table, rows))
    return left


def _head(title: str, tables: list[Table], facts: dict, commands: list[dict]) -> str:
    """Return the title, and how much was looked at."""
    known = facts["benchmarks"]
    encoders = {encoder for table in tables for encoder in table.encoders}
    nuclei = sum(known[name]["nuclei"] for name in known if "nuclei" in known[name])
    asked = f"{len(known)} benchmark{'s' * (len(known) != 1)}"
    counts = [f"{len(encoders)} encoder{'s' * (len(encoders) != 1)} on {asked}, {nuclei:,} nuclei"]
    counts = (counts if encoders else []) + [e["finished"][:10] for e in commands[-1:]]
    return f"<header><h1>{escape(title)}</h1><p>{escape(' · '.join(counts))}</p></header>"


def _findings(verdicts: list[Verdict], results: Path, entries: list[Entry]) -> str:
    """Return what came out, before how: the answer, and a line for each analysis."""
    said: dict[str, str] = {}  # by section
    for one in entries:
        if one.headline:
            said[one.section] = said.get(one.section, "") + f"<p>{escape(one.headline)}</p>"
    lines = "".join(
        f'<li><a href="#{_anchor(section)}">{escape(section)}</a>{lines}</li>'
        for section, lines in said.items()
    )
    return first_screen(verdicts, results) + (
        f'<ul class="headlines">{lines}</ul>' if lines else ""
    )


def _probes(tables: list[Table], facts: dict, commands: list[dict]) -> str:
    if not tables:
        return ""
    parts = [
        f"<p>A linear model on frozen embeddings, mean (s.d.) over {explained('folds')}; the best "
        "of each column is in bold. Point at a dot for its value.</p>"
        + "".join(f"<p>{escape(note)}</p>" for note in readouts(facts))
        + f'<p class="said">{panels.command_line(commands, "probe")}</p>'
    ]
    for name in dict.fromkeys(table.benchmark for table in tables):
        own = [table for table in tables if table.benchmark == name]
        known = facts["benchmarks"].get(name, {})
        classes = known.get("classes", {})
        counts = ", ".join(f"{kind} {count:,}" for kind, count in classes.items())
        parts.append(f"<h3>{escape(name)}</h3><p>{escape(counts)}</p>")
        second = known.get("group_kind") or "group"
        filled, hollow = ("nuclei shuffled", f"each {second} kept whole")
        if own[0].split not in CLASSIFICATION:
            filled, hollow = ("each slide left out", "each patient left out")
        keys = [f'<b class="s">●</b> {escape(filled)}'] if own else []
        if len(own) > 1:
            keys.append(f'<b class="g">○</b> {explained(hollow, KEPT_WHOLE)}')
        keys += ["┆ chance"] if classes else []
        parts.append(
            dot_plot(own, 0, own[0].metrics[0], 1 / len(classes) if classes else None)
            + f'<p class="key">{" &ensp; ".join(keys)}</p>'
        )
        parts.extend(map(panels.probe_table, own))
        notes = [*known.get("notes", ()), *filter(None, [known.get("grouped")])]
        parts.append("".join(f"<p>{escape(note)}</p>" for note in notes))
    return "".join(parts)


def _provenance(facts: dict, commands: list[dict]) -> str:
    parts = []
    for entry in commands:
        versions = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
        parts.append(
            f"<pre>{escape(entry['command'])}</pre><p>{escape(entry['finished'])}, "
            f"{entry['seconds']:.0f} s, commit {escape((entry['commit'] or 'unknown')[:10])}; "
            f"{escape(versions)}</p>"
        )
    for name, encoders in facts["encoders"].items():
        protocol = facts["benchmarks"].get(name, {}) | {"encoders": encoders}
        text = escape(json.dumps(protocol, indent=1, ensure_ascii=False))
        parts.append(
            f"<details><summary>{escape(name)}: protocol and encoders</summary><pre>{text}</pre>"
            "</details>"
        )
    return "".join(parts)
