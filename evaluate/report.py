"""The report: one HTML file with every table, map and contact sheet, and where they come from.

Any command adds to it by leaving files in the results folder (`save_figure` and `save_table` of
evaluate/exhibits.py write them):

    results/figures/<name>.svg, <name>.png    a figure; the SVG is shown if there are both
    results/tables/<name>.csv, <name>.md      a table; the CSV is shown if there are both
    results/{figures,tables}/<name>.json      optional: section, title, caption, answer, command, best
"""

import base64
import io
import json
from html import escape
from pathlib import Path

from PIL import Image

from evaluate.embed import write_text
from evaluate.plot import dot_plot
from evaluate.results import read_commands, read_facts
from evaluate.tables import Table, read_tables

LARGE_PX = 300_000  # a larger picture is embedded as WebP of high quality, a tenth of the bytes


def write_report(
    results: Path, path: Path, extra: list[Path] = (), title: str = "LEMON: what the encoder learnt"
) -> None:
    """Write one self-contained HTML file: images inside, no scripts, no references outwards.

    Args:
        results: the folder that `probe`, `map` and `sheet` wrote into.
        path: of the HTML file.
        extra: further pictures, each under its file's name.
        title: of the page.

    Raises:
        FileNotFoundError: no such results folder, or no such picture.
        ValueError: the folder holds nothing to report, or a picture does not open.
    """
    results = Path(results)
    if not results.is_dir():
        raise FileNotFoundError(f"no results folder {results}; `probe` makes one")
    tables, facts = read_tables(results), read_facts(results)
    maps, sheets = (sorted((results / kind).glob("*.png")) for kind in ("maps", "sheets"))
    if not (tables or maps or sheets or extra):
        raise ValueError(f"{results} holds no probe.csv, maps/ or sheets/; run `probe` first")
    sections = {
        "Probes": _probes(tables, facts),
        "Maps": "".join(_figure(p, _map_caption(p), wide=True) for p in maps),
        "Cells": "".join(_figure(p, _sheet_caption(p)) for p in sheets),
        "More": "".join(_figure(Path(p), Path(p).stem) for p in extra),
        "Provenance": _provenance(results, facts),
    }
    sections = {name: html for name, html in sections.items() if html}
    links = "".join(f'<a href="#{name.lower()}">{name}</a>' for name in sections)
    body = "".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>{html}</section>'
        for name, html in sections.items()
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    write_text(
        Path(path),
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><main><h1>{escape(title)}</h1>"
        f"<nav>{links}</nav>{body}</main></body></html>\n",
    )


def _probes(tables: list[Table], facts: dict) -> str:
    if not tables:
        return ""
    parts = [
        "<p>A logistic regression on frozen embeddings, five metrics, mean (s.d.) over folds; "
        "the best of each column is in bold.</p>"
    ]
    for name in dict.fromkeys(table.benchmark for table in tables):
        own = [table for table in tables if table.benchmark == name]
        known = facts["benchmarks"].get(name, {})
        classes = known.get("classes", {})
        counts = ", ".join(f"{kind} {count:,}" for kind, count in classes.items())
        parts.append(f"<h3>{escape(name)}</h3><p>{escape(counts)}</p>")
        parts.append(
            dot_plot(own, 0, own[0].metrics[0], 1 / len(classes) if classes else None)
            + '<p class="key"><b class="s">●</b> nuclei shuffled &ensp; <b class="g">○</b> '
            f"each {escape(known.get('group_kind') or 'group')} kept whole &ensp; ┆ chance</p>"
        )
        parts.extend(_table(table) for table in own)
        notes = [*known.get("notes", ()), *filter(None, [known.get("grouped")])]
        parts.append("".join(f"<p>{escape(note)}</p>" for note in notes))
    return "".join(parts)


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(metric)}</th>" for metric in table.metrics)
    rows = []
    for i, encoder in enumerate(table.encoders):
        cells = []
        for j in range(len(table.metrics)):
            mean, sd = table.cell(i, j).split(" ")
            mean = f"<b>{mean}</b>" if table.best(i, j) else mean
            cells.append(f"<td>{mean} <i>{sd}</i></td>")
        rows.append(f"<tr><th>{escape(encoder)}</th>{''.join(cells)}</tr>")
    return (
        f'<p class="caption">{escape(table.caption)}</p><div class="scroll"><table><thead><tr>'
        f"<th>encoder</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _map_caption(path: Path) -> str:
    encoder, _, samples = path.stem.partition("--")
    return f"{samples}, as {encoder} sees it: neighbours on the map look alike to the encoder"


def _sheet_caption(path: Path) -> str:
    kind, _, name = path.stem.partition("--")
    return f"{name}: {SHEETS.get(kind, kind)}"


def _figure(path: Path, caption: str, wide: bool = False) -> str:
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure><div class="scroll"><img{kind} alt="{escape(caption)}" src="{data_uri(path)}">'
        f"</div><figcaption>{escape(caption)}</figcaption></figure>"
    )


def data_uri(path: Path) -> str:
    """Return a picture as a data URI, re-encoded so that nothing but pixels goes in.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with Image.open(path) as image:
            picture = image.convert("RGB")
    except OSError as error:
        raise ValueError(f"{path} is no picture that opens: {error}") from error
    data, kind = io.BytesIO(), "png" if picture.width * picture.height < LARGE_PX else "webp"
    if kind == "png":
        picture.save(data, "PNG")
    else:
        picture.thumbnail((4000, 16000))
        picture.save(data, "WEBP", quality=88, method=3)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _provenance(results: Path, facts: dict) -> str:
    parts = []
    for entry in read_commands(results):
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


SHEETS = {
    "benchmark": "nuclei of each class, as the encoders see them (10 µm a side)",
    "cells": "extracted nuclei (15 µm a side)",
    "shards": "nuclei the encoder is trained on (15 µm a side)",
}
