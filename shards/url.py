"""Files behind a URL or a command, fetched front to back.

- `https://…`, `s3://…`, `gs://…`, `hf://…` and whatever else fsspec knows (s3 wants s3fs, gs wants
  gcsfs: the extras of setup.cfg);
- `pipe:ssh host cat /data/shards/train-000000.tar`: a shell command.
"""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from shards.errors import explain, is_full
from shards.filetype import HEAD, placeholder

TIMEOUT_S = 60  # without a byte from a web server, or without a connection
PERMANENT = (FileNotFoundError, PermissionError, NotADirectoryError, ImportError, ValueError)
TRANSIENT = (408, 425, 429)  # HTTP: of the 4xx those that may be different the next time
COPY = 1 << 20  # bytes at a time


class Unreached(OSError):
    """A URL could not be read this time; the next may go well."""


def download(address: str, path: Path) -> None:
    """Write what a URL or a command gives into a file.

    Args:
        address: the URL, or `pipe:` and a command.
        path: of the file, which is there already; what it held is lost.

    Raises:
        FileNotFoundError: nothing is there, or it is not given to us: no use to try again.
        Unreached: it failed on the way.
        OSError: the file cannot be written.
    """
    if address.startswith("pipe:"):
        with open_url(address) as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file, COPY)
        return
    try:
        from fsspec.core import url_to_fs

        system, name = url_to_fs(address, **_options(address))
        system.get_file(name, str(path))
    except Exception as error:  # each store has its own, and none need be importable here
        _judge(error, address)


@contextmanager
def open_url(address: str) -> Iterator[IO[bytes]]:
    """Open a path, a URL or a command for reading.

    Raises:
        FileNotFoundError: as `download`.
        ValueError: what comes is a web page, a pointer, or nothing.
        Unreached: likewise; of a command when the block ends.
    """
    if address.startswith("pipe:"):
        with _piped(address) as file:
            yield file
        return
    try:
        import fsspec

        place: Any = fsspec.open(address, "rb", **_options(address))
        opened = place.open()
    except Exception as error:
        _judge(error, address)
    with opened as file:
        yield cast("IO[bytes]", _Source(file, address))


class _Source:
    """A file behind a URL, read front to back, whose errors are those of `open_url`."""

    def __init__(self, file: IO[bytes], address: str):
        self._file, self._address, self._head = file, address, b""
        self._head = self.read(HEAD)
        if kind := placeholder(self._head, len(self._head)):
            raise ValueError(f"{address} gives {kind}")

    def read(self, size: int = -1) -> bytes:
        if head := self._head:
            self._head = b"" if size < 0 else head[size:]
            return head + self.read() if size < 0 else head[:size]
        try:
            return self._file.read(size)
        except Exception as error:  # of the store's library
            _judge(error, self._address)


@contextmanager
def _piped(address: str) -> Iterator[IO[bytes]]:
    """Run a command and read what it prints."""
    with tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(
            address.removeprefix("pipe:"), shell=True, stdout=subprocess.PIPE, stderr=complaint
        )
        assert process.stdout
        try:
            yield process.stdout
            while process.stdout.read(COPY):  # a tar's reader stops at its end, before the file's
                pass
            code = process.wait()
        finally:  # who stops reading early waits for nobody
            process.kill()
            process.wait()
            process.stdout.close()
        if code:
            complaint.seek(0)
            lines = complaint.read().decode(errors="replace").strip().splitlines()
            said = f"exit code {code}" + (f": {lines[-1]}" if lines else "")
            permanent = code in (126, 127)  # the shell's: no such command
            raise (FileNotFoundError if permanent else Unreached)(f"cannot read {address} ({said})")


def _options(address: str) -> dict:
    """Return fsspec's options for a URL's kind."""
    if not address.startswith(("http://", "https://")):
        return {}
    from aiohttp import ClientTimeout

    # aiohttp's own limit is 5 minutes in all, which a large file needs; proxies as in curl.
    limit = ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S)
    return {"client_kwargs": {"timeout": limit, "trust_env": True}, "block_size": 0}


def _judge(error: Exception, address: str) -> NoReturn:
    """Raise what `download` raises for an error of fsspec or a store's library."""
    if is_full(error):
        raise error
    status = getattr(error, "status", None)
    said = explain(error) if not isinstance(error, asyncio.TimeoutError) else "timed out"
    if isinstance(error, ImportError):
        said = f"{error}: pip install -e .[s3] or .[gs]; or give pipe:COMMAND that prints the file"
    permanent = isinstance(error, PERMANENT) or (
        isinstance(status, int) and 400 <= status < 500 and status not in TRANSIENT
    )
    kind = FileNotFoundError if permanent else Unreached
    said = " ".join(said.split()) or type(error).__name__
    raise kind(f"cannot read {address} ({said})") from error
