"""The command line of every program: commands in one table, flags that say what they are."""

import argparse
import sys
from importlib import import_module

import pytest

from shards import command_line

PROGRAMS = {
    name: import_module(f"{name}.main") for name in ("extract", "shards", "train", "evaluate")
}
SINGLE = ("demo.main", "slurm.admit", "slurm.plan", "slurm.simulate", "slurm.status")
COMMANDS = [(name, command) for name, main in PROGRAMS.items() for command in main.COMMANDS]
GROUPED = 6  # flags of a command; more are in groups with a title


class Parsed(Exception):
    """A parser was asked to read a command line."""


def parser_of(module: str, *words: str) -> argparse.ArgumentParser:
    """Return the parser that a program's main reads these words with."""
    seen = []

    def stop(self, args=None, namespace=None):
        seen.append(self)
        raise Parsed

    main = import_module(module).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [module])
        with pytest.raises(Parsed):
            main(*[list(words)][: main.__code__.co_argcount])
    return seen[0]


def check(parser: argparse.ArgumentParser) -> None:
    """See that every flag has help with its default, and that many flags are in groups."""
    text = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert action.help, action.dest
        default = action.default
        if action.option_strings and (default or default == 0) and default is not False:
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            assert shown == argparse.SUPPRESS or f"(default: {shown})" in text, action.dest
    loose = [a for a in parser._optionals._group_actions if a.dest != "help"]
    assert not loose or len(parser._actions) - 1 <= GROUPED, [a.dest for a in loose]


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_flag_of_a_command_has_help_its_default_and_a_group(name, command):
    parser = parser_of(f"{name}.main", command)
    default = command in ("extract", "train")
    assert parser.prog == (f"{name}/main.py" if default else f"{name}/main.py {command}")
    check(parser)


@pytest.mark.parametrize("module", SINGLE)
def test_every_flag_of_a_program_without_commands_too(module):
    parser = parser_of(module)
    assert parser.prog == module.replace(".", "/") + ".py"
    check(parser)


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_lists_every_command_with_a_line(name, capsys):
    main = PROGRAMS[name]
    with pytest.raises(SystemExit, match="0"):
        main.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    width = max(map(len, main.COMMANDS))
    for command, about in main.COMMANDS.items():
        assert f"  {command:{width}}  {about.purpose}" in lines
    assert lines[0].startswith(f"usage: {name}/main.py")


def test_a_usage_line_names_what_must_be_given_and_few_flags_besides():
    usage = " ".join(parser_of("evaluate.main", "slide").format_usage().split())
    assert usage.startswith("usage: evaluate/main.py slide [flags] ")
    assert "--out FILE" in usage and "--min-probability" not in usage
    assert len(parser_of("train.main", "train").format_usage()) < 80
    parser = command_line.program_parser("a.py", "It does.")
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--cells")
    either.add_argument("--shards")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seed")
    assert parser.format_usage() == (
        "usage: a.py [-h] (--cells CELLS | --shards SHARDS) --out OUT [--seed SEED]\n"
    )
    for i in range(command_line.FEW):
        parser.add_argument(f"--flag-{i}")
    assert parser.format_usage() == (
        "usage: a.py [flags] (--cells CELLS | --shards SHARDS) --out OUT\n"
    )


@pytest.mark.parametrize(
    ("name", "word", "meant"),
    [
        ("extract", "statsu", "status"),
        ("shards", "mxi", "mix"),
        ("train", "plott", "plot"),
        ("evaluate", "robust", "robustness"),
        *((name, "xyz", "") for name in ("shards", "train", "evaluate")),
    ],
)
def test_a_mistyped_command_is_named(name, word, meant, capsys):
    assert PROGRAMS[name].main([word, "--out", "x"]) == 2
    error = capsys.readouterr().err
    assert f"no command {word!r}{f'; did you mean {meant}?' if meant else '.'} There are" in error
    assert ", ".join(PROGRAMS[name].COMMANDS) in error


def test_a_folder_named_nearly_as_a_command_is_a_folder_of_slides(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "statsu").mkdir()
    assert PROGRAMS["extract"].main(["statsu", "--out", "cells"]) == 2
    assert "no command" not in capsys.readouterr().err
    assert PROGRAMS["extract"].main(["slides.csv", "--out", "cells"]) == 2
    assert "slides.csv" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--seed"], ["-1"]])
@pytest.mark.parametrize("name", ["shards", "evaluate"])
def test_a_command_is_asked_for_where_none_is_given(name, words, capsys):
    assert PROGRAMS[name].main(words) == 2
    listed = ", ".join(PROGRAMS[name].COMMANDS)
    assert f"no command is given. There are {listed}" in capsys.readouterr().err
