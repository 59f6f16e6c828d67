"""The pages: their links, pictures, paths and commands exist, and they agree with the code."""

import argparse
import ast
import configparser
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("encoders/**/*.md")]
    + [ROOT / "slurm" / "README.md", ROOT / "slurm" / "scale.md"]
)
FRONT = [page for page in PAGES if page.parent != ROOT / "slurm"]  # what a newcomer reads
FOLDERS = "extract shards train evaluate slurm demo bench tests docs".split()
PROGRAMS = "python python3 torchrun bash make git pip cp gdc-client".split()
SETTINGS = "RUN CELLS SHARDS OUT BENCHMARKS SLIDES BENCHMARK".split()  # of the recipes
LARGEST = 300_000  # bytes of a picture


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind #, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_and_pictures_are_there(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert found.is_relative_to(ROOT), f"{page.name} links out of the clone: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


def test_pictures_are_small_and_shown():
    shown = "".join(page.read_text() for page in PAGES)
    for picture in (ROOT / "docs" / "images").iterdir():
        if picture.suffix != ".md":
            assert picture.stat().st_size < LARGEST, picture
            assert picture.name in shown, f"{picture} is on no page"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", FRONT, ids=names(FRONT))
def test_pages_name_what_a_clone_has(page):
    text = page.read_text()
    assert "../shared" not in text, "no clone has ../shared"
    assert not re.search(r"(?<![\w/])/(work|home|root|tmp)/", text), "a path of one machine"
    for word in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", prose(page)):
        made = word.startswith(("shards/train-", "shards/.mix", "demo/out"))
        if not made and not word.endswith(tuple(MADE)):
            assert (ROOT / word).exists(), f"{page.name} names {word}"


# What commands write into folders that bear a stage's name, and weights that may come later.
MADE = ["shards/contact.png", "network/nuclei.safetensors"]


# Commands ------------------------------------------------------------------------------------------


class Parsed(Exception):
    """A command line was understood."""


COMMANDS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "bash"))
]


def said(block: str, folder: Path) -> list[tuple[dict[str, str], list[str]]]:
    """Let bash read a block and return the commands it would run: their settings and words.

    Nothing is run: each program is a function that writes down its words, and PATH is empty.
    """
    settings = "".join(f' "{name}=${{{name}-}}"' for name in SETTINGS)
    functions = "".join(
        f"{name}() {{ printf '%s\\0'{settings} {name} \"$@\" >&3; printf '\\n\\0' >&3; }}\n"
        for name in PROGRAMS
    )
    script = f"set -eu\ncd() {{ :; }}\n.() {{ :; }}\nexec 3>said\n{functions}\n"
    array = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "2"}
    examples = {"SLIDES": "MY-SLIDES", "DATA": "MY-BENCHMARKS"}  # docs/training.md sets them
    done = subprocess.run(
        ["/bin/bash", "-c", script + block.replace(".venv/bin/", "")],
        cwd=folder,
        env={"PATH": "/nowhere", **array, **examples},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stderr}\n{block}"
    commands = (folder / "said").read_text().split("\n\0")[:-1]
    split = [command.split("\0")[:-1] for command in commands]
    count = len(SETTINGS)
    return [(dict(w.split("=", 1) for w in words[:count]), words[count:]) for words in split]


@pytest.mark.parametrize("block", COMMANDS)
def test_commands_are_understood(block, tmp_path):
    for settings, words in said(block, tmp_path):
        understood(settings, words)


def understood(settings: dict[str, str], words: list[str]) -> None:
    """See that a command names what is there and that its parser takes its words."""
    program, *words = words
    if program == "torchrun":
        while words[0].startswith("--nproc"):
            words = words[1:]
        assert words[0] == "train/main.py", words
        program = "python"
    if program in ("python", "python3") and words[0] != "-m":
        script, *words = words
        assert (ROOT / script).is_file(), f"no {script}"
        if script.startswith("bench/"):
            flags = {word for word in words if word.startswith("--")}
            assert all(flag in (ROOT / script).read_text() for flag in flags), words
        elif script == "train/main.py" and words[0].startswith("-") and "--config" not in words:
            import_module("train.flags").parse(words, "")  # settings that fit each other, too
        else:
            parse_alone(script, words)
    elif program == "bash":
        text = (ROOT / words[0]).read_text()  # or it is not there
        for name in re.findall(r"\$\{(\w+):\?", text):
            alone = words[1:] == ["list"] or settings[name]  # of the environment before
            assert alone or words[0].startswith("slurm/") or len(words) > 1, f"needs {name}"
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert [word for word in words if "=" not in word and word not in targets] == [], words
    elif program == "pip" and words[-1].startswith(".["):
        assert set(words[-1].strip(".[]").split(",")) <= known_extras(), words


def parse_alone(script: str, words: list[str]) -> None:
    """Run a command as far as its parser."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(self, args=None, namespace=None):
        raise Parsed(parse(self, args, namespace))

    main = import_module(script.removesuffix(".py").replace("/", ".")).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(Parsed):
            main(*[words][: main.__code__.co_argcount])


def known_extras() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(setup["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_extras_and_python_examples(page):
    for extras in re.findall(r"`(?:pip install -e )?\.\[([\w,]+)\]`", page.read_text()):
        assert set(extras.split(",")) <= known_extras(), extras
    for example in blocks(page, "python"):
        ast.parse(example)


@pytest.mark.parametrize(
    "block",
    [
        "python shards/main.py mix cells/",  # without --out
        "python shards/main.py mix cells/ --out a --seeds 1",
        "python evaluate/main.py prob --out a",
        "python extract/no.py a",
        "torchrun train/main.py --data a --out b --kappa 5",  # not of MoCo v3
        "bash train/compare.sh",
        "bash no.sh",
        "make tea",
        "pip install -e .[moon]",
        "wget a",
        "python 'a",
    ],
)
def test_a_wrong_command_is_seen(block, tmp_path):
    with pytest.raises((AssertionError, SystemExit, OSError, ValueError, pytest.fail.Exception)):
        for settings, words in said(block, tmp_path):
            understood(settings, words)


# docs/files.md -------------------------------------------------------------------------------------

FILES = ROOT / "docs" / "files.md"


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
    from shards import dataset
    from shards.mix import layout
    from train import config_file

    encoder, manifest = (
        int(re.search(r"^FORMAT = (\d+)", (ROOT / file).read_text(), re.M)[1])
        for file in ("train/encoder.py", "evaluate/embeddings.py")  # torch takes seconds
    )
    expected = [dataset.FORMAT, layout.VERSION, config_file.FORMAT, encoder, manifest]
    assert [int(row[1]) for row in rows("## Formats")] == [*expected, prepared.FORMAT]


def test_records_hold_the_keys_that_are_said(cells, shards_folder):
    record = json.loads((cells / "PAINTED-0001.json").read_text())
    assert keys("### `<slide>.json`") - {"done", "skipped", "failed"} == set(record)
    described = json.loads((shards_folder / "dataset.json").read_text())
    assert keys("### `dataset.json`") == set(described)


# docs/troubleshooting.md ---------------------------------------------------------------------------


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
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
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


def test_the_citation_can_be_read():
    text = (ROOT / "CITATION.cff").read_text()
    for line in ("cff-version: 1.2.0", "license: MIT", "doi:", "given-names:", "title:"):
        assert line in text
    version = re.search(r"^version: (.+)$", text, re.M)[1]
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert version == setup["metadata"]["version"]
    assert setup["metadata"]["license"] in (ROOT / "LICENSE").read_text()
