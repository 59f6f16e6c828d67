"""Nuclei in tables: places in CSV or Parquet, outlines in GeoParquet or Xenium's boundaries."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from extract.morphology import largest_parts
from extract.segment.detections import Rings
from shards.table import MISSING, read_table

BATCH = 20_000  # rows

# Pairs of columns, in lower case, and the µm in a unit where the name says it.
PLACES = {
    ("x", "y"): None,
    ("x_px", "y_px"): None,
    ("centroid_x", "centroid_y"): None,
    ("centroid x px", "centroid y px"): None,  # QuPath's measurements
    ("centroid x µm", "centroid y µm"): 1.0,
    ("x_um", "y_um"): 1.0,
    ("x_µm", "y_µm"): 1.0,
}
XENIUM_PLACES = ("x_centroid", "y_centroid")  # of 10x' cells.parquet
XENIUM_CORNERS = ("vertex_x", "vertex_y")  # of 10x' nucleus_boundaries.parquet
LABELS = ("label", "class", "cell_type", "classification", "type")

# What is read of a CSV; more would cost memory for measurements that nobody asks for.
COLUMNS = (
    *XENIUM_CORNERS,
    *dict.fromkeys(name for pair in PLACES for name in pair),
    *XENIUM_PLACES,
    *LABELS,
    "cell_id",
)

XENIUM_FRAME = (
    "its columns are those of a Xenium bundle, whose µm count in the DAPI image; aligned to the "
    "H&E slide already, --from-mpp 1 takes them; else take HEST's xenium_seg, which is aligned"
)


def read_csv(path: Path, text: bytes) -> pa.Table:
    """Parse a CSV of nuclei; places are numbers, what else is known stays text.

    Args:
        path: for the errors.
        text: its content.

    Raises:
        ValueError: it is no table, has no places, or a place is no number; names the line.
    """
    table = read_table(path, (), COLUMNS, say_unknown=False, data=text)
    pair = _pair(table.columns)
    if pair is None:
        describe(pa.schema([(name, pa.string()) for name in table.header]))  # says what is there
    places = {name: table.numbers(name) for name in pair or ()}
    return pa.table({**table.columns, **places})


def _pair(names: Collection[str]) -> tuple[str, str] | None:
    """Return the pair of columns that holds the places, None where there is none."""
    pairs = (XENIUM_CORNERS, *PLACES, XENIUM_PLACES)
    return next((pair for pair in pairs if set(pair) <= set(names)), None)


def describe(schema: pa.Schema) -> tuple[str, float | None, str]:
    """Return what a table's columns make it: kind, µm in a unit if named, what must be asked.

    Raises:
        ValueError: no columns of places or outlines.
    """
    names = _lower(schema)
    if _geometry(schema):
        return "GeoParquet", None, ""
    if set(XENIUM_CORNERS) <= names.keys():
        return "Xenium boundaries", None, XENIUM_FRAME
    for pair, mpp in PLACES.items():
        if set(pair) <= names.keys():
            return f"table of {pair[0]}, {pair[1]}", mpp, ""
    if set(XENIUM_PLACES) <= names.keys():
        return "Xenium cells", None, XENIUM_FRAME
    raise ValueError(
        f"it has no columns of places or outlines (it has {', '.join(schema.names)}); needed: "
        "x, y (level-0 px) or x_um, y_um, and optionally label; or a GeoParquet's geometry"
    )


def read_places(table: pa.Table) -> Iterator[Rings]:
    """Yield the nuclei of a table with a row a nucleus, or a row a corner.

    Raises:
        ValueError: a place is missing or no number.
    """
    names = _lower(table.schema)
    if set(XENIUM_CORNERS) <= names.keys():
        yield _corners(table, names)
        return
    pair = _pair(names)
    xy = np.stack([_numbers(table, names[column]) for column in pair], axis=1)
    yield Rings(xy, np.ones(len(xy), np.int64), _labels(table, names))


def read_geometries(file: pq.ParquetFile) -> Iterator[Rings]:
    """Yield the nuclei of a GeoParquet; a MultiPolygon is its largest part, a null no nucleus.

    Raises:
        ValueError: a geometry is neither Polygon, MultiPolygon nor Point, or not kept as WKB.
    """
    schema = file.schema_arrow
    column, names = _geometry(schema), _lower(schema)
    wanted = [column, *(names[n] for n in LABELS if n in names)]
    for batch in file.iter_batches(BATCH, columns=wanted):
        table = pa.Table.from_batches([batch])
        table = table.filter(table[column].is_valid())
        if not len(table):
            continue
        binary = table[column].cast(pa.binary()) if _is_binary(table[column].type) else None
        if binary is None:
            raise ValueError(f"its {column} is kept as {table[column].type}; only WKB is read")
        shapes = shapely.from_wkb(binary.to_numpy())
        kinds = shapely.get_type_id(shapes)
        several = kinds == shapely.GeometryType.MULTIPOLYGON
        shapes[several] = largest_parts(shapes[several])
        areas, points = several | (kinds == shapely.GeometryType.POLYGON), kinds == 0
        if not (areas | points).all():
            other = shapes[np.flatnonzero(~(areas | points))[0]].geom_type
            raise ValueError(f"its {column} holds a {other}; nuclei are Polygons or Points")
        shapes[areas] = shapely.get_exterior_ring(shapes[areas])
        xy, owner = shapely.get_coordinates(shapes, return_index=True)
        yield Rings(xy, np.bincount(owner, minlength=len(shapes)), _labels(table, names))


def _corners(table: pa.Table, names: dict[str, str]) -> Rings:
    """Gather the rings of a table with a row a corner, those of a cell one after the other."""
    if "cell_id" not in names:
        raise ValueError("it has vertex_x and vertex_y but no cell_id")
    xy = np.stack([_numbers(table, names[column]) for column in XENIUM_CORNERS], axis=1)
    cell = table[names["cell_id"]].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    return Rings(xy, np.diff(first, append=len(cell)), [None] * len(first))


def _lower(schema: pa.Schema) -> dict[str, str]:
    """Return the columns by their names in lower case."""
    return {name.strip().lower(): name for name in schema.names}


def _geometry(schema: pa.Schema) -> str | None:
    """Return the name of the column of geometries, as GeoParquet's metadata or its name says."""
    described = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    column = described.get("primary_column", "geometry")
    return column if column in schema.names else None


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    """Return a column as (N,) float64."""
    values = table[column]
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise ValueError(f"its column {column} holds {values.type}, not numbers")
    numbers = values.cast(pa.float64()).to_numpy()
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(f"its column {column} is empty in row {bad[0] + 1} of {len(numbers)}")
    return numbers


def _labels(table: pa.Table, names: dict[str, str]) -> list[str | None]:
    """Return the labels, None where there are none."""
    column = next((names[n] for n in LABELS if n in names), None)
    if column is None:
        return [None] * len(table)
    values = table[column]
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return [None if v in MISSING else v for v in values.cast(pa.string()).to_pylist()]
