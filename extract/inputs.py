"""Whether what a slide was extracted from is still the same: the slide, its mask, its segmentation.

The record of a slide keeps of each file its size, its time of modification, and a digest. A file
is the same where size and time are; where only the time differs (a copy, a download anew), where
the digest is. A file that is there no more is not judged: slides are deleted to make room.
"""

import hashlib
from pathlib import Path

from extract.slides import Entry

WHOLE = 8 << 20  # bytes up to which a slide is digested whole
PIECES, PIECE = 16, 1 << 16  # and what is read of a larger one, evenly from its start to its end
COPY = 1 << 20


def fingerprint(path: Path, whole: bool = True) -> dict:
    """Return what is kept of a file: path, size (bytes), mtime_ns, digest (BLAKE2b).

    Args:
        whole: digest all of it; else PIECES of it where it is larger than WHOLE.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    status = path.stat()
    return {
        "path": str(path.absolute()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "whole": whole,
        "digest": _digest(path, status.st_size, whole),
    }


def changed(record: dict, entry: Entry | None = None) -> str | None:
    """Say which file has changed since a slide was extracted, or nothing.

    Args:
        record: of the slide; one of an early version keeps nothing and is taken as it is.
        entry: of the slide, where its files are now; None: where they were.
    """
    now = {}
    if entry is not None:
        now = {"slide": entry.path, "mask": entry.mask, "segmentation": entry.nuclei}
    for what, kept in record.get("inputs", {}).items():
        found = now.get(what)
        path = found if isinstance(found, Path) else Path(kept["path"])
        md5 = kept.get("md5")
        if md5 and entry and entry.md5 and md5.lower() != entry.md5.lower():
            return f"its {what} {path} has another MD5 than when it was extracted"
        try:
            status = path.stat()
            same = status.st_size == kept["size"] and (
                status.st_mtime_ns == kept["mtime_ns"]
                or _digest(path, kept["size"], kept["whole"]) == kept["digest"]
            )
        except OSError:
            continue
        if not same:
            return f"its {what} {path} has changed since it was extracted"
    return None


def _digest(path: Path, size: int, whole: bool) -> str:
    """Digest a file, or evenly spaced pieces of it."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        if whole or size <= WHOLE:
            while data := file.read(COPY):
                digest.update(data)
        else:
            for number in range(PIECES):
                file.seek(number * (size - PIECE) // (PIECES - 1))
                digest.update(file.read(PIECE))
    return digest.hexdigest()
