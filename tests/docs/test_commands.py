"""The commands on the pages: bash reads them, the programs are there, their parsers take them."""

import argparse
import ast
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name, setup

PROGRAMS = "python python3 torchrun bash make git pip cp curl chromium gdc-client hf".split()
SETTINGS = "RUN CELLS SHARDS OUT BENCHMARKS SLIDES BENCHMARK".split()  # of the recipes


class Parsed(Exception):
    """A command line was understood."""


COMMANDS = [
    pytest.param(block, id=f"{name(page)}-{number}")
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
    all_understood(block, tmp_path)


def all_understood(block: str, folder: Path) -> None:
    """See that every command of a block can be run."""
    for settings, words in said(block, folder):
        understood(settings, words)


def understood(settings: dict[str, str], words: list[str]) -> None:
    """See that a command names what is there and that its parser takes its words."""
    program, *words = words
    if program == "torchrun":
        while words[0].startswith("--nproc"):
            words = words[1:]
        assert words[0] == "train/main.py", words
        program = "python"
    if program in ("python", "python3") and words[0] == "-c":
        ast.parse(words[1])
    elif program in ("python", "python3") and words[0] != "-m":
        script, *words = words
        assert (ROOT / script).is_file(), f"no {script}"
        if script.startswith("bench/"):
            flags = {word for word in words if word.startswith("--")}
            assert all(flag in (ROOT / script).read_text() for flag in flags), words
        elif script == "train/main.py" and words[0].startswith("-") and "--config" not in words:
            import_module("train.flags").parse(words)  # settings that fit each other, too
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
    """Return the extras that pip can install."""
    return set(setup()["options.extras_require"])


@pytest.mark.parametrize("page", PAGES, ids=name)
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
        all_understood(block, tmp_path)


QUICK = ("extract/main.py status", "extract/main.py sheet")
QUICK += ("shards/main.py info", "shards/main.py verify")


def test_quick_commands_run(cells, shards_folder, tmp_path, monkeypatch):
    (tmp_path / "cells").symlink_to(cells)
    shutil.copytree(shards_folder, tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in blocks(ROOT / "docs" / "stages.md", "bash"):
        for _, words in said(block, tmp_path):
            if " ".join(words[1:3]) in QUICK:
                monkeypatch.setattr(sys, "argv", words[1:])
                main = import_module(words[1].removesuffix(".py").replace("/", ".")).main
                assert main(*[words[2:]][: main.__code__.co_argcount]) == 0, words
                ran.append(words[2])
    assert ran == ["status", "sheet", "info", "verify"]
