"""Where a table says that an image is: a path, `~`, or a path as a URL."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

# A path of this machine as a URL (RFC 8089); and any other.
LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def located(source: Path, name: str, where: str) -> Path:
    """Return the path that an entry of a list names, from the list's folder.

    `~` is a home, and `file:///data/a.svs` a path, as file managers and QuPath copy it.

    Raises:
        ValueError: it is another URL.
    """
    if found := LOCAL.match(name):
        return Path(unquote(name[found.end() :]))
    refuse_url(name, where)
    return source.parent / os.path.expanduser(name)


def refuse_url(name: str, where: str) -> None:
    """Raise a ValueError for what is no path."""
    if URL.match(name):
        raise ValueError(
            f"{where}: {name} is a URL, and images are read from a disk, many pieces in any "
            "order; download it (or mount its store) and give its path"
        )
