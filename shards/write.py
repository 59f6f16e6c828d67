"""Write files that are either whole or absent, and tars whose bytes depend on the input alone."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from shards.errors import NoRoom, is_full, no_room

BLOCK = 512  # of a tar


@contextmanager
def atomic(path: Path, mode: str = "wb", needed: int = 0) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that takes its name, synced, when the block ends well.

    An error in the block removes the temporary file. After a kill it stays as
    `.<name>.<random>.tmp`, which no reader looks at; two machines never share a name.

    Args:
        path: the file to be.
        mode: `wb` or `w`.
        needed: bytes that it will take, where known, for the error.

    Raises:
        NoRoom: the disk or the quota is full, whichever library's words said so.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        written = _remove(temporary)
        if isinstance(error, NoRoom) or not is_full(error):
            raise
        raise no_room(path, max(needed, written), error) from error
    _sync_folder(path.parent)


def _remove(temporary: Path) -> int:
    """Delete a file, at once even if a library still holds it open; return its size."""
    try:
        written = temporary.stat().st_size
        os.truncate(temporary, 0)
        temporary.unlink()
    except FileNotFoundError:
        return 0
    return written


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; its folder is made if absent."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(text.encode())


def _sync_folder(folder: Path) -> None:
    """Call fsync on a folder, so that a new name in it outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TarWriter:
    """Append members to a tar: ustar, mtime 0, uid 0, so equal input gives equal bytes.

    Any tar reader opens the result, webdataset among them. The sha256 of what was written is in
    `sha256` once `close` has been called.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._hash = hashlib.sha256()
        self._end = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member and return the offset of its bytes in the tar.

        Args:
            name: at most 100 ASCII characters, no slash.
            data: its bytes.
        """
        offset = self._end + BLOCK
        self._put(b"".join([_header(name, len(data)), data, bytes(-len(data) % BLOCK)]))
        return offset

    def extend(self, names: list[str], data: list[bytes]) -> np.ndarray:
        """Append several members at once, in a third of the time.

        Args:
            names: N, as `add` takes them.
            data: the bytes of each.

        Returns:
            (N,) int64 offsets of their bytes in the tar.
        """
        sizes = np.array([len(part) for part in data], np.int64)
        steps = BLOCK + sizes + -sizes % BLOCK
        starts = np.cumsum(steps) - steps
        buffer = np.zeros(steps.sum(), np.uint8)
        buffer.reshape(-1, BLOCK)[starts // BLOCK] = headers(names, sizes)
        view = buffer.data
        for start, part in zip((starts + BLOCK).tolist(), data, strict=True):
            view[start : start + len(part)] = part
        offsets = self._end + BLOCK + starts
        self._put(view)
        return offsets

    def close(self) -> str:
        """Write the two closing blocks; return the sha256 of the tar in hex."""
        self._put(bytes(2 * BLOCK))
        return self._hash.hexdigest()

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._end += len(data)


def _header(name: str, size: int) -> bytes:
    """Return the 512-byte ustar header of a regular file (POSIX 1003.1, pax: ustar)."""
    encoded = name.encode("ascii")
    assert 0 < len(encoded) <= 100 and b"/" not in encoded, name
    header = b"".join(
        [
            encoded.ljust(100, b"\0"),
            b"0000644\0" + b"0000000\0" + b"0000000\0",  # mode, uid, gid
            b"%011o\0" % size,
            b"00000000000\0",  # mtime
            b" " * 8,  # the checksum is taken over blanks in its own place
            b"0" + bytes(100),  # a regular file; no link
            b"ustar\x0000" + bytes(32 + 32),  # version 00; no user, no group
            b"0000000\0" + b"0000000\0",  # device numbers
        ]
    ).ljust(BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def headers(names: list[str] | np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the headers that `TarWriter` gives members, for many at once.

    Args:
        names: N names as `TarWriter.add` takes them, or an array of their bytes.
        sizes: (N,) bytes, each below 8 GiB.

    Returns:
        (N, 512) uint8.
    """
    blank = np.frombuffer(_header("-", 0), np.uint8).copy()
    blank[148:156] = ord(" ")
    blank[:100] = blank[124:135] = 0
    table = np.tile(blank, (len(names), 1))
    encoded = np.asarray(names).astype("S")
    width = encoded.itemsize
    assert width <= 100, names
    letters = encoded.view(np.uint8).reshape(len(names), width)
    table[:, :width] = letters
    octal = (np.asarray(sizes, np.int64)[:, None] >> np.arange(30, -1, -3) & 7) + ord("0")
    table[:, 124:135] = octal
    total = letters.sum(axis=1, dtype=np.uint32) + octal.sum(axis=1) + blank.sum(dtype=np.int64)
    total = total[:, None]
    table[:, 148:154] = (total >> np.arange(15, -1, -3) & 7) + ord("0")
    table[:, 154] = 0
    return table
