"""Pass 1 of a mix: read the slides' tars front to back, write their cells sorted by destination.

Where the page cache holds all tars, bytes are not copied into runs: pass 2 takes them from there.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.cells import kept_nuclei
from shards.direct import SCRATCH, take_blocks, write_direct
from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.plan import Piece, Plan
from shards.runs import RUN_COLUMNS, run_path
from shards.schema import CODECS, key, member_names
from shards.source import map_blocks
from shards.write import BLOCK, atomic, headers

GAP = 8 * BLOCK  # unwanted bytes that are read rather than skipped
WRITE_BLOCKS = 32_768  # 16 MB at a time
HASH_MEMBERS = 2048  # 7 MB at a time


def write_run(plan: Plan, number: int, work: Path, copy: bool) -> None:
    """Read the cells of one run, check them, and list them sorted by destination.

    Args:
        plan: of the mix.
        number: of the run.
        work: folder of the runs.
        copy: the cells' bytes into the run, too; else only where they must be changed.

    Raises:
        ValueError: a tar is not the one that its slide's table describes.
    """
    pieces = [(piece, _chosen(plan, piece)) for piece in plan.runs[number]]
    path = run_path(work, number)
    table = None if copy else _in_place(plan, pieces)
    copied = table is None
    if table is None:
        table = _copied(plan, pieces, path.with_suffix(".bin"))
    facts = {
        "checksum": f"{checksum(table['fingerprint'].to_numpy()):016x}",
        "copied": json.dumps(copied),
    }
    table = table.cast(RUN_COLUMNS).replace_schema_metadata(facts).combine_chunks()
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _in_place(plan: Plan, pieces: list[tuple[Piece, pa.Table]]) -> pa.Table | None:
    """Describe cells where they are; None if a shard could not take them as they are."""
    described = []
    for piece, table in pieces:
        starts = _member_starts(plan, piece, table)
        blocks = map_blocks(plan.tar(piece.slide))
        if (starts + member_blocks(table["size"].to_numpy())).max() > len(blocks):
            return None  # a last padding is absent
        for i in range(0, len(table), HASH_MEMBERS):
            found = blocks[starts[i : i + HASH_MEMBERS]]
            expected = _checked_headers(plan, piece, table.slice(i, HASH_MEMBERS), found)
            if not _equal(expected, found):
                return None
        described.append(_describe(plan, piece, table, blocks, starts))
    table = pa.concat_tables(described)
    return table.take(np.argsort(table["position"].to_numpy()))


def _copied(plan: Plan, pieces: list[tuple[Piece, pa.Table]], path: Path) -> pa.Table:
    """Write cells sorted by destination; return their description, `start` in that file."""
    spans = [_spans(t["offset"].to_numpy(), member_blocks(t["size"].to_numpy())) for _, t in pieces]
    blocks = SCRATCH.blocks("piece", sum(e - b for s in spans for b, e in s))
    at, described = 0, []
    for (piece, table), pieces_spans in zip(pieces, spans, strict=True):
        starts = _read(plan, piece, table, pieces_spans, blocks, at)
        blocks[starts] = _checked_headers(plan, piece, table, blocks[starts])
        at += sum(e - b for b, e in pieces_spans)
        described.append(_describe(plan, piece, table, blocks, starts))
    table = pa.concat_tables(described)
    order = np.argsort(table["position"].to_numpy())
    counts = member_blocks(table["size"].to_numpy())[order]
    numbers = block_numbers(table["start"].to_numpy()[order], counts)
    with atomic(path) as file:
        for i in range(0, len(numbers), WRITE_BLOCKS):
            part = numbers[i : i + WRITE_BLOCKS]
            write_direct(file, take_blocks(blocks, part, SCRATCH.blocks("part", len(part))))
    return table.take(order).set_column(1, "start", pa.array(np.cumsum(counts) - counts))


def _chosen(plan: Plan, piece: Piece) -> pa.Table:
    """Return the rows of a piece, columns as in `KEPT_COLUMNS`."""
    slide = plan.slides[piece.slide]
    table = kept_nuclei(plan.cells, slide)
    if plan.chosen is not None:
        wanted = np.isin(table["nucleus"].to_numpy(), plan.chosen[slide["slide"]])
        table = table.filter(pa.array(wanted))
    return table.slice(piece.start, piece.stop - piece.start)


def _spans(offsets: np.ndarray, counts: np.ndarray) -> list[tuple[int, int]]:
    """Say which blocks of a tar to read: its members, front to back, and small gaps with them.

    Args:
        offsets: (N,) of the members' bytes.
        counts: (N,) blocks of the members, header included.

    Returns:
        First block and the one after the last, of each span.
    """
    order = np.argsort(offsets, kind="stable")
    begin = offsets[order] // BLOCK - 1
    end = np.maximum.accumulate(begin + counts[order])
    cuts = np.flatnonzero(begin[1:] - end[:-1] > GAP // BLOCK) + 1
    return list(zip(begin[np.r_[0, cuts]].tolist(), end[np.r_[cuts - 1, -1]].tolist(), strict=True))


def _member_starts(plan: Plan, piece: Piece, table: pa.Table) -> np.ndarray:
    """Return the blocks where a piece's members begin in their tar, (N,).

    Raises:
        ValueError: the tar ends before them.
    """
    sizes, offsets = table["size"].to_numpy(), table["offset"].to_numpy()
    end = plan.tar(piece.slide).stat().st_size
    beyond = (offsets % BLOCK != 0) | (offsets < BLOCK) | (offsets + sizes > end)
    if beyond.any():
        _refuse(plan, piece, table, int(np.argmax(beyond)), f"the tar has {end} bytes")
    return offsets // BLOCK - 1


def _read(
    plan: Plan,
    piece: Piece,
    table: pa.Table,
    spans: list[tuple[int, int]],
    blocks: np.ndarray,
    at: int,
) -> np.ndarray:
    """Read a piece's spans into `blocks` from `at` on; return where members begin there, (N,)."""
    first = _member_starts(plan, piece, table)
    with open(plan.tar(piece.slide), "rb") as tar:
        to = at
        for begin, stop in spans:
            tar.seek(begin * BLOCK)
            target = blocks[to : to + stop - begin].reshape(-1)
            target[tar.readinto(target.data) :] = 0  # a last padding may be absent
            to += stop - begin
    begins, stops = np.array(spans).T
    shift = at - begins + np.cumsum(stops - begins) - (stops - begins)
    return first + shift[np.searchsorted(begins, first, side="right") - 1]


