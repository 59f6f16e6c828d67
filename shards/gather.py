"""Pass 2 of a mix: take the cells of some shards out of all runs, write the tars.

A finished shard is `train-000000.tar` in the data set and `shard-000000.arrow` in the work folder,
its rows of the index: its commit mark, renamed into place last.
"""

import hashlib
import json
import os
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa

from shards.direct import ALIGN, SCRATCH, read_direct, take_blocks, write_direct
from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.plan import Plan
from shards.runs import RUN_COLUMNS, Runs, read_facts
from shards.schema import INDEX_COLUMNS
from shards.write import BLOCK, atomic

PAGE = ALIGN // BLOCK  # blocks
# One thread at a time reads: a call a cell, for which several would fight for the GIL. And one
# hashes: more would keep the reader, on whom all wait, from its core.
READING, HASHING = Lock(), Lock()


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"train-{number:06d}.tar"


def mark_path(work: Path, number: int) -> Path:
    """Return the commit mark of a shard."""
    return work / f"shard-{number:06d}.arrow"


def is_made(out: Path, work: Path, number: int) -> bool:
    """Tell whether a shard is finished."""
    mark, tar = mark_path(work, number), out / shard_name(number)
    return (
        mark.is_file()
        and tar.is_file()
        and tar.stat().st_size == read_facts(mark)["shard"]["bytes"]
    )


def write_shards(plan: Plan, group: range, out: Path, work: Path, runs: Runs) -> None:
    """Write those shards of a group that are not finished.

    Raises:
        ValueError: the runs do not hold each cell of the group once, byte by byte: a disk error.
    """
    missing = [s for s in group if not is_made(out, work, s)]
    if not missing:
        return
    first, last = plan.samples_of(missing[0]).start, plan.samples_of(missing[-1]).stop
    table, blocks = _collect(runs, first, last, work)
    table = table.take(np.argsort(table["position"].to_numpy(), kind="stable"))
    if not np.array_equal(table["position"].to_numpy(), np.arange(first, last)):
        raise ValueError(
            f"{work} lacks cells of shards {missing[0]} to {missing[-1]}, or holds some twice: "
            f"delete {work} and mix again"
        )
    for number in missing:
        samples = plan.samples_of(number)
        rows = table.slice(samples.start - first, len(samples))
        _write_shard(plan, number, rows, blocks, out, work)


