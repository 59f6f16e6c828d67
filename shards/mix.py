"""Mix the cells of all slides into shards: one global shuffle, bytes moved, never re-encoded.

An external sort by destination. Pass 1 (shards/scatter.py) writes runs: what fits in memory,
sorted. Pass 2 (shards/gather.py) takes each shard's slice out of every run; where the page cache
holds all slides' tars, out of these. The join writes the index and, last, `dataset.json`. Parts
share out runs and shards; each unit of work is a file that is whole or absent and a function of
the cells and settings alone, so neither a kill nor a second copy can do harm, and whoever comes
last finishes.
"""

import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from shards.cells import kept_cells
from shards.dataset import FORMAT, about_file, digest
from shards.gather import is_made, mark_path, shard_name, write_shards
from shards.plan import THREADS, Plan, make_plan
from shards.runs import Runs, read_facts, run_path
from shards.sample import SAMPLE, colours_beside
from shards.scatter import write_run
from shards.schema import CROP_PX, INDEX_COLUMNS, MPP
from shards.source import fits_cache, read_ahead
from shards.write import atomic

__all__ = ["kept_cells", "mix"]  # evaluate looks for both here
MEMORY = 0.5  # GB by default
INDEX_ROWS = 65_536  # of a row group at most, unless a shard holds more

log = logging.getLogger(__name__)


def mix(
    cells: Path,
    out: Path,
    samples_per_shard: int,
    seed: int,
    overwrite: bool = False,
    selection: Path | None = None,
    part: int = 0,
    parts: int = 1,
    memory: float = MEMORY,
) -> dict | None:
    """Shuffle the kept crops of all finished slides into `out`, and describe them there.

    The result is a function of the cells, the selection and the seed. `dataset.json` is written
    last: it is the commit mark, and a run that finds it for the same cells and settings does
    nothing.

    Args:
        cells: what extract wrote.
        out: made if absent.
        samples_per_shard: crops in a tar; the last one may hold fewer.
        seed: of the shuffle.
        overwrite: replace what `out` holds.
        selection: what `select` wrote: only these cells.
        part: which of `parts` this is, from 0; it does its share of the work that can be done.
        parts: how many share the work.
        memory: GB that the pieces may take, beside the 0.4 of Python and its libraries.

    Returns:
        What `dataset.json` holds; None where other parts have work left, which is logged.

    Raises:
        FileNotFoundError: no such folder, or no finished slide in it.
        ValueError: no crops, crops that differ in codec, a damaged tar, or another data set in
            `out` and `overwrite` is not set.
    """
    if not 0 <= part < parts:
        raise ValueError(f"--part {part} --parts {parts}: parts count from 0 to {parts - 1}")
    if overwrite and parts > 1:
        raise ValueError(
            "--overwrite would delete what the other parts have made: run it once without --part, "
            f"or delete {out}, and start the parts without it"
        )
    plan = make_plan(cells, selection, samples_per_shard, seed, memory)
    found = _finished(plan, out, overwrite)
    if found:
        return found
    work = _start(plan, out, overwrite, memory)
    try:
        beside = parts == 1 and plan.samples >= SAMPLE
        with (
            colours_beside(plan, out, work, beside) as describe,
            ThreadPoolExecutor(THREADS) as pool,  # numpy and the kernel do the work
        ):
            return _work(plan, out, work, part, parts, pool, describe)
    except FileNotFoundError:
        found = _finished(plan, out, overwrite=False)  # another copy ended and cleared away
        if not found:
            raise
        return found


def _finished(plan: Plan, out: Path, overwrite: bool) -> dict | None:
    """Return the data set that is there already if it is this one."""
    if not (out / "dataset.json").exists() or overwrite:
        return None
    found = json.loads((out / "dataset.json").read_text())
    if found.get("source") != plan.source:
        raise ValueError(
            f"{out} holds shards of other cells or settings; name another --out, or give "
            "--overwrite to replace them"
        )
    log.info("%s already holds these %d cells, mixed so", out, found["samples"])
    _clear(out / ".mix")  # a kill may have left it
    return found


def _start(plan: Plan, out: Path, overwrite: bool, memory: float) -> Path:
    """Make the work folder, which remembers what it is for; return it."""
    work = out / ".mix"
    if overwrite:
        for old in [out / "dataset.json", out / "index.parquet", *out.glob("train-*.tar")]:
            old.unlink(missing_ok=True)
        _clear(work)
    work.mkdir(parents=True, exist_ok=True)
    path, now = work / "plan.json", {"source": plan.source, "memory": memory}
    if not path.exists():
        with atomic(path, "w") as file:
            json.dump(now, file)
    elif json.loads(path.read_text()) != now:
        raise ValueError(
            f"{out} holds an unfinished mix of other cells or settings (or another --memory); "
            "finish it as it was begun, name another --out, or give --overwrite"
        )
    return work


