"""Mix the cells of all slides into shards: one global shuffle, bytes moved, never re-encoded."""

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from shards.crop import decode
from shards.read import FORMAT
from shards.schema import CODECS, CROP_PX, INDEX_COLUMNS, MPP, VIEW_PX, key
from shards.write import BLOCK, TarWriter, atomic

STATISTICS_CROPS = 10_000  # of the first shard, from which the channels' mean and sd are taken

log = logging.getLogger(__name__)


def mix(cells: Path, out: Path, samples_per_shard: int, seed: int, overwrite: bool = False) -> dict:
    """Shuffle the kept crops of all finished slides into `out`, and describe them there.

    The result is a function of the cells and the seed. `dataset.json` is written last: it is the
    commit mark, and a run that finds it for the same cells and settings does nothing.

    Args:
        cells: what extract wrote.
        out: made if absent.
        samples_per_shard: crops in a tar; the last one may hold fewer.
        seed: of the shuffle.
        overwrite: replace a data set made of other cells or with other settings.

    Returns:
        What `dataset.json` holds.

    Raises:
        FileNotFoundError: no such folder, or no finished slide in it.
        ValueError: no crops, crops that differ in codec, a damaged tar, or another data set in
            `out` and `overwrite` is not set.
    """
    if samples_per_shard < 1:
        raise ValueError(f"--samples-per-shard {samples_per_shard}: at least 1 is needed")
    slides, table = kept_cells(cells)
    source = {
        "cells": [s["slide"] for s in slides],
        "samples_per_shard": samples_per_shard,
        "seed": seed,
        "digest": _digest(slides),
    }
    if (out / "dataset.json").exists():
        found = json.loads((out / "dataset.json").read_text())
        if found.get("source") == source and not overwrite:
            log.info("%s already holds these %d cells, mixed so", out, found["samples"])
            return found
        if not overwrite:
            raise ValueError(
                f"{out} holds shards of other cells or settings; name another --out, or give "
                "--overwrite to replace them"
            )
    out.mkdir(parents=True, exist_ok=True)
    for old in [out / "dataset.json", out / "index.parquet", *out.glob("train-*.tar")]:
        old.unlink(missing_ok=True)

    codecs = {s["codec"] for s in slides}
    if len(codecs) > 1:
        raise ValueError(f"{cells} holds crops of several codecs ({', '.join(sorted(codecs))})")
    codec = codecs.pop()
    table = table.take(np.random.default_rng(seed).permutation(len(table)))
    described, offsets, statistics = [], [], {}
    for start in tqdm(range(0, len(table), samples_per_shard), "mix", unit="shard", disable=None):
        part = table.slice(start, samples_per_shard)
        path = out / f"train-{len(described):06d}.tar"
        images = _read_images(cells, part, slides, codec)
        sha256, part_offsets = _write_shard(path, images)
        statistics = statistics or channel_statistics(list(images.values())[:STATISTICS_CROPS])
        described.append(
            {
                "name": path.name,
                "samples": len(part),
                "bytes": path.stat().st_size,
                "sha256": sha256,
            }
        )
        offsets.append(part_offsets)
    _write_index(out, table, slides, np.concatenate(offsets), samples_per_shard)
    info = {
        "format": FORMAT,
        "samples": len(table),
        "slides": len(slides),
        "projects": sorted({s["project"] for s in slides if s["project"]}),
        "codec": codec,
        "patch_px": CROP_PX,
        "mpp": MPP,
        "seed": seed,
        **statistics,
        "shards": described,
        "source": source,
    }
    with atomic(out / "dataset.json", "w") as file:
        json.dump(info, file, indent=1)
    return info


