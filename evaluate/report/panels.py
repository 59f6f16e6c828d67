"""The report's parts as HTML: pictures, tables, maps, and the command lines below them."""

import base64
import io
import os
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from evaluate.report.figures import Entry, read_table
from evaluate.report.terms import explained
from evaluate.tables.table import Table

LARGE_PX = 300_000  # a larger picture is embedded as WebP of high quality, a tenth of the bytes
EMBEDDED = 15_000_000  # bytes of an interactive map up to which it goes into the page
LONG = 30  # rows from which on a table is folded

SHEETS = {
    "benchmark": "nuclei of each class, as the encoders see them (10 µm a side)",
    "cells": "extracted nuclei (15 µm a side)",
    "shards": "nuclei the encoder is trained on (15 µm a side)",
}


def command_line(commands: list[dict], command: str, stem: str = "") -> str:
    """Return the HTML of the command that made something, '' if it is not known.

    Args:
        commands: of evaluate.results.read_commands, oldest first.
        command: of evaluate/main.py, in a word.
        stem: of the file it made; of several such commands the one that names what the file's name
            ends in, else the last.
    """
    ran = [e["command"] for e in commands if e["command"].split()[2:3] == [command]]
    named = [line for line in ran if stem and stem.split("--")[-1] in line]
    line = (named or ran or [""])[-1]
    return _command(line) if line else ""


def _command(line: str) -> str:
    return f'<code class="command">{escape(line)}</code>'


def entry(one: Entry, commands: list[dict]) -> str:
    """Return a figure or table that a command left in the results folder."""
    line = one.line
    command = _command(line) if line else command_line(commands, one.command, one.path.stem)
    title = f"<h3>{escape(one.title)}</h3>" if one.title else ""
    caption = f"<span>{escape(one.caption)}</span>" if one.caption else ""
    if one.kind == "figures":
        return title + legend(one.colours) + figure(one.path, one.title, caption + command)
    header, rows = read_table(one.path)
    body = plain_table(header, rows, one.best)
    if len(rows) > LONG:
        body = f"<details><summary>{len(rows)} rows</summary>{body}</details>"
    return f'{title}{body}<p class="said">{caption}{command}</p>'


def legend(colours: dict[str, str]) -> str:
    """Return a legend of what each colour stands for; what is no colour has none.

    Args:
        colours: what -> #rrggbb.
    """
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(name)}</li>'
        if re.fullmatch(r"#[0-9a-fA-F]{6}", colour)
        else f"<li>{escape(name)}</li>"
        for name, colour in colours.items()
    )
    return f'<ul class="legend">{items}</ul>' if items else ""


def figure(path: Path, name: str, caption: str, wide: bool = False) -> str:
    """Return a picture; `caption` is HTML, `name` text."""
    kind = ' class="wide"' if wide else ""
    return (
        f'<figure><div class="scroll"><img{kind} alt="{escape(name)}" src="{data_uri(path)}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def plain_table(header: list[str], rows: list[list[str]], best: dict[str, str]) -> str:
    """Return a table; in the columns of `best` the highest or lowest value is bold."""
    marked = set()
    for name, kind in best.items():
        if name not in header:
            continue
        column = header.index(name)
        values = {i: v for i, row in enumerate(rows) if (v := _number(row[column])) is not None}
        if len(values) > 1:
            top = max(values.values()) if kind == "max" else min(values.values())
            marked |= {(i, column) for i, value in values.items() if value == top}
    lines = [
        f"<tr><th>{escape(row[0])}</th>"
        + "".join(_cell(value, (i, j) in marked) for j, value in enumerate(row) if j)
        + "</tr>"
        for i, row in enumerate(rows)
    ]
    return _table(header, lines)


def probe_table(table: Table) -> str:
    """Return a probe's table under its caption."""
    lines = [
        f"<tr><th>{escape(encoder)}</th>"
        + "".join(_cell(table.cell(i, j), table.best(i, j)) for j in range(len(table.metrics)))
        + "</tr>"
        for i, encoder in enumerate(table.encoders)
    ]
    return f'<p class="caption">{escape(table.caption)}</p>' + _table(
        ["encoder", *table.metrics], lines
    )


def _table(header: list[str], lines: list[str]) -> str:
    head = "".join(f"<th>{explained(name)}</th>" for name in header)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(text: str, best: bool) -> str:
    """Return a cell, a spread in brackets set back."""
    parts = re.fullmatch(r"(\S+) (\(.*\))", text)
    value, spread = parts.groups() if parts else (text, "")
    value = f"<b>{escape(value)}</b>" if best else escape(value)
    return f"<td>{value}{f' <i>{escape(spread)}</i>' if spread else ''}</td>"


def _number(text: str) -> float | None:
    found = re.match(r"-?[\d,]*\.?\d+(e-?\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def map_panel(picture: Path, page: Path, report: Path, commands: list[dict]) -> str:
    """Return a map: its picture, and the interactive page within the report or beside it.

    Args:
        picture: the PNG, if it exists.
        page: the HTML, if it exists.
        report: the report's own path, from which a page too large to embed is linked.
        commands: the commands run.
    """
    encoder, _, samples = picture.stem.partition("--")
    text = f"{samples}, as {encoder} sees it: neighbours on the map look alike to the encoder"
    command = command_line(commands, "map", picture.stem)
    parts = [f"<h3>{escape(picture.stem.replace('--', ' · '))}</h3>"]
    if page.is_file():
        size = page.stat().st_size
        mb = f"{size / 1e6:.1f} MB"
        if size <= EMBEDDED:
            source = escape(page.read_text(encoding="utf-8"))
            parts.append(
                f"<details class=interactive><summary>Open the interactive map ({mb})</summary>"
                f'<iframe title="{escape(text)}" loading="lazy" '
                f'sandbox="allow-scripts allow-downloads" srcdoc="{source}"></iframe></details>'
            )
        else:
            link = quote(os.path.relpath(page, report.parent))
            parts.append(f'<p><a href="{link}">The interactive map</a>, a file of {mb}</p>')
    if picture.is_file():
        caption = f"<span>{escape(text)}</span>{command}"
        parts.append(figure(picture, text, caption, wide=True))
    return "".join(parts)


def sheet_panel(path: Path) -> str:
    """Return a contact sheet."""
    kind, _, name = path.stem.partition("--")
    text = f"{name}: {SHEETS.get(kind, kind)}"
    return figure(path, text, escape(text))


def data_uri(path: Path) -> str:
    """Return a picture as a data URI, re-encoded so that nothing but pixels goes in.

    An SVG goes in as it is: as the source of an image a browser runs none of its scripts and
    follows none of its references.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    if path.suffix == ".svg":
        text = path.read_bytes()
        if b"<svg" not in text[:2000]:
            raise ValueError(f"{path} is no SVG")
        return f"data:image/svg+xml;base64,{base64.b64encode(text).decode()}"
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
