"""A run's config.json: what it was started with, read back and compared."""

import json
from pathlib import Path
from typing import Any

from train.config import Config, flag, owners

# 1: None stood for a setting that the method has not, and every method had two_pass.
FORMAT = 2


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a config.json, of this format or an earlier one.

    Raises:
        ValueError: it holds none, or one this code does not know, or is of a later format.
    """
    try:
        held = json.loads(path.read_text())
        form, settings = held.get("format", 1), dict(held["settings"])
    except FileNotFoundError as error:
        raise ValueError(f"--config {path}: no such file") from error
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no run's config.json: {error!r}") from error
    if form not in (1, FORMAT):
        raise ValueError(
            f"{path} is of format {form}; this code reads 1 to {FORMAT}: update the code, or name "
            "another --out"
        )
    if form == 1:
        settings = {name: value for name, value in settings.items() if value is not None}
        if settings.setdefault("method", "moco") != "moco":  # once the only one
            settings.pop("two_pass", None)
    unknown = [name for name in settings if not owners(name)]
    if unknown:
        raise ValueError(f"{path} holds settings unknown here: {', '.join(sorted(unknown))}")
    return settings


def check_same(config: Config, path: Path) -> None:
    """Refuse to resume a run under settings that would change its result.

    Raises:
        ValueError: names the settings that differ.
    """
    before, now = read_settings(path), config.settings
    free = {name for name, one in type(config).__dataclass_fields__.items() if one.metadata["free"]}
    names = [name for name in {**now, **before} if name not in free]
    changed = [name for name in names if before.get(name) != now.get(name)]
    if changed:
        what = ", ".join(f"{flag(k)} was {before.get(k)}, is {now.get(k)}" for k in changed)
        raise ValueError(
            f"{path.parent} was started with other settings ({what}); resume it with its own, name "
            "another --out, or give --overwrite to start anew"
        )