def kept_cells(cells: Path) -> tuple[list[dict], pa.Table]:
    """Gather the kept nuclei of every finished slide.

    Returns:
        One dict a slide, sorted by id (slide, project, codec, sha256 of its tar, cells), and a
        table of all kept nuclei: the index' columns but for shard and offset, and slide_number,
        source_offset (in the slide's tar).
    """
    if not cells.is_dir():
        raise FileNotFoundError(f"no folder {cells}; make it with `python extract/main.py`")
    slides, tables, outcomes = [], [], {}
    for path in sorted(cells.glob("*.json")):
        record = json.loads(path.read_text())
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
        if record["outcome"] != "done" or not record["fates"]["kept"]:
            continue
        columns = ["nucleus", "x", "y", "area_um2", "label", "offset", "size"]
        table = pq.read_table(
            path.with_suffix(".parquet"),
            columns=[*columns, "fate"],
            filters=[("fate", "=", "kept")],
        ).select(columns)
        if len(table) != record["fates"]["kept"]:
            raise ValueError(
                f"{path.with_suffix('.parquet')} holds {len(table)} kept nuclei but {path.name} "
                f"says {record['fates']['kept']}; extract that slide again"
            )
        number = pa.array(np.full(len(table), len(slides), np.int32))
        table = table.rename_columns([*columns[:-2], "source_offset", "size"])
        tables.append(table.append_column("slide_number", number))
        slides.append(
            {
                "slide": record["slide"],
                "project": record["project"],
                "codec": record["settings"]["codec"],
                "sha256": record["sha256"],
                "cells": len(table),
            }
        )
    if not slides:
        raise FileNotFoundError(
            f"{cells} holds no finished slide with cells (outcomes: {outcomes or 'none'}); "
            "run `python extract/main.py SLIDES --out …` first, or read its failures"
        )
    return slides, pa.concat_tables(tables)


def _digest(slides: list[dict]) -> str:
    """Return a sha256 over which crops go in."""
    return hashlib.sha256(json.dumps(slides, sort_keys=True).encode()).hexdigest()


def _read_images(cells: Path, part: pa.Table, slides: list[dict], codec: str) -> dict[str, bytes]:
    """Return the encoded crops of some rows, member name -> bytes, in the rows' order.

    Each is checked against the name in its tar header: a tar that is not the one its table
    describes would otherwise give a stranger's bytes.
    """
    numbers, nuclei = part["slide_number"].to_numpy(), part["nucleus"].to_numpy()
    starts, sizes = part["source_offset"].to_numpy(), part["size"].to_numpy()
    names = [
        f"{key(slides[s]['slide'], n)}.{CODECS[codec]}"
        for s, n in zip(numbers, nuclei, strict=True)
    ]
    images = dict.fromkeys(names, b"")
    by_place = np.lexsort([starts, numbers])  # slide by slide, front to back
    for rows in np.split(by_place, np.flatnonzero(np.diff(numbers[by_place])) + 1):
        path = cells / f"{slides[numbers[rows[0]]]['slide']}.tar"
        with open(path, "rb") as tar:
            for i in rows:
                member = os.pread(tar.fileno(), BLOCK + int(sizes[i]), int(starts[i]) - BLOCK)
                if (
                    member[:100].rstrip(b"\0") != names[i].encode()
                    or len(member) < BLOCK + sizes[i]
                ):
                    raise ValueError(
                        f"{path}: no {names[i]} of {sizes[i]} bytes at {starts[i]}; the tar is "
                        "damaged or of another run: delete it and extract that slide again"
                    )
                images[names[i]] = member[BLOCK:]
    return images


def _write_shard(path: Path, images: dict[str, bytes]) -> tuple[str, list[int]]:
    """Write one tar; return its sha256 and the offsets of the images."""
    with atomic(path) as file:
        tar = TarWriter(file)
        offsets = [tar.add(name, data) for name, data in images.items()]
        return tar.close(), offsets


def _write_index(
    out: Path, table: pa.Table, slides: list[dict], offsets: np.ndarray, samples_per_shard: int
) -> None:
    """Write `index.parquet`: a row a sample, in shard order."""
    number = table["slide_number"].combine_chunks()
    index = pa.table(
        {
            "shard": np.arange(len(table), dtype=np.int32) // samples_per_shard,
            "offset": offsets,
            "size": table["size"],
            "slide": pa.array([s["slide"] for s in slides]).take(number),
            "project": pa.array([s["project"] for s in slides], pa.string()).take(number),
            **{name: table[name] for name in ("nucleus", "x", "y", "area_um2", "label")},
        }
    )
    with atomic(out / "index.parquet") as file:
        pq.write_table(index.cast(INDEX_COLUMNS), file)


def channel_statistics(images: list[bytes]) -> dict[str, list[float]]:
    """Return the mean and sd of each channel over the crops' central view, pixels in [0, 1].

    Paper leaves open: over which pixels; here: over those the model can see, VIEW_PX square.
    """
    low = (CROP_PX - VIEW_PX) // 2
    view = slice(low, low + VIEW_PX)
    total, squares = np.zeros(3), np.zeros(3)
    for image in images:
        pixels = decode(image)[view, view].reshape(-1, 3) / 255.0
        total += pixels.mean(0)
        squares += (pixels**2).mean(0)
    mean = total / len(images)
    return {"mean": mean.tolist(), "std": np.sqrt(squares / len(images) - mean**2).tolist()}
