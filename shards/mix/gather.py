"""Pass 2 of a mix: take the cells of some shards out of all spill files, write the tars.

A finished shard is `train-000000.tar` in the data set and `shard-000000.arrow` in the work folder,
its rows of the index: its commit mark, renamed into place last.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.mix.direct import BUFFERS, PAGE, read_blocks, write_blocks
from shards.mix.layout import Layout
from shards.mix.spill import SPILL_COLUMNS, Spills, read_facts
from shards.schema import INDEX_COLUMNS
from shards.write import BLOCK, atomic


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


def write_shards(layout: Layout, group: range, out: Path, work: Path, spills: Spills) -> None:
    """Write those shards of a group that are not finished.

    Raises:
        ValueError: the spill files do not hold each cell of the group once, byte by byte: a disk
            error.
    """
    missing = [s for s in group if not is_made(out, work, s)]
    if not missing:
        return
    first, last = layout.samples_of(missing[0]).start, layout.samples_of(missing[-1]).stop
    table, blocks = _collect(spills, first, last, work)
    table = table.take(np.argsort(table["position"].to_numpy(), kind="stable"))
    if not np.array_equal(table["position"].to_numpy(), np.arange(first, last)):
        raise ValueError(
            f"{work} lacks cells of shards {missing[0]} to {missing[-1]}, or holds some twice: "
            f"delete {work} and mix again"
        )
    for number in missing:
        samples = layout.samples_of(number)
        rows = table.slice(samples.start - first, len(samples))
        _write_shard(layout, number, rows, blocks, out, work)


def _collect(spills: Spills, first: int, last: int, work: Path) -> tuple[pa.Table, np.ndarray]:
    """Read the cells of places [first, last) as far as spill files hold them.

    Returns:
        Their rows, and (M, 512) uint8 blocks, in which `start` counts.
    """
    slices = list(spills.slices(first, last))
    spans = [(s.begin // PAGE * PAGE, -(-s.end // PAGE) * PAGE) for s in slices]  # whole pages
    blocks = BUFFERS.take("cells", sum(stop - begin for begin, stop in spans))
    tables, at = [SPILL_COLUMNS.empty_table()], 0
    for s, (begin, stop) in zip(slices, spans, strict=True):
        with open(s.path, "rb") as file:
            came = read_blocks(file.fileno(), begin, blocks[at : at + stop - begin])
        if came < (s.end - begin) * BLOCK:
            raise ValueError(f"{s.path} is cut short: delete {work} and mix again")
        starts = s.rows["start"].to_numpy() + (at - begin)
        tables.append(s.rows.set_column(1, SPILL_COLUMNS.field("start"), pa.array(starts)))
        at += stop - begin
    return pa.concat_tables(tables).combine_chunks(), blocks


def _write_shard(
    layout: Layout, number: int, rows: pa.Table, blocks: np.ndarray, out: Path, work: Path
) -> None:
    """Write one tar and its commit mark."""
    counts = member_blocks(rows["size"].to_numpy())
    tar = BUFFERS.take("shard", int(counts.sum()) + 2)
    tar[-2:] = 0  # a tar ends with two empty blocks
    members = tar[:-2]
    numbers = block_numbers(rows["start"].to_numpy(), counts)
    # "clip" writes straight into `out`; "raise" would fill a fresh array first.
    np.take(blocks, numbers, axis=0, out=members, mode="clip")
    hashes = fingerprint(members, counts)
    damaged = np.flatnonzero(hashes != rows["fingerprint"].to_numpy())
    if len(damaged):
        slide = layout.slides[rows["slide_number"][damaged[0]].as_py()]["slide"]
        raise ValueError(
            f"{len(damaged)} cells changed between reading and writing, the first nucleus "
            f"{rows['nucleus'][damaged[0]]} of {slide}: the disk or memory is bad; delete {work} "
            "and mix again"
        )
    path = out / shard_name(number)
    with atomic(path, needed=tar.nbytes) as file:
        write_blocks(file.fileno(), 0, tar)
    shard = {
        "name": path.name,
        "samples": len(rows),
        "bytes": tar.nbytes,
        "sha256": hashlib.sha256(tar.data).hexdigest(),
    }
    facts = {"shard": json.dumps(shard), "checksum": f"{checksum(hashes):016x}"}
    index = _index(layout, number, rows, np.cumsum(counts) - counts).replace_schema_metadata(facts)
    mark = mark_path(work, number)
    with atomic(mark) as file, pa.ipc.new_file(file, index.schema) as writer:
        writer.write_table(index)


def _index(layout: Layout, number: int, rows: pa.Table, starts: np.ndarray) -> pa.Table:
    """Return a shard's rows of the index; `starts` are the members' first blocks in the tar."""
    slide = rows["slide_number"].combine_chunks()
    return pa.table(
        {
            "shard": np.full(len(rows), number, np.int32),
            "offset": (starts + 1) * BLOCK,
            "size": rows["size"],
            "slide": pa.array([s["slide"] for s in layout.slides]).take(slide),
            "project": pa.array([s["project"] for s in layout.slides], pa.string()).take(slide),
            **{name: rows[name] for name in ("nucleus", "x", "y", "area_um2", "label")},
            "fingerprint": rows["fingerprint"],
        }
    ).cast(INDEX_COLUMNS)