def _collect(runs: Runs, first: int, last: int, work: Path) -> tuple[pa.Table, np.ndarray]:
    """Read the cells of places [first, last) as far as runs hold them.

    Returns:
        Their rows with a column `copied`, and (M, 512) uint8 blocks; `start` counts in these where
        a member was copied into a run, else in the slide's tar.
    """
    slices = list(runs.slices(first, last))
    # Widened to whole pages, as direct reading wants them.
    spans = [(s.begin // PAGE * PAGE, -(-s.end // PAGE) * PAGE) for s in slices]
    blocks = SCRATCH.blocks("piece", sum(stop - low for low, stop in spans))
    shift, at = [], 0
    for s, (low, stop) in zip(slices, spans, strict=True):
        into = blocks[at : at + stop - low]
        if s.path and read_direct(s.path, low * BLOCK, into) < (s.end - low) * BLOCK:
            raise ValueError(f"{s.path} is cut short: delete {work} and mix again")
        shift.append(at - low if s.path else 0)
        at += stop - low
    table = pa.concat_tables([s.rows for s in slices] or [RUN_COLUMNS.empty_table()])
    table = table.combine_chunks()
    lengths = [len(s.rows) for s in slices]
    starts = table["start"].to_numpy() + np.repeat(np.array(shift, np.int64), lengths)
    copied = np.repeat([s.path is not None for s in slices], lengths).astype(bool)
    table = table.set_column(1, "start", pa.array(starts))
    return table.append_column("copied", pa.array(copied)), blocks


def _fill(plan: Plan, rows: pa.Table, blocks: np.ndarray, tar: np.ndarray) -> None:
    """Copy the members of a shard to their places.

    Args:
        plan: of the mix.
        rows: of the shard, as `_collect` returns them, in order.
        blocks: likewise.
        tar: (M, 512) uint8, where to.
    """
    starts, counts = rows["start"].to_numpy(), member_blocks(rows["size"].to_numpy())
    places = np.cumsum(counts) - counts
    here = rows["copied"].to_numpy()
    if here.all():
        take_blocks(blocks, block_numbers(starts, counts), tar)
        return
    some = block_numbers(starts[here], counts[here])
    tar[block_numbers(places[here], counts[here])] = blocks[some]
    slides, data = rows["slide_number"].to_numpy(), memoryview(tar.reshape(-1))
    order = np.lexsort((starts, slides, here))[: len(rows) - here.sum()]
    edges = np.flatnonzero(np.diff(slides[order], prepend=-1, append=-1)).tolist()
    begins, firsts, ends = (BLOCK * v[order] for v in (starts, places, places + counts))
    with READING:
        for low, high in pairwise(edges):
            path = plan.tar(int(slides[order[low]]))
            spans = (v[low:high].tolist() for v in (begins, firsts, ends))
            with open(path, "rb", buffering=0) as file:
                number = file.fileno()
                for begin, first, end in zip(*spans, strict=True):
                    if os.preadv(number, [data[first:end]], begin) < end - first:
                        raise ValueError(f"{path} was changed while it was mixed: mix again")


def _write_shard(
    plan: Plan, number: int, rows: pa.Table, blocks: np.ndarray, out: Path, work: Path
) -> None:
    """Write one tar and its commit mark."""
    counts = member_blocks(rows["size"].to_numpy())
    tar = SCRATCH.blocks("shard", int(counts.sum()) + 2)
    tar[-2:] = 0  # a tar ends with two empty blocks
    _fill(plan, rows, blocks, tar[:-2])
    with HASHING:
        hashes = fingerprint(tar[:-2], counts)
        sha256 = hashlib.sha256(tar.data).hexdigest()
    damaged = np.flatnonzero(hashes != rows["fingerprint"].to_numpy())
    if len(damaged):
        slide = plan.slides[rows["slide_number"][damaged[0]].as_py()]["slide"]
        raise ValueError(
            f"{len(damaged)} cells changed between reading and writing, the first nucleus "
            f"{rows['nucleus'][damaged[0]]} of {slide}: the disk or memory is bad; delete {work} "
            "and mix again"
        )
    path = out / shard_name(number)
    # Neither name need be lasting before the other: without both the shard is made again, and
    # `dataset.json` makes all names lasting.
    with atomic(path, lasting=False) as file:
        write_direct(file, tar)
    shard = {
        "name": path.name,
        "samples": len(rows),
        "bytes": tar.nbytes,
        "sha256": sha256,
    }
    facts = {"shard": json.dumps(shard), "checksum": f"{checksum(hashes):016x}"}
    index = _index(plan, number, rows, np.cumsum(counts) - counts).replace_schema_metadata(facts)
    mark = atomic(mark_path(work, number), lasting=False)
    with mark as file, pa.ipc.new_file(file, index.schema) as writer:
        writer.write_table(index)


def _index(plan: Plan, number: int, rows: pa.Table, starts: np.ndarray) -> pa.Table:
    """Return a shard's rows of the index; `starts` are the members' first blocks in the tar."""
    slide = rows["slide_number"].combine_chunks()
    return pa.table(
        {
            "shard": np.full(len(rows), number, np.int32),
            "offset": (starts + 1) * BLOCK,
            "size": rows["size"],
            "slide": pa.array([s["slide"] for s in plan.slides]).take(slide),
            "project": pa.array([s["project"] for s in plan.slides], pa.string()).take(slide),
            **{name: rows[name] for name in ("nucleus", "x", "y", "area_um2", "label")},
            "fingerprint": rows["fingerprint"],
        }
    ).cast(INDEX_COLUMNS)
