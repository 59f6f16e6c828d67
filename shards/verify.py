"""Re-read a whole data set and name every fault: what `mix` promised, checked on disk."""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.crop import decode_into
from shards.dataset import about_file, read_info
from shards.errors import dead_link
from shards.fingerprint import checksum, fingerprint, member_blocks
from shards.folder import visible
from shards.index import Index
from shards.progress import Bar
from shards.schema import CODECS, key
from shards.write import BLOCK, headers

BATCH = 4096  # members checked at a time, about 15 MB


def verify(folder: Path) -> Iterator[str]:
    """Yield each fault of a data set in words, shard by shard; nothing where all is well.

    Of each shard: it is there, of the right size and sha256; every row of the index names the
    member at its offset, whose bytes are those that were mixed and decode to a crop of the right
    size; no member is there that the index does not know. Of the whole: as many samples and the
    same checksum as went in.

    Raises:
        FileNotFoundError: no data set is there.
        ValueError: its description cannot be read, or the index is of another data set.
    """
    info = read_info(folder)
    known = {shard["name"] for shard in info["shards"]}
    for path in visible(folder.glob("*.tar")):
        if path.name not in known:
            yield f"{path}: not of this data set; delete it"
    index = Index(folder, info)
    if info.get("index", about := about_file(index.path)) != about:
        yield f"{index.path}: changed since mix wrote it: its size or sha256 is another"
    total, samples = 0, 0
    for number, shard in enumerate(Bar(info["shards"], "verify", "shards")):
        rows = index.table(samples, samples + shard["samples"])
        samples += len(rows)
        total = (total + checksum(rows["fingerprint"].to_numpy())) % 2**64
        path = folder / shard["name"]
        yield from (
            _faults(path, number, shard, rows, info)
            if path.is_file()
            else [f"{path}: missing{dead_link(path)}"]
        )
    if (samples, f"{total:016x}") != (info["samples"], info["checksum"]):
        yield (
            f"{folder}: the index' {samples} rows have checksum {total:016x}, dataset.json says "
            f"{info['samples']} of {info['checksum']}: samples were lost, doubled or exchanged"
        )


def _faults(path: Path, number: int, shard: dict, rows: pa.Table, info: dict) -> Iterator[str]:
    """Yield the faults of one shard."""
    size = path.stat().st_size
    if size < BLOCK:
        yield f"{path}: {size} bytes are no tar"
        return
    if size != shard["bytes"]:
        yield f"{path}: {size} bytes instead of {shard['bytes']}: cut short, or of another data set"
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == shard["sha256"] and size == shard["bytes"]:
        damage = "though the shard is as mix wrote it"
    else:
        damage = "the shard was changed since mix wrote it"
        yield f"{path}: its sha256 is {found[:16]}…, dataset.json says {shard['sha256'][:16]}…"
    blocks = np.memmap(path, np.uint8, "r", shape=(size // BLOCK, BLOCK))
    sizes, offsets = rows["size"].to_numpy(), rows["offset"].to_numpy()
    names = [
        f"{key(slide, nucleus)}.{CODECS[info['codec']]}"
        for slide, nucleus in zip(
            rows["slide"].to_pylist(), rows["nucleus"].to_pylist(), strict=True
        )
    ]
    stated = rows["fingerprint"].to_pylist()
    crop = np.empty((info["patch_px"], info["patch_px"], 3), np.uint8)
    for shard_number in set(rows["shard"].to_pylist()) - {number}:
        yield f"{path}: the index has rows of shard {shard_number} in its place"
    for start in range(0, len(rows), BATCH):
        some = slice(start, start + BATCH)
        expected = headers(names[some], sizes[some])
        for i, header in enumerate(expected, start):
            first, count = offsets[i] // BLOCK - 1, int(member_blocks(sizes[i : i + 1])[0])
            if first < 0 or first + count > len(blocks):
                yield f"{path}: {names[i]} at byte {offsets[i]} lies beyond the end"
                continue
            member = blocks[first : first + count]
            if not np.array_equal(member[0], header):
                there = bytes(member[0, :100]).rstrip(b"\0")
                yield f"{path}: at byte {offsets[i]} there is {there!r}, the index says {names[i]}"
                continue
            if stated[i] != int(fingerprint(member, np.array([count]))[0]):
                yield f"{path}: the bytes of {names[i]} at {offsets[i]} changed ({damage})"
            try:
                decode_into(member.reshape(-1)[BLOCK : BLOCK + int(sizes[i])].data, crop)
            except ValueError as error:
                yield f"{path}: {names[i]} at byte {offsets[i]} is no crop: {error} ({damage})"
    yield from _unlisted_members(path, blocks, dict(zip(offsets.tolist(), names, strict=True)))


def _unlisted_members(path: Path, blocks: np.ndarray, known: dict[int, str]) -> Iterator[str]:
    """Yield the members of a tar that no row of the index points to."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                start = member.offset_data
                if known.get(start) != member.name:
                    yield f"{path}: {member.name!r} at byte {start} is not in the index"
    except tarfile.TarError as error:
        yield f"{path}: the tar is cut short or damaged ({error})"
