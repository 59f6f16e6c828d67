"""docs/files.md and docs/troubleshooting.md say what the code says."""

import ast
import json
import re
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pytest

from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
FILES = DOCS / "files.md"


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of docs/files.md."""
    section = re.split(r"^#+ ", FILES.read_text().split(f"{heading}\n", 1)[1], flags=re.M)[0]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M).group().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def keys(heading: str) -> set[str]:
    """Return the names in backticks of a table's first column."""
    return {name for first, *_ in rows(heading) for name in re.findall(r"`([^`]+)`", first)}


def schema(which: str) -> pa.Schema:
    module, name = which.split(":")
    return getattr(import_module(module), name)


@pytest.mark.parametrize(
    ("heading", "which"),
    [
        ("### `<slide>.parquet`", "shards.schema:CELL_COLUMNS"),
        ("### `index.parquet`", "shards.schema:INDEX_COLUMNS"),
        ("### `cells-status/`: what `extract/main.py status` writes", "extract.status:COLUMNS"),
        ("### A selection: what `shards/main.py select` writes", "shards.selection:COLUMNS"),
    ],
)
def test_columns_are_the_codes(heading, which):
    def word(kind: pa.DataType) -> str:
        return f"{kind.value_type}, dictionary" if pa.types.is_dictionary(kind) else str(kind)

    documented = [(name.strip("`"), kind) for name, kind, *_ in rows(heading)]
    assert documented == [(field.name, word(field.type)) for field in schema(which)]


def test_fates_and_outcomes_are_the_codes():
    from extract.status import OUTCOMES
    from shards.schema import FATES

    said = {name.strip("`"): text for name, _, text in rows("### `<slide>.parquet`")}
    assert tuple(re.findall(r"`([^`]+)`", said["fate"])) == FATES
    page = FILES.read_text()
    assert all(f"`{outcome}`" in page for outcome in OUTCOMES)


def test_probe_csv_is_the_codes():
    from evaluate.results import COLUMNS

    assert tuple(name.strip("`") for name, *_ in rows("### `probe.csv`")) == COLUMNS


def test_formats_are_the_codes():
    from evaluate.benchmarks import prepared
    from evaluate.classes import apply, classifier
    from shards import dataset
    from shards.mix import layout
    from train import config_file

    encoder, manifest = (
        int(re.search(r"^FORMAT = (\d+)", (ROOT / file).read_text(), re.M)[1])
        for file in ("train/encoder.py", "evaluate/embeddings.py")  # torch takes seconds
    )
    expected = [dataset.FORMAT, layout.VERSION, config_file.FORMAT, encoder, manifest]
    assert [int(row[1]) for row in rows("## Formats")] == [
        *expected,
        prepared.FORMAT,
        classifier.FORMAT,
        apply.FORMAT,
    ]


def test_records_hold_the_keys_that_are_said(cells, shards_folder):
    record = json.loads((cells / "PAINTED-0001.json").read_text())
    assert keys("### `<slide>.json`") - {"done", "skipped", "failed"} == set(record)
    described = json.loads((shards_folder / "dataset.json").read_text())
    assert keys("### `dataset.json`") == set(described)


def messages_of(files: list[Path]) -> list[str]:
    """Return all texts in the code, what is filled in as …."""
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%[.\dsdgf]+", "…", node.value).replace("%%", "%"))
    return found


def test_messages_are_what_the_code_says():
    page = (DOCS / "troubleshooting.md").read_text()
    messages = re.findall(r"^\*\*(`+) ?(.+?) ?\1\*\*$", page, re.M)
    assert len(messages) >= 20
    files = [
        p
        for stage in ("extract", "shards", "train", "evaluate")
        for p in (ROOT / stage).rglob("*.py")
    ]
    texts = messages_of(files)
    for _, message in messages:
        parts = [part.strip() for part in re.split("…", message) if part.strip(" :;,.()/")]
        assert any(all(part in text for part in parts) for text in texts), message


def test_the_default_segmenter_is_the_one_that_is_said():
    said = re.search(
        r"Without `--segmenter`, `(\w+)` is used", (DOCS / "segmenters.md").read_text()
    )
    flag = re.search(r'"--segmenter",[^)]*?default="(\w+)"', (ROOT / "extract/main.py").read_text())
    assert said and flag
    assert said[1] == flag[1]
