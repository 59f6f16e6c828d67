"""Choose cells by count, slides and projects (the paper's Fig. 3), nested for one seed.

What comes first is decided by hashes of (seed, project), (seed, slide) and (seed, slide, nucleus):
the first 10,000 cells of a seed are among its first 100,000, the first 50 slides among its first
500. A selection is a Parquet file of (slide, nucleus) that `mix --selection` follows.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.cells import finished_slides, kept_nuclei
from shards.exclusion import excluded
from shards.order import scramble
from shards.write import atomic

BALANCES = ("slide", "project", "none")
COLUMNS = pa.schema([("slide", pa.dictionary(pa.int32(), pa.string())), ("nucleus", pa.int32())])


def select(
    cells: Path,
    out: Path,
    count: int,
    slides: int | None = None,
    projects: int | None = None,
    balance: str = "none",
    seed: int = 0,
    exclude: Path | None = None,
) -> dict:
    """Write a selection of exactly `count` cells.

    Paper leaves open: how images were shared among slides and organs; here: `balance` says it. As
    nearly equal numbers from each slide or project as there are cells, at random within it; or
    every cell of the chosen slides with the same chance.

    Args:
        slides: how many slides they come from; None: all.
        projects: how many projects; None: all.
        balance: one of BALANCES.
        exclude: a list of slides or cases to leave out (shards/exclusion.py).

    Returns:
        What was chosen: cells, slides, projects, excluded slides, and the arguments.

    Raises:
        FileNotFoundError: no such folder or list.
        ValueError: less is there than was asked for, or nothing was asked for.
    """
    if balance not in BALANCES:
        raise ValueError(f"--balance {balance}: one of {', '.join(BALANCES)}")
    if count < 1:
        raise ValueError(f"--cells {count}: an empty selection trains nothing")
    all_slides = finished_slides(cells)
    ids = [s["slide"] for s in all_slides]
    left_out = excluded(exclude, cells, ids) if exclude else set()
    kept = [s for s in all_slides if s["slide"] not in left_out]
    chosen = _choose_slides(kept, slides, projects, balance, seed)
    groups = [{"slide": s["slide"], "project": s["project"], "none": ""}[balance] for s in chosen]
    quotas = _quotas(chosen, groups, count, seed, len(left_out))
    tables = [
        pa.table({"slide": pa.array([slide] * len(nuclei)), "nucleus": nuclei}).cast(COLUMNS)
        for slide, nuclei in sorted(_choose_cells(cells, chosen, groups, quotas, seed).items())
        if len(nuclei)
    ]
    facts = {
        "cells": count,
        "slides": len(tables),
        "projects": sorted({s["project"] for s in chosen if s["project"]}),
        "excluded_slides": sorted(left_out),
        "balance": balance,
        "seed": seed,
    }
    table = pa.concat_tables(tables).replace_schema_metadata({"lemon": json.dumps(facts)})
    with atomic(out) as file:
        pq.write_table(table.unify_dictionaries(), file, compression="zstd")
    return facts


def read_selection(path: Path, slides: list[dict], cells: Path) -> dict[str, np.ndarray]:
    """Return a selection as slide id -> sorted nuclei, checked against the cells.

    Args:
        path: what `select` wrote, or any Parquet file with columns slide and nucleus.
        slides: as `finished_slides` gives them.
        cells: their folder.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is empty, or names cells twice or cells that were not kept.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; make it with `python shards/main.py select`")
    try:
        table = pq.read_table(path, columns=["slide", "nucleus"]).cast(COLUMNS)
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowTypeError) as error:
        raise ValueError(f"{path} is no selection ({error}); make it with `select`") from error
    if not len(table):
        raise ValueError(f"{path} is an empty selection: there is nothing to mix")
    named = table["slide"].combine_chunks()
    if isinstance(named, pa.ChunkedArray):
        named = named.unify_dictionaries().chunk(0)
    codes, nuclei = named.indices.to_numpy(), table["nucleus"].to_numpy()
    known = {s["slide"]: s for s in slides}
    chosen = {}
    order = np.lexsort([nuclei, codes])
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        slide = named.dictionary[int(codes[rows[0]])].as_py()
        if slide not in known:
            raise ValueError(f"{path} names slide {slide!r}, of which {cells} holds no cells")
        kept = kept_nuclei(cells, known[slide], ["nucleus"])["nucleus"].to_numpy()
        if (np.diff(nuclei[rows]) == 0).any():
            raise ValueError(f"{path} names a nucleus of {slide} twice")
        if not np.isin(nuclei[rows], kept).all():
            raise ValueError(f"{path} names nuclei of {slide} that {cells} did not keep")
        chosen[slide] = nuclei[rows]
    return chosen


