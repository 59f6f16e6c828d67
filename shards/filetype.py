"""What a file is by its content, where its name promises something else.

A clone without `git lfs pull` holds pointers, a download without a login holds a web page, a
copy that was interrupted holds the beginning or zeros. Every reader of users' files asks here, so
that each is called what it is, with its cure, and not "no slide" or "bad magic number".
"""

import html
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how they begin; the latter two: BigTIFF
DIRECTORIES = 1000  # of a TIFF, that are looked at
HEAD = 4096  # bytes that tell
TAIL = 66_000  # bytes in which a zip archive must end (22 and a comment of up to 65,535)

COPY = 1 << 20  # bytes read at a time

AGAIN = "download or copy it again"
KINDS = (  # first bytes -> what it is
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file"),
    (b"{\\rtf", "rich text"),
    (b"ARROW1", "an Arrow (Feather) file"),
    (b"SQLite format 3\0", "an SQLite data base"),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"\x7fELF", "a program"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
)


def check_file(path: Path) -> None:
    """Refuse a file that is not what any name could promise; an absent one is not judged here.

    Raises:
        ValueError: it is empty, a Git LFS or git-annex pointer, a web page, a store's error
            message, all zeros, or a Parquet file, zip archive or TIFF that was cut short.
        OSError: it cannot be read.
    """
    if not path.is_file():
        return
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEAD)
        file.seek(max(size - TAIL, 0))
        fault = placeholder(head, size) or cut_short(head, file.read(), size)
        if not fault and head[:4] in TIFFS and _ends_early(file, head, size):
            fault = f"a TIFF cut short at {size:,} bytes; {AGAIN}"
    if fault:
        raise ValueError(f"{path} is {fault}")


def check_archive(path: Path) -> None:
    """Refuse a zip whose members are not what was written, which torch does not look at.

    Raises:
        ValueError: a checksum differs: a bit has flipped, or a part was lost.
        OSError: it cannot be read.
    """
    if not zipfile.is_zipfile(path):
        return
    name = "its list of files"
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename
                if not member.CRC:  # empty, or of torch.serialization.set_crc32_options(False)
                    continue
                with archive.open(member) as file:
                    while file.read(COPY):
                        pass
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{path} is a damaged zip archive ({name} is not what was written); {AGAIN}"
        ) from error


def describe(path: Path) -> str:
    """Say what kind of file it is, e.g. `a zip archive`, `text`, `a file of an unknown kind`."""
    with open(path, "rb") as file:
        return kind_of(file.read(HEAD))


def kind_of(head: bytes) -> str:
    """Say what kind of file begins so, as `describe` does.

    Args:
        head: the first bytes, HEAD of them suffice.
    """
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04") and (b"xl/" in head or b"[Content_Types]" in head[:64]):
        return "an Excel workbook"
    for start, kind in KINDS:
        if head.startswith(start):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[128:132] == b"DICM":
        return "a DICOM file"
    if head.lstrip()[:1] in (b"{", b"[") and b"\0" not in head:
        return "JSON"
    return "a file of an unknown kind" if b"\0" in head else "text"


def placeholder(head: bytes, size: int) -> str | None:
    """Say what stands in the place of a file's data, and the cure; None: nothing known.

    Args:
        head: the first bytes, HEAD of them suffice.
        size: of the whole, bytes.
    """
    if not size:
        return f"empty (0 bytes): its download or copy did not happen; {AGAIN}"
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        wanted = re.search(rb"^size (\d+)", head, re.MULTILINE)
        of = f" to {int(wanted[1]):,} bytes" if wanted else ""
        return f"a Git LFS pointer{of}, not the data; run `git lfs pull` in its clone"
    if size < HEAD and re.match(rb"(/|\.\./|\.git/)\S*annex/objects/\S+\s*$", head):
        return "a git-annex pointer, not the data; run `git annex get` in its clone"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if re.match(rb"(<!--.*?-->\s*)?(<!doctype html|<html|<head\b|<body\b)", text, re.DOTALL):
        title = re.search(rb"<title[^>]*>(.*?)</title", head, re.DOTALL | re.IGNORECASE)
        said = html.unescape(title[1].decode("utf-8", "replace")).split() if title else []
        named = f" ({' '.join(said)[:80]!r})" if said else ""
        return (
            f"a web page{named}, not the data: its address needs a login, or leads elsewhere; "
            "download it again from where it is"
        )
    if text.startswith((b"<?xml", b"<error>")) and b"<error>" in text and b"<code>" in text:
        code = re.search(rb"<code>(.*?)</code>", head, re.IGNORECASE)
        said = code[1].decode("utf-8", "replace") if code else "?"
        return f"a store's error message ({said}), not the data; {AGAIN}"
    if len(head) >= 8 and not head.strip(b"\0"):
        return f"a file that begins with zeros: its download or copy did not end; {AGAIN}"
    return None


def _ends_early(file: BinaryIO, head: bytes, size: int) -> bool:
    """Tell whether one of a TIFF's directories, each of which names the next, lies beyond its end.

    A slide's levels and labels have one each: cut behind the first, it may open as a small image.
    """
    big, order = b"+" in head[:4], "<" if head[:1] == b"I" else ">"
    if not big and size > 1 << 32:  # Hamamatsu's, which keeps the upper half elsewhere
        return False
    count, entry, link = ("Q", 20, "Q") if big else ("H", 12, "I")
    place = slice(8, 16) if big else slice(4, 8)
    (at,) = struct.unpack(order + link, head[place])
    seen = set()
    while at and at not in seen and len(seen) < DIRECTORIES:
        seen.add(at)
        file.seek(at)
        if len(number := file.read(struct.calcsize(count))) < struct.calcsize(count):
            return True
        file.seek(struct.unpack(order + count, number)[0] * entry, 1)
        if len(following := file.read(struct.calcsize(link))) < struct.calcsize(link):
            return True
        (at,) = struct.unpack(order + link, following)
    return False


def cut_short(head: bytes, tail: bytes, size: int) -> str | None:
    """Say that a file ends before its own end; None: it does not, or its kind does not tell.

    Args:
        head: the first bytes.
        tail: the last ones, TAIL of them suffice.
        size: of the whole, bytes.
    """
    short = f"cut short at {size:,} bytes; {AGAIN}"
    if head.startswith(b"PAR1") and (size < 12 or not tail.endswith((b"PAR1", b"PARE"))):
        return f"a Parquet file {short}"
    if head.startswith(b"PK\x03\x04") and b"PK\x05\x06" not in tail:
        return f"a zip archive {short}"
    if head[:4] in TIFFS:
        big, order = b"+" in head[:4], "<" if head[:1] == b"I" else ">"
        where = slice(8, 16) if big else slice(4, 8)
        if len(head) < where.stop:
            return f"a TIFF {short}"
        (directory,) = struct.unpack(order + ("Q" if big else "I"), head[where])
        if directory + 2 > size:
            return f"a TIFF {short}"
    return None
