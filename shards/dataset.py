"""`dataset.json`, the description and commit mark of a data set."""

import hashlib
import json
import re
from pathlib import Path

FORMAT = 1  # of dataset.json
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.tar")  # of a shard; names become paths and commands


def read_info(folder: Path) -> dict:
    """Return what `dataset.json` holds.

    Raises:
        FileNotFoundError: no such folder, or no finished data set in it.
        ValueError: it is no description, of another format, or names what no shard may be called.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; make it with `python shards/main.py mix`")
    path = folder / "dataset.json"
    if not path.is_file() or not (folder / "index.parquet").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished shards (no dataset.json or no index.parquet); "
            "make them with `python shards/main.py mix cells/ --out shards/`"
        )
    return parse_info(path.read_bytes(), path)


def parse_info(text: bytes, path: Path | str) -> dict:
    """Return what the text of a `dataset.json` holds.

    Raises:
        ValueError: it is no description, of another format, or names what no shard may be called.
    """
    try:
        info = json.loads(text)
        form = info["format"]
        names = [shard["name"] for shard in info["shards"]] if form == FORMAT else []
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no data set's description: {error!r}") from error
    if form != FORMAT:
        raise ValueError(f"{path} is of format {form}; this code reads {FORMAT}: mix again")
    for name in names:
        if not NAME.fullmatch(name):
            raise ValueError(f"{path} names a shard {name!r}, which is no name that mix gives")
    return info


def about_file(path: Path) -> dict:
    """Return a file's size and sha256, as `dataset.json` keeps them."""
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def digest(source: dict) -> str:
    """Return a sha256 that names a data set by what determined it, its `source`."""
    return hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
