"""A JSON file of ours, which a full disk or a hand may have damaged."""

import json
from pathlib import Path
from typing import Any

from shards.filetype import check_file


def read_json(path: Path, cure: str) -> Any:
    """Read a JSON file.

    Args:
        path: of it.
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