def _work(
    plan: Plan,
    out: Path,
    work: Path,
    part: int,
    parts: int,
    pool: ThreadPoolExecutor,
    describe: Callable[[], dict],
) -> dict | None:
    """Do a part's share of each pass as far as the files allow."""
    # Other parts may run on other machines, whose page cache is another.
    copy = parts > 1 or not fits_cache(plan.bytes)
    mine = [n for n in range(part, len(plan.runs), parts) if not run_path(work, n).is_file()]
    if not copy and len(mine) < len(plan.runs):  # a rerun: pass 1 did not just read them
        read_ahead(plan.tar(slide) for slide in range(len(plan.slides)))
    _finish([pool.submit(write_run, plan, n, work, copy) for n in mine], "pass 1")
    if _left(plan.runs, lambda n: run_path(work, n).is_file(), "pass 1", "run"):
        return None
    runs = Runs(work, len(plan.runs))
    tasks: list[Future] = []
    colours = None
    for group in plan.groups[part::parts]:
        tasks.append(pool.submit(write_shards, plan, group, out, work, runs))
        enough = group.stop * plan.samples_per_shard >= min(SAMPLE, plan.samples)
        if parts == 1 and not colours and enough:  # beside the rest, for it is slow and serial
            colours = pool.submit(_after, list(tasks), describe)
    _finish(tasks, "pass 2")
    if _left(range(plan.shards), lambda n: is_made(out, work, n), "pass 2", "shard"):
        return None
    return _join(plan, out, work, colours or pool.submit(describe))


def _finish(tasks: list[Future], what: str) -> None:
    """Wait for all tasks; after an error none is begun any more."""
    try:
        for task in tqdm(tasks, what, unit="piece", disable=None):
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _after(tasks: list[Future], describe: Callable[[], dict]) -> dict:
    """Describe the colours once some tasks are done."""
    for task in tasks:
        task.result()
    return describe()


def _left(units: Iterable, is_done: Callable[[int], bool], what: str, unit: str) -> bool:
    """Tell whether work of other parts is left, and say so."""
    left = [n for n, _ in enumerate(units) if not is_done(n)]
    if left:
        log.info(
            "%s: this part is done; other parts have %d %ss left. Run the same command again when "
            "they have ended (any part, or without --part to do all that is left)",
            *(what, len(left), unit),
        )
    return bool(left)


def _join(plan: Plan, out: Path, work: Path, colours: Future) -> dict:
    """Check that nothing was lost or doubled, write the index and the description."""
    facts = [read_facts(mark_path(work, n)) for n in range(plan.shards)]
    before = [read_facts(run_path(work, n))["checksum"] for n in range(len(plan.runs))]
    total, moved = (
        sum(int(c, 16) for c in sums) % 2**64 for sums in (before, [f["checksum"] for f in facts])
    )
    samples = sum(f["shard"]["samples"] for f in facts)
    if (samples, moved) != (plan.samples, total):
        raise ValueError(
            f"{plan.samples} cells of checksum {total:016x} went in, {samples} of {moved:016x} "
            f"came out: cells were lost, doubled or changed; delete {work} and mix again"
        )
    for stray in out.glob("train-*.tar"):
        if stray.name > shard_name(plan.shards - 1):
            stray.unlink(missing_ok=True)
    _write_index(plan, out, work)
    info = {
        "format": FORMAT,
        "samples": samples,
        "slides": len(plan.slides),
        "projects": sorted({s["project"] for s in plan.slides if s["project"]}),
        "codec": plan.slides[0]["codec"],
        "patch_px": CROP_PX,
        "mpp": MPP,
        "seed": plan.seed,
        "checksum": f"{total:016x}",
        "shards": [f["shard"] for f in facts],
        "index": about_file(out / "index.parquet"),
        "source": plan.source,
    }
    info |= colours.result()
    with atomic(out / "dataset.json", "w") as file:
        json.dump(info, file, indent=1)
    _clear(work)
    for stale in out.glob(".*.tmp"):  # of runs that were killed
        shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(
            missing_ok=True
        )
    return info


def _clear(work: Path) -> None:
    """Delete the work folder; a kill meanwhile leaves no half of it that looks whole."""
    doomed = work.with_name(f".mix.{secrets.token_hex(4)}.tmp")
    with suppress(FileNotFoundError):
        work.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write_index(plan: Plan, out: Path, work: Path) -> None:
    """Write `index.parquet`: a row a sample, in shard order, some whole shards a row group."""
    together = max(1, INDEX_ROWS // plan.samples_per_shard)
    schema = INDEX_COLUMNS.with_metadata({"lemon": json.dumps({"digest": digest(plan.source)})})
    with (
        atomic(out / "index.parquet") as file,
        pq.ParquetWriter(file, schema, write_statistics=False) as writer,
    ):
        for start in range(0, plan.shards, together):
            tables = []
            for number in range(start, min(start + together, plan.shards)):
                with pa.memory_map(str(mark_path(work, number))) as mark:
                    table = pa.ipc.open_file(mark).read_all()  # stays mapped while it is used
                tables.append(table.replace_schema_metadata(schema.metadata))
            # Dictionaries differ from shard to shard; as one table they are unified.
            table = pa.concat_tables(tables).unify_dictionaries()
            writer.write_table(table, row_group_size=len(table))
