"""The command line of a program: its commands in one table, each with its flags and its help."""

import argparse
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

FEW = 8  # flags that are named in a usage line; of more, those that must be given


class Help(argparse.RawDescriptionHelpFormatter):
    """Help that ends in the default where there is one, below a usage line that stays short."""

    def _format_usage(self, usage, actions, groups, prefix):
        groups = list(groups)
        of_needed = [g for g in groups if g.required]
        one_of = [a for group in of_needed for a in group._group_actions]
        free = [a for a in actions if a.option_strings and not a.required and a not in one_of]
        if usage or len(free) <= FEW:
            return super()._format_usage(usage, actions, groups, prefix)
        needed = [a for a in actions if a not in free]
        text = super()._format_usage(None, needed, of_needed, prefix)
        return text.replace(self._prog, f"{self._prog} [flags]", 1)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        # Not `in (None, False, …)`, which 0 would be in, too.
        unsaid = default is None or default is False or default in ("", [], argparse.SUPPRESS)
        if action.option_strings and not unsaid:
            shown = " ".join(map(str, default)) if isinstance(default, list) else "%(default)s"
            text += f" (default: {shown})"
        return text


@dataclass(frozen=True)
class Command:
    """A command of a program.

    Attributes:
        purpose: a line in the program's help, and the head of the command's own.
        add_flags: to the command's parser; may give it a longer description.
        run: with what the parser read; returns the exit code, None for 0.
    """

    purpose: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


def command_of(module: str, purpose: str) -> Command:
    """Return the command of a module, its `add_flags` and `run`, imported when it is called."""

    def add_flags(parser: argparse.ArgumentParser) -> None:
        import_module(module).add_flags(parser)

    def run(options: argparse.Namespace) -> int | None:
        return import_module(module).run(options)

    return Command(purpose, add_flags, run)


def at_least(low: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer of `low` or more."""

    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is less than {low}")
        return value

    number.__name__ = f"integer of {low} or more"
    return number


def positive(text: str) -> float:
    """Read a number above 0, for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return value


def add_parts(group: argparse._ArgumentGroup) -> None:
    """Add --part and --parts, for the tasks of an array."""
    group.add_argument(
        "--part", type=at_least(0), default=0, help="which share of the work, counted from 0"
    )
    group.add_argument("--parts", type=at_least(1), default=1, help="how many shares")


def check_part(options: argparse.Namespace) -> None:
    """Raise ValueError where there is no such part."""
    if options.part >= options.parts:
        raise ValueError(f"--part {options.part} of --parts {options.parts}: count from 0")


def program_parser(program: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows a program's docstring as it is written."""
    return argparse.ArgumentParser(program, description=doc, formatter_class=Help)


def command_parser(
    program: str, doc: str | None, commands: Mapping[str, Command], name: str, default: str = ""
) -> argparse.ArgumentParser:
    """Return the parser of a command; without a name, the program's own, which lists them.

    Args:
        name: of one of them, or nothing.
        default: the command that is meant where none is named; its help is the program's.
    """
    width = max(map(len, commands))
    listing = "".join(f"  {key:{width}}  {one.purpose}\n" for key, one in commands.items())
    if not name:
        parser = program_parser(program, doc)
        parser.epilog = f"commands:\n{listing}"
        parser.add_argument(
            "command", choices=commands, metavar="COMMAND", help="one of those below"
        )
        return parser
    command = commands[name]
    if name == default:
        parser = program_parser(program, f"{doc}\ncommands:\n{listing}")
    else:
        purpose = command.purpose[0].upper() + command.purpose[1:] + "."
        parser = program_parser(f"{program} {name}", purpose)
    command.add_flags(parser)
    return parser


def read_command(
    program: str,
    doc: str | None,
    commands: Mapping[str, Command],
    words: list[str],
    default: str = "",
    paths: bool = False,
) -> tuple[str, argparse.Namespace]:
    """Return the command that the words name, and what its parser reads of the rest.

    Args:
        default: the command that is meant where none is named.
        paths: the default takes paths, so that a first word may be one.

    Raises:
        ValueError: no command, or none of that name.
        SystemExit: --help, or flags that the command has not.
    """
    first = words[0] if words else ""
    flags = not first or first.startswith("-")
    near = difflib.get_close_matches(first, commands, 1)
    if first in commands:
        name, words = first, words[1:]
    elif default and (flags or (paths and (Path(first).exists() or not near))):
        name = default
    elif first in ("-h", "--help"):
        name = ""
    else:
        what = "no command is given" if flags else f"no command {first!r}"
        meant = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"{what}{meant} There are {', '.join(commands)}")
    return name, command_parser(program, doc, commands, name, default).parse_args(words)
