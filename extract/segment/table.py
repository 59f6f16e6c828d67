"""Nuclei in tables: places in CSV or Parquet, outlines in GeoParquet or Xenium's boundaries."""

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from extract.morphology import largest_parts
from extract.segment.detections import Rings
from extract.segment.items import is_json
from extract.segment.owners import OBJECTS, OWNERS, own_rows
from extract.segment.stream import read_chunks
from extract.slides import Entry
from shards.class_name import are_numbers
from shards.header import choose, loose
from shards.table import MISSING, read_table

BATCH = 20_000  # rows

# Pairs of columns, and the µm in a unit where the name says it.
PLACES = {
    ("x", "y"): None,
    ("x_px", "y_px"): None,
    ("centroid_x", "centroid_y"): None,
    ("centroid x px", "centroid y px"): None,  # QuPath's measurements
    ("centroid x µm", "centroid y µm"): 1.0,
    ("centroid x um", "centroid y um"): 1.0,  # likewise, where µ was lost on the way
    ("centroid-1", "centroid-0"): None,  # of scikit-image's regionprops_table: row, column
    ("x_um", "y_um"): 1.0,
    ("x_µm", "y_µm"): 1.0,
}
XENIUM_PLACES = ("x_centroid", "y_centroid")  # of 10x' cells.parquet
XENIUM_CORNERS = ("vertex_x", "vertex_y")  # of 10x' nucleus_boundaries.parquet
XENIUM_IDS = ("cell_id", "label_id")  # the second, a nucleus', since its software's version 2.0
LABELS = ("label", "class", "cell_type", "classification", "type")
NUMBERS = tuple(itertools.chain(*PLACES, XENIUM_PLACES, XENIUM_CORNERS))
WANTED = (*NUMBERS, *XENIUM_IDS, *LABELS, *OWNERS, *OBJECTS)

BOXES = ({"width", "height"}, {"w", "h"})

XENIUM_FRAME = (
    "its columns are those of a Xenium bundle, whose µm count in the DAPI image; aligned to the "
    "H&E slide already, --from-mpp 1 takes them; else take HEST's xenium_seg, which is aligned"
)


def read_csv(path: Path, text: bytes) -> pa.Table:
    """Read the known columns of a CSV, by the names they have here; places are float64.

    Raises:
        ValueError: it is no table; a place is no number. Names the line.
    """
    table = read_table(path, (), WANTED, say_unknown=False, data=text)
    pair = _pair(table.columns)
    if pair is None:
        raise ValueError(_no_places(table.header))
    refuse_boxes(table.columns, table.header)
    # QuPath's rows of whole images have no place; they are recognised by these columns.
    missing = ("",) if not table.columns.keys().isdisjoint((*OWNERS, *OBJECTS)) else ()
    return pa.table(
        {
            name: pa.array(table.numbers(name, missing))
            if name in pair
            else pa.array(table.words(name), pa.string())
            for name in table.columns
        }
    )


def refuse_boxes(names: Collection[str], header: Iterable[str]) -> None:
    """Refuse places that are boxes' corners, as the columns beside them say.

    Args:
        names: of the known columns.
        header: of all columns.

    Raises:
        ValueError: beside x and y there are a width and a height.
    """
    if _pair(names) == ("x", "y") and any(box <= set(map(loose, header)) for box in BOXES):
        raise ValueError(
            "beside x and y it has a width and a height, as boxes have whose x and y are a corner; "
            "give the nuclei's centres, or leave those columns out if they are"
        )


def _pair(names: Collection[str]) -> tuple[str, str] | None:
    """Return the pair of columns that holds the places, None where there is none."""
    pairs = (XENIUM_CORNERS, *PLACES, XENIUM_PLACES)
    return next((pair for pair in pairs if set(pair) <= set(names)), None)


def known_columns(path: Path, schema: pa.Schema) -> dict[str, str]:
    """Return the known columns of a schema: the name here, the name there."""
    chosen, _ = choose(path, schema.names, WANTED)
    return {name: schema.names[place] for name, place in chosen.items()}


