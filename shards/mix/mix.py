"""Mix the cells of all slides into shards: one global shuffle, bytes moved, never re-encoded.

An external sort by destination. Pass 1 (scatter.py) writes spill files: what fits in memory, in
order. Pass 2 (gather.py) takes each shard's slice out of every spill file. The join writes the
index and, last, `dataset.json`. Parts share out spill files and shards; each is a file that is
whole or absent and a function of the cells and settings alone, so neither a kill nor a second copy
can do harm, and whoever comes last finishes.
"""

import json
import logging
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.colour import colour_statistics
from shards.crop import decode_into
from shards.dataset import FORMAT, about_file, digest
from shards.errors import no_room
from shards.index import Index
from shards.json_file import read_json
from shards.mix.gather import is_made, mark_path, shard_name, write_shards
from shards.mix.layout import THREADS, Layout, lay_out
from shards.mix.scatter import write_spill
from shards.mix.spill import Spills, read_facts, spill_path
from shards.progress import Bar
from shards.read import Shards
from shards.schema import CROP_PX, INDEX_COLUMNS, MPP
from shards.write import atomic

MEMORY = 0.5  # GB by default
INDEX_ROWS = 65_536  # of a row group at most, unless a shard holds more
SAMPLE = 10_000  # crops whose colours are described: the first, which mixing made a random sample
DECODED = 64  # of them at a time
ROOM = 0.9  # of the bytes that are missing, an estimate, must be free

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
        samples_per_shard: crops in a tar; the last one may hold fewer.
        part: which of `parts` this is, from 0; it does its share of the work that can be done.
        parts: how many share the work.
        memory: GB that all threads may take, beside the 0.4 of Python and its libraries.

    Returns:
        What `dataset.json` holds; None where other parts have work left, which is logged.

    Raises:
        FileNotFoundError: no such folder, or no finished slide in it.
        NoRoom: the disk is full, or will be.
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
    layout = lay_out(cells, selection, samples_per_shard, seed, memory)
    found = _finished(layout, out, overwrite)
    if found:
        return found
    work = _start(layout, out, overwrite, memory)
    try:
        with ThreadPoolExecutor(THREADS) as pool:  # numpy and the kernel do the work
            return _work(layout, out, work, part, parts, pool)
    except FileNotFoundError:
        found = _finished(layout, out, overwrite=False)  # another copy ended and cleared away
        if not found:
            raise
        return found


def _finished(layout: Layout, out: Path, overwrite: bool) -> dict | None:
    """Return the data set that is there already if it is this one."""
    if not (out / "dataset.json").exists() or overwrite:
        return None
    found = read_json(out / "dataset.json", "give --overwrite to mix again")
    if found.get("source") != layout.source:
        raise ValueError(
            f"{out} holds shards of other cells or settings; name another --out, or give "
            "--overwrite to replace them"
        )
    log.info("%s already holds these %d cells, mixed so", out, found["samples"])
    _clear(out / ".mix")  # a kill may have left it
    return found


def _start(layout: Layout, out: Path, overwrite: bool, memory: float) -> Path:
    """Make the work folder, which remembers what it is for; return it."""
    work = out / ".mix"
    if overwrite:
        for old in [out / "dataset.json", out / "index.parquet", *out.glob("train-*.tar")]:
            old.unlink(missing_ok=True)
        _clear(work)
    work.mkdir(parents=True, exist_ok=True)
    path, now = work / "plan.json", {"source": layout.source, "memory": memory}
    if not path.exists():
        with atomic(path, "w") as file:
            json.dump(now, file)
    elif read_json(path, "give --overwrite to begin again") != now:
        raise ValueError(
            f"{out} holds an unfinished mix of other cells or settings (or another --memory); "
            "finish it as it was begun, name another --out, or give --overwrite"
        )
    return work


def _work(
    layout: Layout, out: Path, work: Path, part: int, parts: int, pool: ThreadPoolExecutor
) -> dict | None:
    """Do a part's share of each pass as far as the files allow."""
    _check_room(layout, out, work)
    mine = [n for n in range(part, len(layout.spills), parts) if not spill_path(work, n).is_file()]
    _finish([pool.submit(write_spill, layout, n, work) for n in mine], "pass 1")
    if _left(layout.spills, lambda n: spill_path(work, n).is_file(), "pass 1", "spill file"):
        return None
    spills = Spills(work, len(layout.spills))
    groups = layout.groups[part::parts]
    _finish([pool.submit(write_shards, layout, g, out, work, spills) for g in groups], "pass 2")
    if _left(range(layout.shards), lambda n: is_made(out, work, n), "pass 2", "shard"):
        return None
    return _join(layout, out, work)


