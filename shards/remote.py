"""Data sets behind a URL: each file fetched once, front to back, through webdataset's opening.

- `https://host/shards`, `http://…`, `hf://…`, `gs://…`: what webdataset.gopen knows;
- `s3://bucket/shards`: through `aws s3 cp … -`, as webdataset's manual advises;
- `pipe:ssh host cat /data/shards`: a command; `/name` is appended, or put in place of `{}`.

Files land whole or not at all in a cache that is named by the content of `dataset.json`, so the
processes of a machine share it without locks, and the least recently used shards make room.
"""

import hashlib
import logging
import os
import shlex
import tempfile
from pathlib import Path
from typing import BinaryIO

from shards.write import atomic

KEEP = 64  # shards in the cache
COPY = 1 << 20  # bytes at a time
ATTEMPTS = 3

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
        """
        self.url = url
        root = Path(cache or Path(tempfile.gettempdir()) / f"lemon-{os.getuid()}")
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if root.stat().st_uid != os.getuid():
            raise ValueError(f"{root} belongs to another user; give another cache folder")
        with atomic(root / "dataset.json") as file:
            self._copy("dataset.json", file)
            file.flush()
            description = Path(file.name).read_bytes()
        self.folder = root / hashlib.sha256(description).hexdigest()[:16]
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "dataset.json").is_file():
            with atomic(self.folder / "dataset.json") as file:
                file.write(description)
        if not (self.folder / "index.parquet").is_file():
            with atomic(self.folder / "index.parquet") as file:
                self._copy("index.parquet", file)

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
        for attempt in range(1, ATTEMPTS + 1):
            with atomic(path) as file:
                found = self._copy(name, file)
            if found == (size, sha256):
                return path
            path.unlink(missing_ok=True)
            log.warning("%s: damaged on the way (attempt %d)", self._address(name), attempt)
        raise ValueError(
            f"{self._address(name)}: {found[0]} bytes of sha256 {found[1][:16]}… came instead of "
            f"{size} of {sha256[:16]}…: the shard is damaged or of another data set"
        )

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
        url = self.url.replace("{}", name) if "{}" in self.url else f"{self.url.rstrip('/')}/{name}"
        return f"pipe:aws s3 cp {shlex.quote(url)} -" if url.startswith("s3://") else url

    def _copy(self, name: str, file: BinaryIO) -> tuple[int, str]:
        """Copy a remote file; return its size in bytes and its sha256."""
        import webdataset

        address, size, digest = self._address(name), 0, hashlib.sha256()
        try:
            with webdataset.gopen(address) as source:
                while data := source.read(COPY):
                    file.write(data)
                    size += len(data)
                    digest.update(data)
        except OSError as error:
            raise FileNotFoundError(
                f"cannot read {address} ({error}); is it a folder that `mix` wrote?"
            ) from error
        return size, digest.hexdigest()
