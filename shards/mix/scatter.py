"""Pass 1 of a mix: read the slides' tars front to back, write spill files."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.cells import kept_nuclei
from shards.fingerprint import block_numbers, checksum, fingerprint, member_blocks
from shards.mix.direct import BUFFERS, write_blocks
from shards.mix.layout import Layout, SlideRows
from shards.mix.spill import SPILL_COLUMNS, spill_path
from shards.schema import CODECS, key, member_names
from shards.write import BLOCK, atomic, headers

GAP = 8 * BLOCK  # unwanted bytes that are read rather than skipped
WRITE_BLOCKS = 32_768  # 16 MB at a time


def write_spill(layout: Layout, number: int, work: Path) -> None:
    """Read the cells of one spill file, check them, and write them in the order of their places.

    Raises:
        ValueError: a tar is not the one that its slide's table describes.
    """
    parts = [(rows, _chosen(layout, rows)) for rows in layout.spills[number]]
    spans = [_spans(t["offset"].to_numpy(), member_blocks(t["size"].to_numpy())) for _, t in parts]
    blocks = BUFFERS.take("cells", sum(e - b for s in spans for b, e in s))
    at, described = 0, []
    for (rows, table), to_read in zip(parts, spans, strict=True):
        starts = _read(layout, rows, table, to_read, blocks, at)
        blocks[starts] = _checked_headers(layout, rows, table, blocks[starts])
        described.append(_describe(layout, rows, table, blocks, starts))
        at += sum(e - b for b, e in to_read)
    table = pa.concat_tables(described)
    table = table.take(np.argsort(table["position"].to_numpy()))
    counts = member_blocks(table["size"].to_numpy())
    numbers = block_numbers(table["start"].to_numpy(), counts)
    path = spill_path(work, number)
    with atomic(path.with_suffix(".bin"), needed=len(numbers) * BLOCK) as file:
        for i in range(0, len(numbers), WRITE_BLOCKS):
            part = numbers[i : i + WRITE_BLOCKS]
            ordered = BUFFERS.take("ordered", len(part))
            np.take(blocks, part, axis=0, out=ordered, mode="clip")
            write_blocks(file.fileno(), i, ordered)
    facts = {"checksum": f"{checksum(table['fingerprint'].to_numpy()):016x}"}
    table = table.set_column(1, "start", pa.array(np.cumsum(counts) - counts))
    table = table.cast(SPILL_COLUMNS).replace_schema_metadata(facts).combine_chunks()
    with atomic(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _chosen(layout: Layout, rows: SlideRows) -> pa.Table:
    """Return the table of some cells, columns as in `KEPT_COLUMNS`."""
    slide = layout.slides[rows.slide]
    table = kept_nuclei(layout.cells, slide)
    if layout.chosen is not None:
        wanted = np.isin(table["nucleus"].to_numpy(), layout.chosen[slide["slide"]])
        table = table.filter(pa.array(wanted))
    return table.slice(rows.start, rows.stop - rows.start)


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
    layout: Layout,
    rows: SlideRows,
    table: pa.Table,
    spans: list[tuple[int, int]],
    blocks: np.ndarray,
    at: int,
) -> np.ndarray:
    """Read spans of a slide's tar into `blocks` from `at` on.

    Returns:
        (N,) where the members of the table begin in `blocks`.
    """
    path = layout.tar(rows.slide)
    sizes, offsets = table["size"].to_numpy(), table["offset"].to_numpy()
    end = path.stat().st_size
    beyond = (offsets % BLOCK != 0) | (offsets < BLOCK) | (offsets + sizes > end)
    if beyond.any():
        _refuse(layout, rows, table, int(np.argmax(beyond)), f"the tar has {end} bytes")
    with open(path, "rb") as tar:
        to = at
        for begin, stop in spans:
            tar.seek(begin * BLOCK)
            target = blocks[to : to + stop - begin].reshape(-1)
            target[tar.readinto(target.data) :] = 0  # a last padding may be absent
            to += stop - begin
    first = offsets // BLOCK - 1
    begins, stops = np.array(spans).T
    shift = at - begins + np.cumsum(stops - begins) - (stops - begins)
    return first + shift[np.searchsorted(begins, first, side="right") - 1]


def _checked_headers(
    layout: Layout, rows: SlideRows, table: pa.Table, found: np.ndarray
) -> np.ndarray:
    """Return the headers that members get, (N, 512), once they are those found."""
    slide = layout.slides[rows.slide]
    names = member_names(slide["slide"], table["nucleus"].to_numpy(), slide["codec"])
    expected = headers(names, table["size"].to_numpy())
    checked = [*range(100), *range(124, 136)]  # name and size; the rest is any tar writer's
    other = (found[:, checked] != expected[:, checked]).any(axis=1)
    if other.any():
        wrong = int(np.argmax(other))
        there = bytes(found[wrong, :100]).rstrip(bytes(1))
        _refuse(layout, rows, table, wrong, f"{there!r} is there")
    return expected


def _refuse(layout: Layout, rows: SlideRows, table: pa.Table, row: int, found: str) -> None:
    """Say that the member of a row is not where the table says."""
    slide, nucleus = layout.slides[rows.slide], table["nucleus"][row].as_py()
    raise ValueError(
        f"{layout.tar(rows.slide)}: {key(slide['slide'], nucleus)}.{CODECS[slide['codec']]} is not "
        f"at byte {table['offset'][row]} ({found}), so the tar is damaged or of another run: "
        "delete it and extract that slide again"
    )


def _describe(
    layout: Layout, rows: SlideRows, table: pa.Table, blocks: np.ndarray, starts: np.ndarray
) -> pa.Table:
    """Return a row for each member; `start` is the place in `blocks`."""
    counts = member_blocks(table["size"].to_numpy())
    return pa.table(
        {
            "position": layout.positions(rows),
            "start": starts,
            "size": table["size"],
            "slide_number": np.full(len(table), rows.slide, np.int32),
            **{c: table[c] for c in ("nucleus", "x", "y", "area_um2", "label")},
            "fingerprint": fingerprint(blocks, counts, starts),
        }
    )
