"""Text as people's programs write it: its encoding, its line ends, and what is no text at all."""

import re
from pathlib import Path

from shards.errors import dead_link
from shards.filetype import HEAD, kind_of, placeholder

CURES = {  # of what people take for text
    "Excel": "save the sheet as CSV UTF-8",
    "rich text": "save it as plain text",
    "JSON": "give a table, or one entry a line",
    "gzip": "unpack it first",
    "bzip2": "unpack it first",
    "xz": "unpack it first",
    "zstd": "unpack it first",
    "archive": "unpack it first",
}
# Marks without width that programs and web pages leave: the byte-order mark, wherever files were
# joined, and the zero-width space.
INVISIBLE = ("\ufeff".encode(), "\u200b".encode())

WRITTEN = re.compile(rb"[\t\n\r\x20-\x7e]+$")


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, without marks, every line ended by a line feed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no text, or of another encoding; names the line and the cure.
    """
    return clean(read_bytes(path), path).decode()


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        FileNotFoundError: no such file.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else f"not there{dead_link(path)}"
        raise FileNotFoundError(f"{path} is {what}")
    return path.read_bytes()


def clean(data: bytes, path: Path) -> bytes:
    """Return a text's bytes as UTF-8 without marks, every line ended by a line feed.

    Args:
        data: of the whole file.
        path: for the errors.

    Raises:
        ValueError: it is no text, or of another encoding; names the line and the cure.
    """
    if fault := placeholder(data[:HEAD], len(data)):
        raise ValueError(f"{path} is {fault}")
    kind = kind_of(data[:HEAD])
    if kind not in ("text", "a file of an unknown kind"):
        cure = next((f"; {cure}" for word, cure in CURES.items() if word in kind), "")
        raise ValueError(f"{path} is no text but {kind}{cure}")
    _check_wide(data, path)
    if (place := data.find(b"\0")) >= 0:
        raise ValueError(
            f"{path}, line {_line(data, place)} holds a NUL byte: the file is no text, or was "
            "damaged (a full disk?); write or download it again"
        )
    try:
        data.decode()
    except UnicodeDecodeError as error:
        start = max(data.rfind(b"\n", 0, error.start), data.rfind(b"\r", 0, error.start)) + 1
        words = data[start : start + 80].splitlines()[0].decode("cp1252", "replace")
        raise ValueError(
            f"{path}, line {_line(data, error.start)} is no UTF-8 (byte 0x{data[error.start]:02x}; "
            f"as Windows-1252 it would be {words!r}); save the file as UTF-8 (Excel: CSV UTF-8)"
        ) from error
    for mark in INVISIBLE:
        if mark in data:
            data = data.replace(mark, b"")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _check_wide(data: bytes, path: Path) -> None:
    """Raise a ValueError for text of two or four bytes a letter, with its mark or without."""
    name = None
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        name = "UTF-32"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        name = "UTF-16"
    else:
        half = len(data[:HEAD]) // 2 * 2
        for zeros, letters in ((data[:half:2], data[1:half:2]), (data[1:half:2], data[:half:2])):
            if (
                zeros.count(0) > 0.6 * len(zeros)
                and not letters.count(0)
                and WRITTEN.match(letters)
            ):
                name = "UTF-16 without a mark"
    if name:
        raise ValueError(
            f"{path} is {name} (Excel's Unicode text, PowerShell's `>`); save it as UTF-8, e.g. "
            f"iconv -f {name.split()[0]} -t UTF-8 '{path.name}' > '{path.stem}-utf8{path.suffix}'"
        )


def _line(data: bytes, place: int) -> int:
    """Return the number of the line that a byte stands in, from 1."""
    before = data[:place]
    return before.count(b"\n") + before.replace(b"\r\n", b"\n").count(b"\r") + 1
