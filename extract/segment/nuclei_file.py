"""A file of segmented nuclei: what it is, by its content, and its nuclei as a stream."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from extract.segment.cellvit import read_cells
from extract.segment.detections import Rings
from extract.segment.geojson import read_features
from extract.segment.items import Block, read_items
from extract.segment.stream import read_chunks
from extract.segment.table import describe, read_csv, read_geometries, read_places


@dataclass(frozen=True)
class NucleiFile:
    """An opened file of nuclei.

    Attributes:
        kind: what it is, for the record.
        nuclei: to be read once.
        mpp: µm in a unit of its numbers, where the file says so; None: px, supposedly of level 0.
        origin: where its px count from, where its kind determines that: `slide`, `bounds` or None.
        unsure: why its scale must be given, or nothing.
    """

    kind: str
    nuclei: Iterator[Rings]
    mpp: float | None = None
    origin: str | None = None
    unsure: str = ""


def open_nuclei(path: Path) -> NucleiFile:
    """Open a segmentation, whatever its name, and tell its kind.

    Args:
        path: HoverFast's, QuPath's, CellViT's or HEST's JSON, plain, gzip, zip or snappy;
            GeoParquet; or a table of places in Parquet or CSV.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these, damaged or incomplete.
    """
    try:
        file = _open(path)
    except ValueError as error:
        named = str(error).startswith(str(path))
        raise ValueError(str(error) if named else f"{path}: {error}") from error
    nuclei = _named(path, file.nuclei)
    return NucleiFile(file.kind, nuclei, file.mpp, file.origin, file.unsure)


def _open(path: Path) -> NucleiFile:
    """Do what open_nuclei does; errors do not name the file yet."""
    with open(path, "rb") as file:
        head = file.read(4)
    if not head:
        raise ValueError("it is empty")
    if head == b"PAR1":
        file = pq.ParquetFile(path)
        kind, mpp, unsure = describe(file.schema_arrow)
        if kind == "GeoParquet":
            return NucleiFile(kind, read_geometries(file))
        return NucleiFile(kind, read_places(file.read()), mpp, unsure=unsure)
    chunks = read_chunks(path)
    first = next(chunks, b"")
    chunks = itertools.chain([first], chunks)
    if first.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] in (b"[", b"{"):
        return _open_json(read_items(chunks))
    table = read_csv(path, b"".join(chunks))
    kind, mpp, unsure = describe(table.schema)
    return NucleiFile(kind, read_places(table), mpp, unsure=unsure)


def _open_json(blocks: Iterator[Block]) -> NucleiFile:
    """Tell the kinds of JSON apart by the first object."""
    block = next(blocks, None)
    if block is None:
        return NucleiFile("JSON without nuclei", iter(()), origin="slide")
    blocks, first = itertools.chain([block], blocks), block.items[0]
    if "contour" in first or "centroid" in first:
        return NucleiFile("CellViT", read_cells(blocks), origin="slide")
    geometry, properties = first.get("geometry"), first.get("properties")
    if not isinstance(geometry, dict):
        raise ValueError(
            f"its objects are neither GeoJSON Features nor CellViT's cells: {str(first)[:120]}"
        )
    if "centroid" in geometry and "object_type" in (properties or {}):
        return NucleiFile("HoverFast", read_features(blocks), origin="bounds")
    return NucleiFile("GeoJSON", read_features(blocks))


def _named(path: Path, nuclei: Iterator[Rings]) -> Iterator[Rings]:
    """Name the file in the errors of its stream."""
    try:
        yield from nuclei
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
