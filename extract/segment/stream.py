"""The bytes of a file as they come out of gzip, zip or snappy, told apart by content."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

CHUNK = 1 << 19  # bytes; what fits in the processor's cache is parsed fastest


def read_chunks(path: Path) -> Iterator[bytes]:
    """Yield a file's content, decompressed, in pieces of about 0.5 MB.

    Raw snappy (CellViT's) cannot be read in pieces: it is decompressed whole.

    Args:
        path: plain, gzip, snappy, or a zip that holds one file.

    Raises:
        ValueError: the compressed data is damaged or incomplete, or a zip holds no single file.
    """
    with open(path, "rb") as file:
        head = file.read(64)
        file.seek(0)
        if head.startswith(b"PK\x03\x04"):
            yield from _unzip(path)
        elif head.startswith(b"\x1f\x8b"):
            try:
                with gzip.open(file) as content:
                    yield from iter(lambda: content.read(CHUNK), b"")
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"its gzip does not read to its end ({error})") from error
        elif _snappy_size(head):
            yield from _unsnap(file.read(), _snappy_size(head))
        else:
            yield from iter(lambda: file.read(CHUNK), b"")


def _unzip(path: Path) -> Iterator[bytes]:
    """Yield the content of the one file in a zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                if not name.endswith(("/", ".DS_Store")) and not name.startswith("__MACOSX/")
            ]
            if any(name.endswith("data.pkl") for name in names):
                raise ValueError(
                    "it is pickled by torch (CellViT's cells.pt) and is not opened, for a pickle "
                    "can run anything; give the cells.json beside it"
                )
            if len(names) != 1:
                raise ValueError(f"its zip holds {len(names)} files, not one; unpack it")
            with archive.open(names[0]) as content:
                yield from iter(lambda: content.read(CHUNK), b"")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"its zip is damaged ({error})") from error


def _snappy_size(head: bytes) -> int:
    """Return the size of raw snappy's content where it is JSON, else 0.

    Raw snappy has no mark of its own: the size, seven bits a byte, then a tag that announces
    literal bytes, the first of which must open an object or an array here.
    """
    size = shift = place = 0
    for place, byte in enumerate(head[:5]):  # noqa: B007 (place is used below)
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    tag = head[place + 1 : place + 2]
    if not tag or tag[0] & 3:  # the two low bits are 0 for a literal
        return 0
    extra = max((tag[0] >> 2) - 59, 0)  # a long literal's length stands in so many bytes
    literal = head[place + 2 + extra : place + 3 + extra]
    return size if literal in (b"{", b"[") else 0


def _unsnap(data: bytes, size: int) -> Iterator[bytes]:
    """Yield the content of raw snappy."""
    try:
        content = pa.Codec("snappy").decompress(data, size)
    except OSError as error:
        raise ValueError(f"its snappy is damaged or incomplete ({error})") from error
    for start in range(0, size, CHUNK):
        yield bytes(memoryview(content)[start : start + CHUNK])