def _checked_headers(plan: Plan, piece: Piece, table: pa.Table, found: np.ndarray) -> np.ndarray:
    """Return the headers that a piece's members get, (N, 512), once they are those found.

    Raises:
        ValueError: a member is not where the table says.
    """
    slide = plan.slides[piece.slide]
    names = member_names(slide["slide"], table["nucleus"].to_numpy(), slide["codec"])
    expected = headers(names, table["size"].to_numpy())
    if not _equal(found, expected):
        checked = [*range(100), *range(124, 136)]  # name and size; the rest is any tar writer's
        other = (found[:, checked] != expected[:, checked]).any(axis=1)
        if other.any():
            wrong = int(np.argmax(other))
            there = bytes(found[wrong, :100]).rstrip(bytes(1))
            _refuse(plan, piece, table, wrong, f"{there!r} is there")
    return expected


def _equal(some: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two arrays of blocks, (N, 512) uint8, are the same; 8 bytes at a time."""
    return np.array_equal(some.view(np.uint64), other.view(np.uint64))


def _refuse(plan: Plan, piece: Piece, table: pa.Table, row: int, found: str) -> None:
    """Say that the member of a row is not where the table says."""
    slide, nucleus = plan.slides[piece.slide], table["nucleus"][row].as_py()
    raise ValueError(
        f"{plan.tar(piece.slide)}: {key(slide['slide'], nucleus)}.{CODECS[slide['codec']]} is not "
        f"at byte {table['offset'][row]} ({found}), so the tar is damaged or of another run: "
        "delete it and extract that slide again"
    )


def _describe(
    plan: Plan, piece: Piece, table: pa.Table, blocks: np.ndarray, starts: np.ndarray
) -> pa.Table:
    """Return a row for each member of a piece; `start` is the place in `blocks`."""
    counts = member_blocks(table["size"].to_numpy())
    hashes = []
    for i in range(0, len(starts), HASH_MEMBERS):
        first, some = starts[i : i + HASH_MEMBERS], counts[i : i + HASH_MEMBERS]
        ends = first + some
        if np.array_equal(first[1:], ends[:-1]):  # one after another
            members = blocks[first[0] : ends[-1]]
        else:
            numbers = block_numbers(first, some)
            members = take_blocks(blocks, numbers, SCRATCH.blocks("part", len(numbers)))
        hashes.append(fingerprint(members, some))
    return pa.table(
        {
            "position": plan.positions(piece),
            "start": starts,
            "size": table["size"],
            "slide_number": np.full(len(table), piece.slide, np.int32),
            **{c: table[c] for c in ("nucleus", "x", "y", "area_um2", "label")},
            "fingerprint": np.concatenate(hashes),
        }
    )
