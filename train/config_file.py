"""A run's config.json: what it was started with, read back and compared."""

import json
from pathlib import Path
from typing import Any

from train.config import Config, owners
from train.settings import flag

# 1: None stood for a setting that the method has not, and every method had two_pass.
FORMAT = 2
# Settings that came after format 1, with what was done before them, by method.
EARLIER = {"second_blur": 0.1, "erase_ratio": "width/height", "heads": 0}
EARLIER_DINO = {"interpolate_offset": 0.0, "koleo_over": "batch"}
# Settings that came later, with what was done before them.
LATER = {"projector_layers": 0, "init": "", "measures_weight": 0.0}
# Defaults that were others in format 1: a run begun with those goes on with them.
CHANGED = {
    "prototypes": 4096,
    "warmup_epochs": 20.0,
    "freeze_last_epochs": 1.0,
    "temperature_epochs": 30.0,
    **EARLIER,
    **EARLIER_DINO,
}


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
        settings = _earlier(settings) | settings
    unknown = [name for name in settings if not owners(name)]
    if unknown:
        raise ValueError(f"{path} holds settings unknown here: {', '.join(sorted(unknown))}")
    return settings


def _earlier(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a run of format 1 did where settings came later."""
    method = settings["method"]
    values = EARLIER | EARLIER_DINO
    if method != "moco" and settings.get("encoder", "vit_s8") == "vit_s8":
        values["heads"] = 12  # one architecture for all methods
    return {name: value for name, value in values.items() if method in owners(name)}


def kept_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the run in the folder to go on with has by a default that has changed since.

    Args:
        settings: given for the run, with `out`.
    """
    path = Path(settings["out"]) / "config.json"
    if not path.exists():
        return {}
    before = read_settings(path)
    if before["method"] != settings.get("method", "moco"):
        return {}
    old = CHANGED | {"heads": before.get("heads")}
    return {name: before[name] for name in old if name in before and before[name] == old[name]}


def check_same(config: Config, path: Path) -> None:
    """Refuse to resume a run under settings that would change its result.

    Raises:
        ValueError: names the settings that differ.
    """
    before, now = read_settings(path), config.settings
    before = {name: value for name, value in LATER.items() if name in now} | before
    free = {name for name, one in type(config).__dataclass_fields__.items() if one.metadata["free"]}
    names = [name for name in {**now, **before} if name not in free]
    changed = [name for name in names if before.get(name) != now.get(name)]
    if changed:
        what = ", ".join(f"{flag(k)} was {before.get(k)}, is {now.get(k)}" for k in changed)
        raise ValueError(
            f"{path.parent} was started with other settings ({what}); resume it with its own, name "
            "another --out, or give --overwrite to start anew"
        )