def _check_room(layout: Layout, out: Path, work: Path) -> None:
    """Refuse at once what the disk cannot hold, rather than when it is full."""
    spills, shards = len(layout.spills), layout.shards
    to_sort = sum(not spill_path(work, n).is_file() for n in range(spills))
    to_write = sum(not is_made(out, work, n) for n in range(shards))
    needed = layout.bytes * to_sort // spills + layout.bytes * to_write // shards
    if shutil.disk_usage(out).free < ROOM * needed:
        raise no_room(out / "the spill files and the shards", needed)


def _finish(tasks: list[Future], what: str) -> None:
    """Wait for all tasks; after an error none is begun any more."""
    try:
        for task in Bar(tasks, f"mix, {what}", "files"):
            task.result()
    finally:
        for task in tasks:
            task.cancel()


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


def _join(layout: Layout, out: Path, work: Path) -> dict:
    """Check that nothing was lost or doubled, write the index and the description."""
    facts = [read_facts(mark_path(work, n)) for n in range(layout.shards)]
    before = [read_facts(spill_path(work, n))["checksum"] for n in range(len(layout.spills))]
    total, moved = (
        sum(int(c, 16) for c in sums) % 2**64 for sums in (before, [f["checksum"] for f in facts])
    )
    samples = sum(f["shard"]["samples"] for f in facts)
    if (samples, moved) != (layout.samples, total):
        raise ValueError(
            f"{layout.samples} cells of checksum {total:016x} went in, {samples} of {moved:016x} "
            f"came out: cells were lost, doubled or changed; delete {work} and mix again"
        )
    for stray in out.glob("train-*.tar"):
        if stray.name > shard_name(layout.shards - 1):
            stray.unlink(missing_ok=True)
    _write_index(layout, out, work)
    info = {
        "format": FORMAT,
        "samples": samples,
        "slides": len(layout.slides),
        "projects": sorted({s["project"] for s in layout.slides if s["project"]}),
        "codec": layout.slides[0]["codec"],
        "patch_px": CROP_PX,
        "mpp": MPP,
        "seed": layout.seed,
        "checksum": f"{total:016x}",
        "shards": [f["shard"] for f in facts],
        "index": about_file(out / "index.parquet"),
        "source": layout.source,
    }
    info |= colour_statistics(_sample(Shards(out, info)), layout.seed)
    with atomic(out / "dataset.json", "w") as file:
        json.dump(info, file, indent=1)
    _clear(work)
    for stale in out.glob(".*.tmp"):  # of runs that were killed
        shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(
            missing_ok=True
        )
    return info


def _sample(shards: Shards) -> Iterator[np.ndarray]:
    """Yield the first crops of a data set, (N, 3, H, W) uint8, some at a time."""
    count = min(SAMPLE, len(shards))
    for start in range(0, count, DECODED):
        stop = min(start + DECODED, count)
        crops = np.empty((stop - start, CROP_PX, CROP_PX, 3), np.uint8)
        for row in range(start, stop):
            try:
                decode_into(shards.data(row), crops[row - start])
            except ValueError as error:
                [cell] = Index(shards.folder, shards.info).table(row, row + 1).to_pylist()
                raise ValueError(
                    f"the crop of nucleus {cell['nucleus']} of {cell['slide']} is broken "
                    f"({error}): extract that slide again"
                ) from error
        yield crops.transpose(0, 3, 1, 2)


def _clear(work: Path) -> None:
    """Delete the work folder; a kill meanwhile leaves no half of it that looks whole."""
    doomed = work.with_name(f".mix.{secrets.token_hex(4)}.tmp")
    with suppress(FileNotFoundError):
        work.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _write_index(layout: Layout, out: Path, work: Path) -> None:
    """Write `index.parquet`: a row a sample, in shard order, some whole shards a row group."""
    together = max(1, INDEX_ROWS // layout.samples_per_shard)
    schema = INDEX_COLUMNS.with_metadata({"lemon": json.dumps({"digest": digest(layout.source)})})
    with (
        atomic(out / "index.parquet") as file,
        pq.ParquetWriter(file, schema, write_statistics=False) as writer,
    ):
        for start in range(0, layout.shards, together):
            tables = []
            for number in range(start, min(start + together, layout.shards)):
                with pa.memory_map(str(mark_path(work, number))) as mark:
                    table = pa.ipc.open_file(mark).read_all()  # stays mapped while it is used
                tables.append(table.replace_schema_metadata(schema.metadata))
            # Dictionaries differ from shard to shard; as one table they are unified.
            table = pa.concat_tables(tables).unify_dictionaries()
            writer.write_table(table, row_group_size=len(table))
