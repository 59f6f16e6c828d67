"""Where another program may run: a folder of its own, and one of the places to run at once."""

import errno
import itertools
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from extract.segment.child import end_all


@contextmanager
def own_folder(work: Path, slide: str, stale_s: float) -> Iterator[Path]:
    """Make a folder for one attempt, and clear away what killed runs have left of theirs.

    Args:
        stale_s: age at which another machine's folder is given up, s.
    """
    host = socket.gethostname()
    for old in work.glob(f".{slide}.*.attempt"):
        of_host, _, pid = (
            old.name.removesuffix(".attempt").removeprefix(f".{slide}.").rpartition(".")
        )
        dead = of_host == host and not Path(f"/proc/{pid}").exists()
        if dead or time.time() - old.stat().st_mtime > stale_s:
            end_all(old.absolute())
            shutil.rmtree(old, ignore_errors=True)
    folder = (work / f".{slide}.{host}.{os.getpid()}.attempt").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def free_place(at_once: int) -> Iterator[None]:
    """Wait for one of the places in which HoverFast may run at once.

    Places are the workers' of one run (they have one parent): names of sockets in no file system,
    of which the kernel allows one each, and frees those of the dead.
    """
    names = [f"\0lemon-{os.getuid()}-{os.getppid()}-{place}" for place in range(at_once)]
    with socket.socket(socket.AF_UNIX) as lock:
        for name in itertools.cycle(names):
            try:
                lock.bind(name)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                time.sleep(0.2)
        yield
