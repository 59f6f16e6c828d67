"""What a cells folder holds: its finished slides, and the kept nuclei of each."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from shards.errors import dead_link
from shards.filetype import check_file
from shards.folder import visible

pc: Any = pyarrow.compute  # which makes its functions when it is imported

KEPT_COLUMNS = ["nucleus", "x", "y", "area_um2", "label", "offset", "size"]
NAMED = 8  # slides without cells that are named

log = logging.getLogger(__name__)


def finished_slides(cells: Path) -> list[dict]:
    """Read which slides have cells, from their outcomes alone.

    Returns:
        One dict a slide, sorted by id: slide, project, codec, sha256 of its tar, cells.

    Raises:
        FileNotFoundError: no such folder, or no finished slide with cells in it.
    """
    if not cells.is_dir():
        raise FileNotFoundError(f"no folder {cells}; make it with `python extract/main.py`")
    slides, outcomes, empty = [], {}, []
    for path in visible(cells.glob("*.json")):
        record = read_record(path)
        outcomes[record["outcome"]] = outcomes.get(record["outcome"], 0) + 1
        if record["outcome"] != "done":
            continue
        if not record["fates"]["kept"]:
            why = f" ({record['reason']})" if record.get("reason") else ""
            empty.append(f"{record['slide']}{why}")
            continue
        slides.append(
            {
                "slide": record["slide"],
                "project": record["project"],
                "codec": record["settings"]["codec"],
                "sha256": record["sha256"],
                "cells": record["fates"]["kept"],
            }
        )
    if not slides:
        raise FileNotFoundError(
            f"{cells} holds no finished slide with cells (outcomes: {outcomes or 'none'}); "
            "run `python extract/main.py SLIDES --out …` first, or read its failures"
        )
    if empty:
        more = f"; and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
        log.info(
            "%s: %d of %d slides done have no cells: %s%s",
            cells,
            len(empty),
            outcomes["done"],
            "; ".join(empty[:NAMED]),
            more,
        )
    return slides


def read_record(path: Path) -> dict:
    """Read `<slide>.json`.

    Raises:
        ValueError: it is no outcome of extract.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        check_file(path)
        raise ValueError(f"{path} is no outcome of extract ({error!r}); delete it") from error
    if not isinstance(record, dict) or not {"slide", "outcome"} <= record.keys():
        raise ValueError(f"{path} is no outcome of extract, for it names none; delete it")
    return record


def kept_nuclei(cells: Path, slide: dict, columns: list[str] | None = None) -> pa.Table:
    """Return the kept nuclei of one slide, in the order of its table.

    Args:
        slide: as `finished_slides` gives it.
        columns: of KEPT_COLUMNS; None: all.

    Raises:
        FileNotFoundError: the table is not there.
        ValueError: the table cannot be read, or is not the one its outcome describes.
    """
    path = cells / f"{slide['slide']}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing{dead_link(path)}; extract that slide again")
    columns = columns or KEPT_COLUMNS
    try:
        with pq.ParquetFile(path) as file:  # `read_table` would import a lot
            table = file.read([*columns, "fate"], use_threads=False)
    except pa.ArrowException as error:
        check_file(path)
        raise ValueError(f"{path}: {error}; extract that slide again") from error
    kept = table.filter(pc.equal(table["fate"], "kept"))
    if len(kept) != slide["cells"]:
        raise ValueError(
            f"{path} holds {len(kept)} kept nuclei but {slide['slide']}.json says "
            f"{slide['cells']}; extract that slide again"
        )
    return kept.select(columns)


def kept_cells(cells: Path) -> tuple[list[dict], pa.Table]:
    """Gather the kept nuclei of every finished slide in memory, about 50 bytes each.

    Returns:
        The slides as `finished_slides` gives them, and a table of all their kept nuclei: nucleus,
        x, y, area_um2, label, source_offset (in the slide's tar), size, slide_number.
    """
    slides = finished_slides(cells)
    tables = []
    for number, slide in enumerate(slides):
        table = kept_nuclei(cells, slide)
        column = pa.array(np.full(len(table), number, np.int32))
        tables.append(table.append_column("slide_number", column))
    table = pa.concat_tables(tables)
    return slides, table.rename_columns(
        [*KEPT_COLUMNS[:-2], "source_offset", "size", "slide_number"]
    )
