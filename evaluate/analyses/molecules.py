"""What is known of each cell beside its picture: transcripts, or measures in their place."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluate.benchmark import Benchmark
from evaluate.nuclear_measures import nuclear_measures
from shards.filetype import check_file
from shards.schema import key
from shards.table import MISSING, read_table

# Columns of tables of cells that say where a cell is, not what it is like.
PLACES = ("key", "slide", "nucleus", "project", "x", "y", "offset", "size")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Molecules:
    """T values a cell of N cells.

    Attributes:
        what: they are, in a word or two: `genes`, or what stands in for them.
        names: T.
        values: (N, T) float32, finite.
        rows: (N,) of the samples: those for which values are known.
    """

    what: str
    names: tuple[str, ...]
    values: np.ndarray
    rows: np.ndarray


def from_targets(samples: Benchmark) -> Molecules:
    """Take the transcripts of a benchmark that has them, log1p of the counts."""
    assert samples.targets is not None
    values = np.log1p(np.maximum(samples.targets, 0)).astype(np.float32)
    return Molecules("genes", samples.target_names, values, np.arange(len(samples)))


def from_crops(samples: Benchmark) -> Molecules:
    """Measure the nuclei, where nothing molecular is known: shape and stain densities."""
    names, columns, _ = zip(*nuclear_measures(samples.crops), strict=True)
    values = np.stack(columns, axis=1).astype(np.float32)
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    return Molecules("measures (no genes)", names, values[known], known)


def from_xenium(path: Path, samples: Benchmark, xy: np.ndarray, radius_um: float) -> Molecules:
    """Take the transcripts of a Xenium bundle's cells, log1p of the counts; say what joined.

    Args:
        xy: (N, 2) their places, level-0 px.
        radius_um: within which a cell's centroid must lie, µm.

    Raises:
        ValueError: a file is not as 10x writes it, or hardly a cell joins.
    """
    from evaluate.benchmarks.xenium import join

    joined = join(path, samples.batch_variables["slide"], xy, radius_um)
    for note in joined.notes:
        log.info("%s: %s", path.name, note)
    return Molecules("genes", joined.genes, np.log1p(joined.counts), joined.rows)


def from_file(path: Path, samples: Benchmark, nuclei: np.ndarray, log1p: bool) -> Molecules:
    """Read a CSV or Parquet of values a cell, keyed like cells.

    Args:
        path: with a column `key` (`<slide>_<nucleus:07d>`) or the columns `slide` and `nucleus`;
            every other numeric column but PLACES is a value. Cells it lacks are left out, and so
            are those with a value missing.
        samples: N cells; `batch_variables["slide"]` says whose they are.
        nuclei: (N,) their numbers in their slides.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not keyed, or holds no value, or none of the cells.
    """
    table = _read(path)
    slides = samples.batch_variables["slide"].tolist()
    wanted = [key(slide, n) for slide, n in zip(slides, nuclei.tolist(), strict=True)]
    if "key" in table.column_names:
        keys = table["key"].cast(pa.string()).to_pylist()
    elif {"slide", "nucleus"} <= set(table.column_names):
        pairs = zip(table["slide"].to_pylist(), table["nucleus"].to_pylist(), strict=True)
        keys = [key(slide, n) for slide, n in pairs]
    else:
        raise ValueError(
            f"{path} has no column `key`, nor `slide` and `nucleus`; it has "
            f"{', '.join(table.column_names[:8])}"
        )
    names = [
        field.name
        for field in table.schema
        if field.name not in PLACES
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]
    if not names:
        raise ValueError(
            f"{path} holds no column of numbers beside {', '.join(table.column_names)}"
        )
    at = {k: i for i, k in enumerate(keys)}
    if len(at) < len(keys):
        raise ValueError(f"{path}: {len(keys) - len(at)} cells stand there twice")
    rows = np.array([i for i, k in enumerate(wanted) if k in at], int)
    if not len(rows):
        raise ValueError(
            f"{path} holds none of the {len(wanted)} cells: its first is {keys[0]!r}, ours "
            f"{wanted[0]!r}"
        )
    taken = table.take([at[wanted[i]] for i in rows])
    values = np.stack(
        [pc.cast(taken[name], pa.float32()).to_numpy() for name in names], axis=1
    )  # (N, T), NaN where missing
    whole = np.isfinite(values).all(axis=1)
    if not whole.any():
        raise ValueError(f"{path}: every cell lacks a value; leave columns without values out")
    values = np.log1p(values[whole]) if log1p else values[whole]
    return Molecules(f"values of {path.name}", tuple(names), values, rows[whole])


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    check_file(path)
    if path.suffix != ".parquet":
        return _read_csv(path)
    try:
        import pyarrow.parquet as pq

        return pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no Parquet table: {error}") from error


def _read_csv(path: Path) -> pa.Table:
    """Read a CSV; columns that hold anything but numbers stay text."""
    table, columns, words = read_table(path, (), None), {}, []
    for name, cells in table.columns.items():
        place = name.casefold()
        if place in ("key", "slide", "project"):
            columns[place] = cells
        elif place == "nucleus":
            columns[place] = table.numbers(name).astype(np.int64)
        else:
            try:
                columns[name] = table.numbers(name, MISSING)
            except ValueError:
                words.append(name)
    if words:
        log.warning("%s: columns that are not numbers are passed over: %s", path, ", ".join(words))
    return pa.table(columns)
