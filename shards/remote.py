"""Data sets behind a URL: each file fetched once, checked, and kept in a cache.

- `https://host/shards`, `s3://bucket/shards`, `gs://…`, `hf://…`: what shards/url.py opens;
- `pipe:ssh host cat /data/shards`: a command; `/name` is appended, or put in place of `{}`.

Files land whole and checked, or not at all, in a cache that is named by the content of
`dataset.json`, so the processes of a machine share it without locks, and the least recently used
shards make room.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset import parse_info
from shards.filetype import TAIL, cut_short, placeholder
from shards.url import Unreached, download
from shards.write import atomic

KEEP = 64  # shards in the cache
RETRY_DELAYS_S = (1, 2, 4, 8)  # before another attempt

log = logging.getLogger(__name__)


def is_remote(folder: str | Path) -> bool:
    """Tell whether a data set's place is a URL."""
    return str(folder).startswith("pipe:") or "://" in str(folder)


class Mirror:
    """The local copies of a remote data set's files."""

    def __init__(self, url: str, cache: str | Path | None = None):
        """Fetch `dataset.json` and the index.

        Args:
            url: the data set's folder.
            cache: None: `lemon-<user>` in the system's temporary folder.

        Raises:
            FileNotFoundError: the URL cannot be read.
            ValueError: what comes is no data set; says how it begins.
        """
        self.url = url
        root = Path(cache or Path(tempfile.gettempdir()) / f"lemon-{os.getuid()}")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise ValueError(f"{root} belongs to another user; give another cache folder")
        address = self._address("dataset.json")
        latest = root / f"dataset-{hashlib.sha256(address.encode()).hexdigest()[:16]}.json"
        # The first request: a wrong address is reported at once.
        self._fetch(
            "dataset.json",
            latest,
            lambda p: parse_info(p.read_bytes(), "it"),
            delays=RETRY_DELAYS_S[:1],
        )
        description = latest.read_bytes()
        info = parse_info(description, address)
        self.folder = root / hashlib.sha256(description).hexdigest()[:16]
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "dataset.json").is_file():
            with atomic(self.folder / "dataset.json") as file:
                file.write(description)
        index = self.folder / "index.parquet"
        wanted = info.get("index", {})
        if not _is_index(index, info):
            self._fetch("index.parquet", index, lambda path: _check_index(path, info, wanted))

    def fetch(self, name: str, size: int, sha256: str) -> Path:
        """Return the local copy of a shard.

        Args:
            name: of the shard.
            size: bytes.
            sha256: in hex.

        Raises:
            FileNotFoundError: the URL cannot be read.
            ValueError: what came is not the shard that `dataset.json` describes.
        """
        path = self.folder / name
        try:
            if path.stat().st_size == size:
                os.utime(path)
                return path
        except FileNotFoundError:
            self._make_room()
        self._fetch(name, path, lambda found: _check_digest(found, size, sha256), needed=size)
        return path

    def _fetch(
        self,
        name: str,
        path: Path,
        check: Callable[[Path], object],
        delays: tuple[int, ...] | None = None,
        needed: int = 0,
    ) -> None:
        """Fetch a file; it takes its name in the cache once it was checked.

        Args:
            check: given what came, raises ValueError where it is not what it should be.
            delays: seconds before another attempt, as many as there are; None: RETRY_DELAYS_S.
            needed: bytes, where known.
        """
        address = self._address(name)
        delays = RETRY_DELAYS_S if delays is None else delays
        for attempt in range(len(delays) + 1):
            try:
                with atomic(path, needed=needed) as file:
                    came = Path(file.name)
                    download(address, came)
                    try:
                        check(came)
                    except ValueError as error:
                        raise ValueError(f"{address}: {_begins(came)}: {error}") from error
                return
            except (Unreached, ValueError) as error:
                if attempt == len(delays):
                    if isinstance(error, ValueError):
                        raise
                    raise FileNotFoundError(
                        f"{error}; is it a folder that `mix` wrote, and does the network work?"
                    ) from error
                log.warning("%s (attempt %d of %d)", error, attempt + 1, len(delays) + 1)
                time.sleep(delays[attempt])
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{error}; is it a folder that `mix` wrote?") from error

    def _make_room(self) -> None:
        """Delete the shards that were used longest ago; who has one mapped keeps its bytes."""
        shards = []
        for path in self.folder.glob("*.tar"):
            try:
                shards.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:
                continue  # another process made room
        for _, path in sorted(shards)[: max(0, len(shards) - KEEP + 1)]:
            path.unlink(missing_ok=True)

    def _address(self, name: str) -> str:
        """Return the URL of a file."""
        return (
            self.url.replace("{}", name) if "{}" in self.url else f"{self.url.rstrip('/')}/{name}"
        )


def _begins(path: Path) -> str:
    """Say what came: how much, what it is, how it begins."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(0, size - TAIL))
        kind = placeholder(head, size) or cut_short(head, file.read(), size)
    start = head[:60].split(b"\0")[0].decode("ascii", "replace").replace("\ufffd", "?")
    said = f"{size} bytes came that begin {start!r}"  # of a tar the first member's name
    return f"{said}, which is {kind}" if kind else said


def _check_digest(path: Path, size: int, sha256: str) -> None:
    """Refuse a file of another size or content."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if (path.stat().st_size, found) != (size, sha256):
        raise ValueError(
            f"{path.stat().st_size} bytes of sha256 {found[:16]}… instead of {size} of "
            f"{sha256[:16]}…: damaged on the way, or of another data set"
        )


def _check_index(path: Path, info: dict, wanted: dict) -> None:
    """Refuse what is not the index that `dataset.json` describes; older ones say only its rows."""
    if wanted:
        _check_digest(path, wanted["bytes"], wanted["sha256"])
    try:
        rows = pq.read_metadata(path).num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"no Parquet file ({error})") from error
    if rows != info["samples"]:
        raise ValueError(f"an index of {rows} rows, dataset.json says {info['samples']}")


def _is_index(path: Path, info: dict) -> bool:
    """Tell whether the cache holds the index: what earlier versions put there was not checked."""
    try:
        _check_index(path, info, {})
    except (FileNotFoundError, ValueError):
        return False
    return path.stat().st_size == info.get("index", {}).get("bytes", path.stat().st_size)
