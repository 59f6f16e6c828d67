"""Pass 1 of a mix: read the slides' tars front to back, write their cells sorted by destination.

A run is `run-000000.bin`, whole tar members in 512-byte blocks in the order of their places in
the data set, and `run-000000.arrow`, a row for each: its commit mark, renamed into place last.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.cells import kept_nuclei
from shards.direct import SCRATCH, take_blocks, write_direct
from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.plan import Piece, Plan
from shards.schema import CODECS, key
from shards.write import BLOCK, atomic, headers

GAP = 8 * BLOCK  # unwanted bytes that are read rather than skipped
WRITE_BLOCKS = 32_768  # 16 MB at a time
HASH_MEMBERS = 2048  # 7 MB at a time
RUN_COLUMNS = pa.schema(
    [
        ("position", pa.int64()),  # in the data set, ascending
        ("start", pa.int64()),  # of the member in the run's file, blocks
        ("size", pa.int32()),  # of the image, bytes
        ("slide_number", pa.int32()),
        ("nucleus", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("area_um2", pa.float32()),
        ("label", pa.string()),
        ("fingerprint", pa.uint64()),
    ]
)


def run_path(work: Path, number: int) -> Path:
    """Return the commit mark of a run."""
    return work / f"run-{number:06d}.arrow"


def write_run(plan: Plan, number: int, work: Path) -> None:
    """Read the cells of one run, check them, and write them sorted by destination.

    Args:
        plan: of the mix.
        number: of the run.
        work: folder of the runs.

    Raises:
        ValueError: a tar is not the one that its slide's table describes.
    """
    pieces = plan.runs[number]
    tables = [_chosen(plan, piece) for piece in pieces]
    spans = [_spans(t["offset"].to_numpy(), member_blocks(t["size"].to_numpy())) for t in tables]
    blocks = SCRATCH.blocks("piece", sum(e - b for s in spans for b, e in s))
    at, described = 0, []
    for piece, table, pieces_spans in zip(pieces, tables, spans, strict=True):
        starts = _read(plan, piece, table, pieces_spans, blocks, at)
        at += sum(e - b for b, e in pieces_spans)
        described.append(_describe(plan, piece, table, blocks, starts))
    table = pa.concat_tables(described)
    order = np.argsort(table["position"].to_numpy())
    counts = member_blocks(table["size"].to_numpy())[order]
    numbers = block_numbers(table["start"].to_numpy()[order], counts)
    path = run_path(work, number)
    with atomic(path.with_suffix(".bin")) as file:
        for i in range(0, len(numbers), WRITE_BLOCKS):
            part = numbers[i : i + WRITE_BLOCKS]
            write_direct(file, take_blocks(blocks, part, SCRATCH.blocks("part", len(part))))
    table = table.take(order).set_column(1, "start", pa.array(np.cumsum(counts) - counts))
    facts = {"checksum": f"{checksum(table['fingerprint'].to_numpy()):016x}"}
    table = table.cast(RUN_COLUMNS).replace_schema_metadata(facts).combine_chunks()
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


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


def _read(
    plan: Plan,
    piece: Piece,
    table: pa.Table,
    spans: list[tuple[int, int]],
    blocks: np.ndarray,
    at: int,
) -> np.ndarray:
    """Read a piece's spans into `blocks` from `at` on, and check and rewrite the headers.

    Returns:
        (N,) where the members begin in `blocks`.

    Raises:
        ValueError: a member is not where the table says.
    """
    slide = plan.slides[piece.slide]
    path = plan.cells / f"{slide['slide']}.tar"
    names = [
        f"{key(slide['slide'], n)}.{CODECS[slide['codec']]}" for n in table["nucleus"].to_pylist()
    ]
    sizes, offsets = table["size"].to_numpy(), table["offset"].to_numpy()

    def refuse(wrong: np.ndarray, found: str) -> None:
        raise ValueError(
            f"{path}: {names[wrong[0]]} is not at byte {offsets[wrong[0]]} ({found}), so the tar "
            "is damaged or of another run: delete it and extract that slide again"
        )

    with open(path, "rb") as tar:
        end = os.fstat(tar.fileno()).st_size
        beyond = (offsets % BLOCK != 0) | (offsets < BLOCK) | (offsets + sizes > end)
        if beyond.any():
            refuse(np.flatnonzero(beyond), f"the tar has {end} bytes")
        to = at
        for begin, stop in spans:
            tar.seek(begin * BLOCK)
            target = blocks[to : to + stop - begin].reshape(-1)
            target[tar.readinto(target.data) :] = 0  # a last padding may be absent
            to += stop - begin
    begins, stops = np.array(spans).T
    shift = at - begins + np.cumsum(stops - begins) - (stops - begins)
    first = offsets // BLOCK - 1
    starts = first + shift[np.searchsorted(begins, first, side="right") - 1]
    expected, found = headers(names, sizes), blocks[starts]
    checked = [*range(100), *range(124, 136)]  # name and size; the rest may be any tar writer's
    other = (found[:, checked] != expected[:, checked]).any(axis=1)
    if other.any():
        wrong = np.flatnonzero(other)
        refuse(wrong, f"{bytes(found[wrong[0], :100]).rstrip(bytes(1))!r} is there")
    blocks[starts] = expected
    return starts


def _describe(
    plan: Plan, piece: Piece, table: pa.Table, blocks: np.ndarray, starts: np.ndarray
) -> pa.Table:
    """Return a row for each member of a piece; `start` is the place in `blocks`."""
    counts = member_blocks(table["size"].to_numpy())
    hashes = []
    for i in range(0, len(starts), HASH_MEMBERS):
        some = counts[i : i + HASH_MEMBERS]
        numbers = block_numbers(starts[i : i + HASH_MEMBERS], some)
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
