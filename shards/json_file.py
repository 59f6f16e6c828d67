"""A JSON file of ours, which a full disk or a hand may have damaged."""

import json
from pathlib import Path
from typing import Any

from shards.filetype import check_file


def read_json(path: Path, cure: str) -> Any:
    """Read a JSON file.

    Args:
        cure: what to do where it is damaged, in half a sentence.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        check_file(path)
        raise ValueError(f"{path} is no JSON ({error}), damaged or cut short; {cure}") from error


def read_versioned(path: Path, what: str, form: int, needed: tuple[str, ...], cure: str) -> dict:
    """Read a JSON object that says its format.

    Args:
        what: it is, as "a classifier".
        form: the number that `format` must have.
        needed: its other keys.
        cure: what to do where it is none of this, in half a sentence.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no JSON, of another format, or lacks a key.
    """
    found = read_json(path, cure)
    number = found.get("format", "none") if isinstance(found, dict) else "none"
    if number != form:
        raise ValueError(f"{path}: {what} of format {number}; this code reads {form}: {cure}")
    if absent := [name for name in needed if name not in found]:
        raise ValueError(f"{path} lacks {absent[0]!r}; {cure}")
    return found