def names_slides(path: Path) -> bool:
    """Tell whether a file is a table with a column that says whose slide a row is.

    Raises:
        ValueError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        columns = known_columns(path, pq.read_schema(path))
    else:
        first = next(read_chunks(path), b"")
        if b"\0" in first or is_json(first):
            return False
        columns = read_table(path, (), WANTED, say_unknown=False, data=_whole(first)).columns
    return any(name in columns for name in OWNERS)


def _whole(text: bytes) -> bytes:
    """Return the whole lines at the beginning of a text."""
    return text[: text.rfind(b"\n") + 1] or text


def geometry_column(schema: pa.Schema) -> str | None:
    """Return the name of the column of geometries, as GeoParquet's metadata or its name says."""
    described = json.loads((schema.metadata or {}).get(b"geo", b"{}"))
    column = described.get("primary_column", "geometry")
    return column if column in schema.names else None


def describe(names: list[str]) -> tuple[str, float | None, str]:
    """Return what a table's columns make it: kind, µm in a unit if named, what must be asked.

    Args:
        names: of its columns, those that are known by the names they have here.

    Raises:
        ValueError: no columns of places or outlines.
    """
    pair = _pair(names)
    if pair is None:
        raise ValueError(_no_places(names))
    if pair == XENIUM_CORNERS:
        return "Xenium boundaries", None, XENIUM_FRAME
    if pair == XENIUM_PLACES:
        return "Xenium cells", None, XENIUM_FRAME
    return f"table of {pair[0]}, {pair[1]}", PLACES[pair], ""


def _no_places(names: list[str]) -> str:
    return (
        f"it has no columns of places or outlines (it has {', '.join(names)}); needed: "
        "x, y (level-0 px) or x_um, y_um, and optionally label; or a GeoParquet's geometry"
    )


def read_places(table: pa.Table) -> Iterator[Rings]:
    """Yield the nuclei of a table with a row a nucleus, or a row a corner.

    Args:
        table: known columns, of one slide.

    Raises:
        ValueError: a place is missing or no number.
    """
    pair = _pair(table.schema.names)
    if pair is None:
        raise ValueError(_no_places(table.schema.names))
    if pair == XENIUM_CORNERS:
        yield _corners(table)
        return
    xy = np.stack([_numbers(table, column) for column in pair], axis=1)
    yield Rings(xy, np.ones(len(xy), np.int64), _labels(table))


def read_geometries(
    file: pq.ParquetFile,
    path: Path,
    entry: Entry | None,
    left_out: Counter[str],
    remarks: list[str],
) -> Iterator[Rings]:
    """Yield the nuclei of a GeoParquet: the largest polygon of each geometry, or its point.

    Args:
        entry: the slide whose rows count.
        left_out: by reason, how many rows yield no nucleus; counted up.
        remarks: what else to say; added to.

    Raises:
        ValueError: its geometries are not kept as WKB, or no row is the slide's.
    """
    schema = file.schema_arrow
    column = geometry_column(schema)
    known = known_columns(path, schema)
    whose = [known[name] for name in (*OWNERS, *OBJECTS) if name in known]
    mine = None
    if whose:
        about = file.read(whose).rename_columns([n for n in (*OWNERS, *OBJECTS) if n in known])
        mine = own_rows(about, entry, left_out, remarks)
    kind = schema.field(column).type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"its {column} is kept as {kind}; only WKB is read")
    labels = [n for n in LABELS if n in known and known[n] != column]
    if labels:
        about = file.read([known[n] for n in labels]).rename_columns(labels)
        about = about if mine is None else about.filter(pa.array(mine))
        labels = [n for n in labels if n not in number_columns(about, remarks)]
    label = labels[0] if labels else None
    first = 0
    for batch in file.iter_batches(BATCH, columns=[column, *([known[label]] if label else [])]):
        table = pa.Table.from_batches([batch])
        if label:
            table = table.select([column, known[label]]).rename_columns([column, label])
        if mine is not None:
            table = table.filter(pa.array(mine[first : first + len(batch)]))
        first += len(batch)
        valid = table[column].is_valid()
        left_out["rows without a geometry"] += len(table) - int(np.sum(valid.to_numpy()))
        table = table.filter(valid)
        shapes, kept = _shapes(table[column].cast(pa.binary()).to_numpy(), left_out)
        if not len(shapes):
            continue
        xy, owner = shapely.get_coordinates(shapes, return_index=True)
        lengths = np.bincount(owner, minlength=len(shapes))
        yield Rings(xy, lengths, _labels(table.filter(pa.array(kept))))


