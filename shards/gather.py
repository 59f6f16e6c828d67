"""Pass 2 of a mix: take the cells of some shards out of all runs, write the tars.

A finished shard is `train-000000.tar` in the data set and `shard-000000.arrow` in the work folder,
its rows of the index: its commit mark, renamed into place last.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.direct import ALIGN, SCRATCH, read_direct, take_blocks, write_direct
from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.plan import Plan
from shards.scatter import run_path
from shards.schema import INDEX_COLUMNS
from shards.write import BLOCK, atomic

PAGE = ALIGN // BLOCK  # blocks


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"train-{number:06d}.tar"


def mark_path(work: Path, number: int) -> Path:
    """Return the commit mark of a shard."""
    return work / f"shard-{number:06d}.arrow"


def read_facts(path: Path) -> dict:
    """Return what a run's or a shard's commit mark says beside its rows."""
    with pa.memory_map(str(path)) as file:
        metadata = pa.ipc.open_file(file).schema.metadata
    return {k.decode(): json.loads(v) if v[:1] == b"{" else v.decode() for k, v in metadata.items()}


def is_made(out: Path, work: Path, number: int) -> bool:
    """Tell whether a shard is finished."""
    mark, tar = mark_path(work, number), out / shard_name(number)
    return (
        mark.is_file()
        and tar.is_file()
        and tar.stat().st_size == read_facts(mark)["shard"]["bytes"]
    )


def write_shards(plan: Plan, group: range, out: Path, work: Path) -> None:
    """Write those shards of a group that are not finished.

    Raises:
        ValueError: the runs do not hold each cell of the group once, byte by byte: a disk error.
    """
    missing = [s for s in group if not is_made(out, work, s)]
    if not missing:
        return
    first, last = plan.samples_of(missing[0]).start, plan.samples_of(missing[-1]).stop
    table, blocks = _collect(plan, first, last, work)
    order = np.argsort(table["position"].to_numpy(), kind="stable")
    table = table.take(order)
    if not np.array_equal(table["position"].to_numpy(), np.arange(first, last)):
        raise ValueError(
            f"{work} lacks cells of shards {missing[0]} to {missing[-1]}, or holds some twice: "
            f"delete {work} and mix again"
        )
    for number in missing:
        samples = plan.samples_of(number)
        rows = table.slice(samples.start - first, len(samples))
        _write_shard(plan, number, rows, blocks, out, work)


def _collect(plan: Plan, first: int, last: int, work: Path) -> tuple[pa.Table, np.ndarray]:
    """Read the cells of places [first, last) from all runs.

    Returns:
        Their rows, `start` counting in what was read, and (M, 512) uint8 blocks.
    """
    slices = []
    for number in range(len(plan.runs)):
        path = run_path(work, number)
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
            positions = table["position"].chunk(0).to_numpy()  # a run is one batch: not copied
            low, high = np.searchsorted(positions, [first, last]).tolist()
            # Copied, for the mapping ends here.
            rows = table.slice(low, high - low).take(np.arange(high - low))
        slices.append((path.with_suffix(".bin"), rows))
    spans = []  # of blocks, widened to whole pages as direct reading wants them
    for _, rows in slices:
        begin = rows["start"][0].as_py() if len(rows) else 0
        end = begin + int(member_blocks(rows["size"].to_numpy()).sum())
        spans.append((begin // PAGE * PAGE, end, -(-end // PAGE) * PAGE))
    blocks = SCRATCH.blocks("piece", sum(stop - low for low, _, stop in spans))
    tables, at = [], 0
    for (path, rows), (low, end, stop) in zip(slices, spans, strict=True):
        if not len(rows):
            continue
        if read_direct(path, low * BLOCK, blocks[at : at + stop - low]) < (end - low) * BLOCK:
            raise ValueError(f"{path} is cut short: delete {work} and mix again")
        starts = rows["start"].to_numpy() - low + at
        tables.append(rows.set_column(1, "start", pa.array(starts)))
        at += stop - low
    return pa.concat_tables(tables).combine_chunks(), blocks


def _write_shard(
    plan: Plan, number: int, rows: pa.Table, blocks: np.ndarray, out: Path, work: Path
) -> None:
    """Write one tar and its commit mark."""
    counts = member_blocks(rows["size"].to_numpy())
    tar = SCRATCH.blocks("shard", int(counts.sum()) + 2)
    tar[-2:] = 0  # a tar ends with two empty blocks
    members = take_blocks(blocks, block_numbers(rows["start"].to_numpy(), counts), tar[:-2])
    hashes = fingerprint(members, counts)
    damaged = np.flatnonzero(hashes != rows["fingerprint"].to_numpy())
    if len(damaged):
        slide = plan.slides[rows["slide_number"][damaged[0]].as_py()]["slide"]
        raise ValueError(
            f"{len(damaged)} cells changed between reading and writing, the first nucleus "
            f"{rows['nucleus'][damaged[0]]} of {slide}: the disk or memory is bad; delete {work} "
            "and mix again"
        )
    path = out / shard_name(number)
    with atomic(path) as file:
        write_direct(file, tar)
    shard = {
        "name": path.name,
        "samples": len(rows),
        "bytes": tar.nbytes,
        "sha256": hashlib.sha256(tar.data).hexdigest(),
    }
    facts = {"shard": json.dumps(shard), "checksum": f"{checksum(hashes):016x}"}
    index = _index(plan, number, rows, np.cumsum(counts) - counts).replace_schema_metadata(facts)
    with atomic(mark_path(work, number)) as file, pa.ipc.new_file(file, index.schema) as writer:
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
