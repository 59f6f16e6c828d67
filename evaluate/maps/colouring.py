"""What the cells of a map are coloured by: class, origin, cluster and measures of their shape."""

import colorsys
from dataclasses import dataclass

import numpy as np

from evaluate.analyses.molecules import Molecules
from evaluate.benchmark import Benchmark
from evaluate.maps.map import COLOURS, reduce
from evaluate.nuclear_measures import nuclear_measures

CLUSTERS = 12
GENES = 200  # columns at most


@dataclass(frozen=True)
class Column:
    """One value a cell: a category (text) or a number (float)."""

    name: str
    values: np.ndarray  # (N,) str, or float with NaN where unknown
    unit: str = ""
    names: tuple[str, ...] = ()  # of categories, in the legend's order; () for the alphabet's


def columns_of(samples: Benchmark, embeddings: np.ndarray, seed: int = 0) -> list[Column]:
    """Return all that is known of the samples, what says most first.

    Args:
        samples: N nuclei; their slides and projects where they are known.
        embeddings: (N, D) float, of an encoder.
    """
    found = []
    if samples.classes:
        present = set(samples.labels.tolist())
        names = tuple(name for name in (*samples.classes, "") if name in present)
        found.append(Column("class", samples.labels, names=names))
    found.append(clusters(embeddings, seed))
    batch_variables = {samples.group_kind or "group": samples.groups} | dict(
        samples.batch_variables
    )
    found += [
        Column(name, values)
        for name, values in batch_variables.items()
        if len(set(values.tolist())) > 1
    ]
    measured = nuclear_measures(samples.crops)
    return found + [Column(name, values, unit) for name, values, unit in measured]


def clusters(embeddings: np.ndarray, seed: int = 0) -> Column:
    """Cluster embeddings by k-means, the largest cluster first.

    Args:
        embeddings: (N, D) float.
    """
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.preprocessing import StandardScaler

    k = min(CLUSTERS, max(2, len(embeddings) // 20))
    reduced = reduce(StandardScaler().fit_transform(embeddings), seed)
    # scikit-learn's types know n_init by its default alone
    means = MiniBatchKMeans(k, random_state=seed, n_init=3, batch_size=4096)  # pyright: ignore[reportArgumentType]
    found = means.fit_predict(reduced)
    ranked = np.argsort(-np.bincount(found, minlength=k), kind="stable")
    number = np.empty(k, int)
    number[ranked] = np.arange(1, k + 1)
    names = [f"cluster {i}" for i in range(1, k + 1)]
    values = np.array(names)[number[found] - 1]
    present = set(values.tolist())
    return Column("cluster", values, names=tuple(name for name in names if name in present))


def expression(molecules: Molecules, count: int, markers: list[str] | None = None) -> list[Column]:
    """Return a column for each gene, or what else is known of cells, NaN where it is unknown.

    Args:
        molecules: T values of some of the cells.
        count: N, of cells.
        markers: some of the names; None: all.

    Raises:
        ValueError: more than GENES columns, each of which would take a byte a cell of the page.
    """
    names = markers or molecules.names
    if len(names) > GENES:
        raise ValueError(f"{len(names)} genes are more than a map holds ({GENES}); give --markers")
    values = np.full((count, len(names)), np.nan)
    values[molecules.rows] = molecules.values[:, [molecules.names.index(name) for name in names]]
    return [Column(name, values[:, i]) for i, name in enumerate(names)]


def hues(names: list[str]) -> list[str]:
    """Return a colour for each category: the eight told apart by the colour-blind, then hues.

    The category without a name is grey.
    """
    if len(names) <= len(COLOURS):
        colours = iter(COLOURS)
    else:  # the golden angle keeps neighbours in the list apart
        turns = [(i * 0.618 % 1, (0.42, 0.58, 0.5)[i % 3], 0.6) for i in range(len(names))]
        light = [[round(255 * c) for c in colorsys.hls_to_rgb(*turn)] for turn in turns]
        colours = iter([*COLOURS[:-1], *(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in light)])
    return ["#8a949e" if name == "" else next(colours) for name in names]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return #rrggbb as numbers."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
