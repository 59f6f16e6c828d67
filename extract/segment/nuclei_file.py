"""A file of segmented nuclei: what it is, by its content, and its nuclei as a stream."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from extract.segment import table
from extract.segment.cellvit import read_cells
from extract.segment.detections import Rings
from extract.segment.foreign import foreign_json, foreign_text
from extract.segment.geojson import PROPER, read_features
from extract.segment.items import Block, is_json, read_items
from extract.segment.owners import own_rows
from extract.segment.stream import read_chunks
from extract.slides import Entry
from shards.filetype import check_file

MAX_COORDINATE = 1e8  # units; beyond it no slide reaches, whatever the scale


@dataclass(frozen=True)
class NucleiFile:
    """An opened file of nuclei.

    Attributes:
        kind: what it is, for the record.
        nuclei: to be read once.
        mpp: µm in a unit of its numbers, where the file says so; None: px, supposedly of level 0.
        origin: where its px count from, where its kind determines that: `slide`, `bounds` or None.
        unsure: why its scale must be given, or nothing.
        mag: the objective's power of whose px its numbers are, where it says that.
        left_out: by reason, how many of its objects yield no nucleus; complete when all are read.
        remarks: what else was passed over, likewise.
    """

    kind: str
    nuclei: Iterator[Rings]
    mpp: float | None = None
    origin: str | None = None
    unsure: str = ""
    mag: float | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)


def open_nuclei(path: Path, entry: Entry | None = None) -> NucleiFile:
    """Open a segmentation, whatever its name, and tell its kind.

    Args:
        path: HoverFast's, QuPath's, CellViT's, HoVer-Net's or HEST's JSON, plain, gzip, zip or
            snappy; GeoParquet; or a table of places in Parquet or CSV.
        entry: the slide whose rows count in a table that says whose a row is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these, damaged or incomplete, or another slide's.
    """
    check_file(path)
    with _naming(path):
        file = _open(path, entry)
    return replace(file, nuclei=_named(path, file.nuclei))


def _open(path: Path, entry: Entry | None) -> NucleiFile:
    """Do what open_nuclei does; errors do not name the file yet."""
    with open(path, "rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        return _open_parquet(path, entry)
    chunks = read_chunks(path)
    first = next(chunks, b"")
    chunks = itertools.chain([first], chunks)
    if is_json(first):
        return _open_json(read_items(chunks))
    if said := foreign_text(first):
        raise ValueError(said)
    rows = table.read_csv(path, b"".join(chunks))
    return _from_table(rows, {name: name for name in rows.schema.names}, entry)


def _open_parquet(path: Path, entry: Entry | None) -> NucleiFile:
    """Open GeoParquet, or a table."""
    with _undamaged():
        file = pq.ParquetFile(path)
        if table.geometry_column(file.schema_arrow) is not None:
            out = NucleiFile("GeoParquet", iter(()))
            nuclei = table.read_geometries(file, path, entry, out.left_out, out.remarks)
            return replace(out, nuclei=nuclei)
        known = table.known_columns(path, file.schema_arrow)
        table.refuse_boxes(known, file.schema_arrow.names)
        table.describe(list(known) or file.schema_arrow.names)
        return _from_table(file.read(list(known.values())), known, entry)


def _from_table(rows: pa.Table, known: dict[str, str], entry: Entry | None) -> NucleiFile:
    """Take the rows of a table that are the slide's.

    Args:
        known: the names of columns here, and in the table.
    """
    rows = rows.select(list(known.values())).rename_columns(list(known))
    kind, mpp, unsure = table.describe(rows.schema.names)
    out = NucleiFile(kind, iter(()), mpp, unsure=unsure)
    own = rows.filter(pa.array(own_rows(rows, entry, out.left_out, out.remarks)))
    own = own.drop_columns(table.number_columns(own, out.remarks))
    return replace(out, nuclei=table.read_places(own))


def _open_json(blocks: Iterator[Block]) -> NucleiFile:
    """Tell the kinds of JSON apart by the first objects."""
    block = next(blocks, None)
    if block is None:
        return NucleiFile("JSON without nuclei", iter(()), origin="slide")
    blocks = itertools.chain([block], blocks)
    items = block.items
    # Objects without a geometry tell nothing.
    first = next((i for i in items if i.get("geometry") or "geometry" not in i), items[0])
    left_out: Counter[str] = Counter()
    if "contour" in first or ("centroid" in first and "geometry" not in first):
        cells = read_cells(blocks, left_out)
        if "nuc" not in block.header:
            return NucleiFile("CellViT", cells, origin="slide", left_out=left_out)
        mag = block.header.get("mag")
        if mag is not None and not (isinstance(mag, int | float) and 0 < mag < math.inf):
            raise ValueError(f"its mag is {mag!r}, no objective's power")
        return NucleiFile("HoVer-Net", cells, origin="slide", mag=mag, left_out=left_out)
    features = read_features(blocks, left_out)
    geometry, properties = first.get("geometry"), first.get("properties")
    of = str(first.get("type")).lower()
    if not (isinstance(geometry, dict) or of == "feature" or of in PROPER or "root" in first):
        raise ValueError(
            foreign_json(set(first))
            or f"its objects are neither GeoJSON Features nor CellViT's cells: {str(first)[:120]}"
        )
    if (
        isinstance(geometry, dict)
        and "centroid" in geometry
        and "object_type" in (properties or {})
    ):
        return NucleiFile("HoverFast", features, origin="bounds", left_out=left_out)
    return NucleiFile("GeoJSON", features, left_out=left_out)


def _named(path: Path, nuclei: Iterator[Rings]) -> Iterator[Rings]:
    """Name the file in the errors of its stream."""
    with _naming(path), _undamaged():
        for rings in nuclei:
            if len(rings.points):
                reach = max(rings.points.max(), -rings.points.min())
                if reach > MAX_COORDINATE:
                    raise ValueError(
                        f"a nucleus lies at {reach:.3g}, where no slide reaches: are its "
                        "coordinates of another kind?"
                    )
            yield rings


@contextmanager
def _undamaged() -> Iterator[None]:
    """Say what a reader's error means: Arrow's own has no number, a disk's has one."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None):
            raise
        raise ValueError(f"its Parquet is damaged ({error}); write or download it again") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error
