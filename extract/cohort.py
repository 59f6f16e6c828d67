"""Extract many slides, each in a process of its own, so that a bad one takes no other down."""

import ctypes
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from extract.inputs import changed
from extract.ledger import Settings, is_finished, read_outcome, record_outcome
from extract.slides import Entry
from shards.progress import SECONDS, Bar

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STALE_S = 3600.0  # a temporary file that nobody has written to for so long is a killed run's
TEMPORARY = re.compile(r"\..+\.(tar|parquet|json)\.\w+\.tmp")
CANNOT_WRITE = os.EX_IOERR  # exit code of a child that could not even write its outcome
PR_SET_PDEATHSIG = 1  # of prctl(2)

log = logging.getLogger(__name__)


def extract_cohort(
    entries: list[Entry], out: Path, settings: Settings, workers: int, overwrite: bool = False
) -> list[dict]:
    """Extract the slides that are not finished yet, `workers` at a time.

    Returns:
        The records of all the entries, finished before or now.

    Raises:
        ValueError: a finished slide was made with other settings, or `out` cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} cannot be made: {error.strerror}") from error
    if not os.access(out, os.W_OK):
        raise ValueError(f"--out {out} cannot be written to")
    _sweep(out)
    waiting = [e for e in entries if overwrite or not is_finished(out, e, settings)][::-1]
    _say_changed(out, waiting)
    lost: dict[str, dict] = {}  # records that could not be written
    running: dict[Any, tuple[BaseProcess, Entry]] = {}  # by sentinel
    begun = 0
    context, server_only = _context(settings)
    threads = max(workers // max(len(waiting), 1), 1)  # of a network: few slides, many cores
    ready = len(entries) - len(waiting)
    alone = len(entries) == 1  # then its tiles are counted in a log, too
    progress = Bar(None, "extract", "slides", total=len(entries), done=ready)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                entry = waiting.pop()
                if not overwrite and is_finished(out, entry, settings):
                    progress.update()  # by another process that was given the same part
                    continue
                (out / f"{entry.slide}.json").unlink(missing_ok=True)
                process = context.Process(
                    target=_work, args=(entry, out, settings, server_only, threads, begun, alone)
                )
                process.start()
                begun += 1
                running[process.sentinel] = (process, entry)
            for sentinel in wait(list(running), SECONDS):
                process, entry = running.pop(sentinel)
                process.join()
                if read_outcome(out, entry.slide) is None:
                    lost |= _record_death(out, entry, settings, process.exitcode or 0)
                progress.update()
            progress.refresh()  # a slide may take long
    finally:
        progress.close()
        for process, _ in running.values():  # after an interrupt: leave no orphans
            process.terminate()
    records: list[Any] = [lost.get(e.slide) or read_outcome(out, e.slide) for e in entries]
    return records


def _say_changed(out: Path, waiting: list[Entry]) -> None:
    """Say which slides are done anew because what they were made from has changed."""
    for entry in waiting:
        record = read_outcome(out, entry.slide)
        why = record and record["outcome"] != "failed" and changed(record, entry)
        if why:
            log.warning("%s: %s; it is extracted anew", entry.slide, why)


def _context(settings: Settings) -> tuple[ForkServerContext, list[str]]:
    """Start the server process that has imported the work and forks a child a slide.

    A clean start each time, without paying the imports each time. Slides are the parallelism: a
    child's numerical libraries get one thread, which they take from the server's environment.

    Returns:
        The context, and the variables that programs started by a child should not inherit.
    """
    server_only = [name for name in THREADS if name not in os.environ]
    os.environ.update(dict.fromkeys(server_only, "1"))
    # Python 3.11 does not hand its path on to the server, which would then preload another clone's
    # modules where that is the one installed.
    elsewhere = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), elsewhere)))
    context = multiprocessing.get_context("forkserver")
    needed = {settings.network: "extract.network.segmenter"}
    needed |= {settings.scripted: "extract.segment.torchscript"}
    extra = [module for asked, module in needed.items() if asked]  # torch takes two seconds
    context.set_forkserver_preload(["extract.job", *extra])
    forkserver.ensure_running()
    for name in server_only:
        del os.environ[name]
    if elsewhere is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = elsewhere
    return context, server_only


def _work(
    entry: Entry,
    out: Path,
    settings: Settings,
    server_only: list[str],
    threads: int,
    begun: int,
    alone: bool,
) -> None:
    """Extract one slide, in the child, with a network's threads, after others begun before it."""
    import cv2
    import pyarrow as pa

    from extract.job import extract_slide

    if sys.platform == "linux":  # if the run is killed the server ends, and with it this child
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in server_only:
        os.environ.pop(name, None)
    Bar.inner_in_logs = alone
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    if settings.network or settings.scripted:
        import torch

        from extract.gpu import take_turn

        torch.set_num_threads(threads)
        take_turn(begun)
    try:
        extract_slide(entry, out, settings)
    except OSError as error:
        log.error("%s: its outcome cannot be written: %s", entry.slide, error)
        sys.exit(CANNOT_WRITE)


def _record_death(out: Path, entry: Entry, settings: Settings, exitcode: int) -> dict[str, dict]:
    """Record a slide whose child left no outcome; return the record by name if that fails too."""
    if exitcode < 0:
        reason = f"its process was killed by signal {-exitcode} (9 is often lack of memory)"
    elif exitcode == CANNOT_WRITE:
        reason = f"its outcome could not be written to {out} (is the disk full?)"
    else:
        reason = f"its process ended with exit code {exitcode}; the traceback is in the log"
    try:
        record_outcome(out, entry, settings, "failed", reason)
    except OSError:
        return {entry.slide: {"slide": entry.slide, "outcome": "failed", "reason": reason}}
    return {}


def _sweep(out: Path) -> None:
    """Remove temporary files that killed runs left behind.

    Another run may be writing to the same folder: only files that nobody has touched for long go.
    Should one belong to a suspended run after all, that run's slide fails and is done again.
    """
    for path in out.glob(".*.tmp"):
        try:
            stale = TEMPORARY.fullmatch(path.name) and path.stat().st_mtime < time.time() - STALE_S
            if stale:
                path.unlink()
                log.info("removed %s, left behind by a killed run", path)
        except FileNotFoundError:
            continue  # renamed or swept by another run