def _rank(seed: int, name: str) -> int:
    """Return a 64-bit hash of a name under a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "little")


def _choose_slides(
    slides: list[dict], count: int | None, projects: int | None, balance: str, seed: int
) -> list[dict]:
    """Choose projects, then slides among theirs: one of each first, so that none is left out."""
    nameless = [s["slide"] for s in slides if not s["project"]]
    if nameless and (projects or balance == "project"):
        raise ValueError(
            f"{len(nameless)} slides have no project ({nameless[0]}, …): give extract a CSV with a "
            "project column, or choose without --projects and --balance project"
        )
    names = sorted({s["project"] for s in slides if s["project"]}, key=lambda p: _rank(seed, p))
    if projects is not None:
        if not 0 < projects <= len(names):
            raise ValueError(f"--projects {projects}: there are {len(names)}")
        slides = [s for s in slides if s["project"] in names[:projects]]
    ranked = sorted(slides, key=lambda s: _rank(seed, s["slide"]))
    if projects is not None or balance == "project":
        seen: dict[str, int] = {}
        turn = {}
        for s in ranked:
            turn[s["slide"]] = seen[s["project"]] = seen.get(s["project"], -1) + 1
        even = balance == "project"  # then go on in turns; else only the first of each leads
        ranked.sort(key=lambda s: turn[s["slide"]] if even else min(turn[s["slide"]], 1))
    if count is not None:
        if not max(projects or 0, 1) <= count <= len(ranked):
            raise ValueError(
                f"--slides {count}: there are {len(ranked)} to choose from, and each of "
                f"{projects or 1} projects needs one"
            )
        ranked = ranked[:count]
    return ranked


def _quotas(
    slides: list[dict], groups: list[str], count: int, seed: int, excluded: int
) -> dict[str, int]:
    """Share `count` cells among the groups as evenly as their supplies allow."""
    supply: dict[str, int] = {}
    for slide, group in zip(slides, groups, strict=True):
        supply[group] = supply.get(group, 0) + slide["cells"]
    available = sum(supply.values())
    if count > available:
        raise ValueError(
            f"--cells {count}: the {len(slides)} chosen slides hold {available} "
            f"({excluded} slides were left out)"
        )
    names = sorted(supply, key=lambda g: (supply[g], _rank(seed, g)))
    level, left = 0, count
    for i, name in enumerate(names):  # the poorest give all they have, the rest share
        level = left // (len(names) - i)
        if supply[name] > level:
            break
        left -= supply[name]
    quotas = {name: min(supply[name], level) for name in names}
    spare = count - sum(quotas.values())
    richer = sorted((n for n in names if supply[n] > level), key=lambda g: _rank(seed, g))
    return quotas | {name: level + 1 for name in richer[:spare]}


def _choose_cells(
    cells: Path, slides: list[dict], groups: list[str], quotas: dict[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Take each group's quota of cells, those of the smallest hashes, slide by slide.

    Returns:
        Slide id -> (n,) sorted nuclei.
    """
    rows = {g: np.empty((3, 0), np.uint64) for g in quotas}  # hash, number of the slide, nucleus
    highest = dict.fromkeys(quotas, np.uint64(2**64 - 1))  # no cell above it can be among the best
    for number, (slide, group) in enumerate(zip(slides, groups, strict=True)):
        nuclei = kept_nuclei(cells, slide, ["nucleus"])["nucleus"].to_numpy().astype(np.uint64)
        hashes = scramble(scramble(nuclei) ^ np.uint64(_rank(seed, slide["slide"])))
        new = np.stack([hashes, np.full_like(nuclei, number), nuclei])
        rows[group] = np.concatenate([rows[group], new[:, hashes <= highest[group]]], axis=1)
        if rows[group].shape[1] > 2 * quotas[group]:
            rows[group] = _smallest(rows[group], quotas[group])
            highest[group] = rows[group][0].max(initial=0)
    best = np.concatenate([_smallest(rows[g], quotas[g]) for g in quotas], axis=1)
    return {
        slide["slide"]: np.sort(best[2, best[1] == number]).astype(np.int32)
        for number, slide in enumerate(slides)
    }


def _smallest(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` columns that come first."""
    return rows[:, np.lexsort(rows[::-1])[:count]]