def _shapes(wkb: np.ndarray, left_out: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the nuclei in geometries, as rings and points, and which geometries they are of.

    Args:
        wkb: (N,) bytes.
        left_out: counted up.
    """
    try:
        with np.errstate(invalid="ignore"):  # NaN in it is counted below
            shapes = shapely.from_wkb(wkb)
    except shapely.errors.ShapelyError as error:
        raise ValueError(f"a geometry is no WKB ({error})") from error
    kinds, empty = shapely.get_type_id(shapes), shapely.is_empty(shapes)
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    wild = np.bincount(owner, ~np.isfinite(xy).all(axis=1), minlength=len(shapes)) > 0
    areas = ~empty & ~wild & np.isin(kinds, (3, 6, 7))  # polygons, several, collections
    nested = areas & (kinds != shapely.GeometryType.POLYGON)
    parts = shapely.get_num_geometries(shapes)
    shapes[nested] = largest_parts(shapes[nested])
    hollow = nested & shapely.is_missing(shapes)
    points = ~empty & ~wild & (kinds == shapely.GeometryType.POINT)
    kept = (areas & ~hollow) | points
    left_out["empty geometries"] += int(empty.sum())
    left_out["geometries whose coordinates are no numbers"] += int(wild.sum())
    left_out["collections without a polygon"] += int(hollow.sum())
    left_out["smaller parts of nuclei"] += int((parts[nested & ~hollow] - 1).sum())
    for kind in np.unique(kinds[~kept & ~empty & ~wild & ~hollow]):
        count = int((kinds == kind)[~kept & ~empty & ~wild & ~hollow].sum())
        left_out[f"{shapely.GeometryType(kind).name.capitalize()}s"] += count
    outlined = kept & areas
    shapes[outlined] = shapely.get_exterior_ring(shapes[outlined])
    return shapes[kept], kept


def _corners(table: pa.Table) -> Rings:
    """Gather the rings of a table with a row a corner, those of a nucleus one after the other.

    A ring ends where its nucleus' rows do; by its label_id, else by its cell_id. A cell may have
    several nuclei: a ring that closes before its rows end begins another.
    """
    ids = [name for name in XENIUM_IDS if name in table.schema.names]
    if not ids:
        raise ValueError("it has vertex_x and vertex_y but no cell_id")
    xy = np.stack([_numbers(table, column) for column in XENIUM_CORNERS], axis=1)
    changes = np.zeros(len(xy), bool)
    changes[:1] = True
    for name in ids:
        codes = table[name].combine_chunks().dictionary_encode("encode").indices.to_numpy()
        changes[1:] |= np.diff(codes) != 0
    starts = np.flatnonzero(changes)
    stops = np.append(starts[1:], len(xy))
    # Where a run comes back to its first corner before its end.
    back = (xy == np.repeat(xy[starts], stops - starts, axis=0)).all(axis=1)
    place = np.arange(len(xy)) - np.repeat(starts, stops - starts)
    again = np.add.reduceat(back & (place >= 3), starts) if len(starts) else np.empty(0)
    more, last = [starts], stops - 1
    drop = np.zeros(len(xy), bool)
    for run in np.flatnonzero((again > 1) | ((again == 1) & ~back[last])):
        first = starts[run]
        while True:
            same = (xy[first + 3 : stops[run]] == xy[first]).all(axis=1)
            if not same.any():
                break
            end = first + 3 + int(same.argmax())  # the ring's last corner
            after = end + 1
            while after < stops[run] and (xy[after] == xy[first]).all():
                drop[after] = True  # the closing corner repeated, as padding
                after += 1
            if after >= stops[run]:
                break
            more.append(np.array([after]))
            first = after
    firsts = np.zeros(len(xy), bool)
    firsts[np.concatenate(more)] = True
    firsts, xy = firsts[~drop], xy[~drop]
    first = np.flatnonzero(firsts)
    return Rings(xy, np.diff(first, append=len(xy)), [None] * len(first))


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


def number_columns(table: pa.Table, remarks: list[str]) -> list[str]:
    """Return the columns that seem to hold classes and number the nuclei.

    Args:
        table: of one slide, with known columns.
        remarks: what was passed over; added to.
    """
    names = [name for name in LABELS if name in table.schema.names]
    numbers = [name for name in names if are_numbers(_words(table[name]))]
    for name in numbers:
        remarks.append(f"its column {name} numbers the nuclei, which is no class: passed over")
    return numbers


def _labels(table: pa.Table) -> list[str | None]:
    """Return the labels, None where there are none."""
    column = next((name for name in LABELS if name in table.schema.names), None)
    if column is None:
        return [None] * len(table)
    return [None if v in MISSING else v for v in _words(table[column])]


def _words(values: pa.ChunkedArray) -> list[str | None]:
    """Return a column's cells as text."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string()).to_pylist()
