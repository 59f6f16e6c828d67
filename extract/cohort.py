"""Extract many slides, each in a process of its own, so that a bad one takes no other down."""

import multiprocessing
import os
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from tqdm import tqdm

from extract.ledger import Settings, is_finished, read_outcome, record_outcome
from extract.slides import Entry


def extract_cohort(
    entries: list[Entry], out: Path, settings: Settings, workers: int, overwrite: bool = False
) -> list[dict]:
    """Extract the slides that are not finished yet, `workers` at a time.

    Args:
        entries: the slides.
        out: the cells folder; made if absent.
        settings: of the run.
        workers: processes, one slide each.
        overwrite: do finished slides anew.

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
    waiting = [e for e in entries if overwrite or not is_finished(out, e, settings)][::-1]
    # A server process that has imported the work forks a child a slide: a clean start each time,
    # without paying the imports each time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["extract.job"])
    running: dict[int, tuple[BaseProcess, Entry]] = {}
    progress = tqdm(
        total=len(entries), initial=len(entries) - len(waiting), desc="slides", disable=None
    )
    with progress:
        while waiting or running:
            while waiting and len(running) < workers:
                entry = waiting.pop()
                (out / f"{entry.slide}.json").unlink(missing_ok=True)
                process = context.Process(target=_work, args=(entry, out, settings))
                process.start()
                running[process.sentinel] = (process, entry)
            for sentinel in wait(list(running)):
                process, entry = running.pop(sentinel)
                process.join()
                if read_outcome(out, entry.slide) is None:
                    record_outcome(out, entry, settings, "failed", _death(process.exitcode))
                progress.update()
    return [read_outcome(out, entry.slide) for entry in entries]


def _work(entry: Entry, out: Path, settings: Settings) -> None:
    """Extract one slide, in the child."""
    import cv2

    from extract.job import extract_slide

    cv2.setNumThreads(1)  # the slides are the parallelism
    extract_slide(entry, out, settings)


def _death(exitcode: int) -> str:
    """Say how a child ended that left no outcome."""
    if exitcode < 0:
        return f"its process was killed by signal {-exitcode} (9 is often lack of memory)"
    return f"its process ended with exit code {exitcode}; the traceback is in the log"
