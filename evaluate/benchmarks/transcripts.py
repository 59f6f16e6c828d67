"""Xenium transcripts and outlines as HEST publishes them: counts per cell and gene, centres."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from scipy.sparse import coo_array, csr_array

NO_CELL = {"-1", "UNASSIGNED", "", "nan", "None"}  # what stands for "in no cell"
CONTROLS = (  # how the names of what is no gene begin (10x's naming)
    "NegControlProbe_",
    "NegControlCodeword_",
    "antisense_",
    "BLANK_",
    "UnassignedCodeword_",
    "DeprecatedCodeword_",
    "Intergenic_Region_",
)
CONTROL_WORDS = ("BLANK", "Control")  # HEST's own filter, src/hest/utils.py
ROWS = 2**20  # transcripts taken at once; a slide has 10^7 to 10^8


def count(
    path: Path, min_quality: float = 20.0
) -> tuple[np.ndarray, np.ndarray, csr_array, tuple[str, ...]]:
    """Count a slide's transcripts per cell and gene, without holding them all in memory.

    Source: HEST, tutorial 2; 10x's own matrix takes transcripts of a quality (Q-score) of 20 up.

    Args:
        path: `<id>_transcripts.parquet` with cell_id, feature_name and, if at all, qv.
        min_quality: least qv.

    Returns:
        (C,) str cell ids, (G,) str genes in alphabetical order, (C, G) counts, and notes on what
        was left out.

    Raises:
        ValueError: a column is absent, or no transcript of a gene lies in a cell.
    """
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise ValueError(f"{path} does not open as Parquet: {error}") from error
    names = file.schema_arrow.names
    missing = [name for name in ("cell_id", "feature_name") if name not in names]
    if missing:
        raise ValueError(f"{path}: no column {missing[0]!r}; found {', '.join(names)}")
    columns = [name for name in ("cell_id", "feature_name", "qv") if name in names]
    if "qv" in columns and not pa.types.is_floating(kind := file.schema_arrow.field("qv").type):
        raise ValueError(f"{path}: its column qv holds {kind}, and numbers are wanted")
    parts, total, poor = [], 0, 0
    for batch in file.iter_batches(batch_size=ROWS, columns=columns):
        table = pa.table({name: _plain(batch.column(name)) for name in columns})
        total += len(table)
        if "qv" in columns:
            table = table.filter(pc.field("qv") >= min_quality)
        poor += batch.num_rows - len(table)
        parts.append(table.group_by(["cell_id", "feature_name"]).aggregate([([], "count_all")]))
        if len(parts) == 32:
            parts = [_merge(parts)]
    table = _merge(parts)
    cells, cell = words(table["cell_id"])
    features, feature = words(table["feature_name"])
    control = np.array([is_control(name) for name in features.tolist()], bool)
    assigned = ~np.isin(cells, sorted(NO_CELL))
    counts = table["count_all"].to_numpy()
    kept = assigned[cell] & ~control[feature]
    if not kept.any():
        raise ValueError(f"{path}: no transcript of a gene lies in a cell")
    matrix = coo_array(
        (counts[kept], (cell[kept], feature[kept])), shape=(len(cells), len(features))
    ).tocsr()
    matrix = matrix[np.flatnonzero(assigned)][:, np.flatnonzero(~control)]
    notes = (
        f"{total} transcripts: {poor} of quality under {min_quality:g}"
        + ("" if "qv" in columns else " (no column qv: all taken)")
        + f", {counts[~assigned[cell]].sum()} in no cell, "
        f"{counts[assigned[cell] & control[feature]].sum()} of {control.sum()} controls left out",
    )
    return cells[assigned], features[~control], matrix, notes


def is_control(name: str) -> bool:
    """Tell whether a feature is a control probe or an empty codeword rather than a gene."""
    return name.startswith(CONTROLS) or any(word in name for word in CONTROL_WORDS)


def centres(path: Path) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return the centroids of a segmentation's outlines; of several of a cell, the largest's.

    Args:
        path: GeoParquet: polygons in level-0 px, the index is the cell's id.

    Returns:
        (C,) str cell ids, (C, 2) float x and y in level-0 px, how many outlines were passed over
        since their cell has a larger one, and how many since they are empty or no polygons.

    Raises:
        ValueError: no column of outlines or of ids, no WKB, or not one outline.
    """
    try:
        names = pq.read_schema(path).names
    except pa.ArrowException as error:
        raise ValueError(f"{path} does not open as Parquet: {error}") from error
    index = next((name for name in ("cell_id", "__index_level_0__") if name in names), None)
    if index is None or "geometry" not in names:
        raise ValueError(
            f"{path}: no {'geometry' if index else 'cell_id'} column; found {', '.join(names)}"
        )
    table = pq.read_table(path, columns=[index, "geometry"])
    try:
        shapes = shapely.from_wkb(table["geometry"].to_numpy())
    except (shapely.errors.ShapelyError, TypeError) as error:
        raise ValueError(f"{path}: a geometry is no WKB ({error})") from error
    bare = ~(shapely.area(shapes) > 0)  # of none and of an empty one there is no middle
    if bare.all():
        raise ValueError(f"{path}: its {len(bare)} outlines are empty or no polygons")
    table, shapes = table.filter(pa.array(~bare)), shapes[~bare]
    ids, cell = words(pa.chunked_array([_plain(c) for c in table[index].chunks]))
    order = np.lexsort((np.arange(len(shapes)), -shapely.area(shapes), cell))
    _, first = np.unique(cell[order], return_index=True)  # (C,) the largest of each
    chosen = order[first]
    xy = shapely.get_coordinates(shapely.centroid(shapes[chosen]))
    return ids, xy, len(shapes) - len(ids), int(bare.sum())


def words(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return a column's distinct values as text, sorted, and (N,) which of them each row is.

    Ids come as integers, text, bytes, or text that a bad cast made of bytes ("b'aaaa-1'").
    """
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    texts = [_text(value) for value in encoded.dictionary.to_pylist()]
    distinct, place = np.unique(np.array(texts, np.str_), return_inverse=True)
    return distinct, place[encoded.indices.to_numpy(zero_copy_only=False)]


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):  # integers that shared a column with a missing value
        return str(int(value)) if value == value else "nan"
    text = str(value)
    return text[2:-1] if text[:2] in ("b'", 'b"') else text


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _merge(parts: list[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(parts).group_by(["cell_id", "feature_name"])
    return whole.aggregate([("count_all", "sum")]).rename_columns(
        ["cell_id", "feature_name", "count_all"]
    )
