"""Errors that a user can act on: one sentence each, and an exit code."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
# What libraries say that lose the number: safetensors and HDF5, torch.save to a path or to a file,
# numpy's tofile.
SIGNS = re.compile(
    "|".join(
        [
            *map(os.strerror, FULL),
            "basic_ios::clear",
            r"\. unexpected pos \d",
            r"^\d+ requested and \d+ written$",
        ]
    )
)
CURES = {
    errno.EACCES: "look whose it is (ls -ld), or name another place",
    errno.EPERM: "look whose it is (ls -ld), or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ENOTDIR: "a part of this path is a file where a folder is wanted",
    errno.EISDIR: "this is a folder where a file is wanted",
    errno.ENAMETOOLONG: "shorten the name: most file systems allow 255 bytes",
    errno.EMFILE: "raise the limit (ulimit -n)",
    errno.EFBIG: "the limit on a file's size (ulimit -f), or the file system's own",
    errno.EIO: "the disk or the network failed; look at the system's log",
    errno.ESTALE: "the network file system has lost it; run the same command again",
}


class NoRoom(OSError):
    """A file system or a quota is full; the message says where, what is needed and what is free."""


@contextmanager
def room(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn the error of a full disk, in whatever words a library puts it, into NoRoom.

    Args:
        path: what is written in the block.
        needed: bytes, where known.

    Raises:
        NoRoom: the file system or the quota of `path` is full.
    """
    try:
        yield
    except NoRoom:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        raise no_room(path, needed, error) from error


def no_room(path: Path, needed: int | None = None, error: BaseException | None = None) -> NoRoom:
    """Return the error of a full disk; call it when what was half written is gone.

    Args:
        path: what was to be written.
        needed: bytes, at least.
        error: what was raised; says whether it is a quota, which the free space does not show.
    """
    path = Path(path)
    folder = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free
    inodes = os.statvfs(folder)
    quota = any(getattr(link, "errno", None) == errno.EDQUOT for link in _chain(error))
    # Less than is free says nothing: the rest was not written any more.
    said = [f"at least {size(needed)} needed"] if needed and (quota or needed > free) else []
    if quota:
        said.append("the quota is used up")
    elif free > (needed or 0) and inodes.f_files and not inodes.f_favail:
        said.append("no more files allowed (inodes used up)")
    else:
        said.append(f"{size(free)} free")
    return NoRoom(
        f"no room in {path.parent} for {path.name}: {', '.join(said)}; make room there (or "
        "raise the quota) and run the same command again"
    )


def is_full(error: BaseException | None) -> bool:
    """Tell whether a full disk or quota is at the bottom of an error."""
    return any(
        getattr(link, "errno", None) in FULL or isinstance(link, NoRoom) or SIGNS.search(str(link))
        for link in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it, each once: `raise error from error` is a circle."""
    seen: list[BaseException] = []
    while error and not any(error is link for link in seen):
        seen.append(error)
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def size(count: int) -> str:
    """Return a number of bytes in words."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"


def dead_link(path: Path) -> str:
    """Say where a link leads, if to nowhere or round in a circle; nothing of any other path."""
    if not os.path.islink(path) or os.path.exists(path):  # pathlib's raise of odd names
        return ""
    return f", a link to {os.readlink(path)} that is not there (is its disk mounted?)"


def explain(error: BaseException) -> str:
    """Return a sentence for an error: what, where, and the cure."""
    number = getattr(error, "errno", None)
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    name = os.fsdecode(name) if isinstance(name, bytes) else name
    if is_full(error) and not isinstance(error, NoRoom):
        return str(no_room(Path(name), error=error)) if name else f"no room on the disk ({error})"
    if not isinstance(error, OSError) or not isinstance(number, int):
        return str(error) or type(error).__name__
    said = str(error.strerror or os.strerror(number))
    said = said.lower() if said == os.strerror(number) else said
    said += dead_link(Path(name)) if isinstance(name, str) else ""
    parts = [f"{name}: " if name else "", said, f"; {CURES[number]}" if number in CURES else ""]
    return "".join(parts)


def report(error: BaseException, prefix: str = "") -> int:
    """Print an error for a user; return the exit code: 2 for input that cannot be used, else 1."""
    if isinstance(error, BrokenPipeError):  # `… | head`: nobody is left to print to
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    print(f"error: {prefix}{explain(error)}", file=sys.stderr)
    return 2 if isinstance(error, FileNotFoundError | ValueError) else 1
