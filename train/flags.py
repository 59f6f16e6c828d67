"""The command line of a training run, made from the settings' dataclasses."""

import argparse
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from shards.command_line import program_parser
from train.config import RECIPES, DinoConfig, MocoConfig, configure, owners
from train.config_file import kept_defaults, read_settings
from train.settings import Data, Model, Optimisation, Run, flag

SHARED = (Data, Model, Optimisation, Run)


def parse(words: list[str]) -> tuple[MocoConfig | DinoConfig, argparse.Namespace]:
    """Read the settings of a training from its flags; what is returned and raised as of `read`.

    Raises:
        SystemExit: an unknown flag.
    """
    parser = program_parser("train/main.py", None)
    add_flags(parser)
    return read(parser.parse_args(words))


def read(options: argparse.Namespace) -> tuple[MocoConfig | DinoConfig, argparse.Namespace]:
    """Return the settings that flags give and, with --config, an earlier run's config.json.

    Args:
        options: what a parser with `add_flags` has read.

    Returns:
        The settings and the flags that are no settings (overwrite, dry_run).

    Raises:
        ValueError: no --data or --out, an unknown key in the file, or settings that cannot be
            meant.
    """
    given = dict(vars(options))
    rest = argparse.Namespace(**{k: given.pop(k) for k in ("overwrite", "dry_run")})
    path = given.pop("config")
    settings = (read_settings(path) if path else {}) | given
    missing = [f"--{name}" for name in ("data", "out") if name not in settings]
    if missing:
        raise ValueError(f"train/main.py needs {' and '.join(missing)}; --help lists all flags")
    if not rest.overwrite:
        settings = kept_defaults(settings) | settings
    return configure(**settings), rest


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting of any method; none has a default."""
    run = parser.add_argument_group(Run.__doc__)
    run.add_argument(
        "--config", type=Path, help="an earlier run's config.json, whose settings are the defaults"
    )
    run.add_argument("--overwrite", action="store_true", help="start the run anew")
    run.add_argument(
        "--dry-run", action="store_true", help="say what would be done and what it takes, and end"
    )
    for title, members in _groups():
        group = run if title == run.title else parser.add_argument_group(title)
        for one in members:
            kind: dict[str, Any] = {"type": one.type}
            words = RECIPES if one.name == "method" else one.metadata["choices"]
            if one.type is bool:
                kind = {"action": argparse.BooleanOptionalAction}
            elif words:  # checked with all other settings, those of a config.json too
                kind = {"metavar": "{" + ",".join(words) + "}"}
            text = f"{one.metadata['help']}{_default(one)}".replace("%", "%%")
            group.add_argument(flag(one.name), default=argparse.SUPPRESS, help=text, **kind)


def _groups() -> Iterator[tuple[str, list[Field]]]:
    """Return the groups of flags: what all methods have, then each kind of method's own."""
    seen: set[str] = set()
    every = [(kind.__doc__ or "", kind) for kind in SHARED]
    every += [("settings that differ by method", MocoConfig)]
    both = {f.name for f in fields(MocoConfig)} & {f.name for f in fields(DinoConfig)}
    for title, kind in every:
        yield title, [f for f in fields(kind) if f.name in both - seen]
        seen |= {f.name for f in fields(kind)} & both
    for title, kind in (("moco only", MocoConfig), ("the dinov2 methods only", DinoConfig)):
        yield title, [f for f in fields(kind) if f.name not in both]


def _default(one: Field) -> str:
    """Say what a setting is by default, for --help; the methods where their group does not."""
    methods = owners(one.name)
    values = {}
    for method in methods:
        recipe = RECIPES[method]
        values[method] = recipe.values.get(
            one.name, recipe.settings.__dataclass_fields__[one.name].default
        )
    if MISSING in values.values():
        return "; needed"
    if one.name == "method":
        return " (default: moco)"
    first, *others = map(_shown, values.values())
    if len(values) == len(RECIPES) and first not in others:  # those of DINOv2 are alike
        return f" (default: {first} with moco, {others[0]} with dinov2)"
    dinov2 = [name for name in RECIPES if name != "moco"]
    said = methods in (list(RECIPES), ["moco"], dinov2)  # by the title of the group
    of_some = "" if said else f"; {' and '.join(methods)} only"
    return f"{of_some} (default: {first})"


def _shown(value: object) -> str:
    """Write a default as a user would type it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
