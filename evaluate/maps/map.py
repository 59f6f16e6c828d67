"""The map of cells: a t-SNE of embeddings drawn with the cells' own images (paper, Fig. 4)."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.principal import components
from evaluate.report.figures import label
from shards.progress import Bar
from shards.write import atomic

COMPONENTS = 50  # of the PCA before t-SNE
PERPLEXITY = 30
ROUNDS, EVERY = 750, 25  # of t-SNE; between two looks at how far it is
PANEL_PX = 2400  # side of the panel of images
# Told apart by the colour-blind (Okabe and Ito 2008), yellow darkened to show on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#a09000", "#444444")


def project(embeddings: np.ndarray, seed: int = 0, jobs: int = 1) -> np.ndarray:
    """Lay embeddings out in the plane by t-SNE.

    Paper leaves open: everything but the name; here: standardised features, 50 principal
    components, openTSNE with perplexity 30, PCA initialisation and a fixed seed. Its 750 steps
    cost as the number of cells does (interpolation by FFT).

    Args:
        embeddings: (N, D) float, N at least 8.

    Returns:
        (N, 2) float.

    Raises:
        ValueError: fewer than 8 embeddings, or all alike.
    """
    from openTSNE import TSNE
    from sklearn.preprocessing import StandardScaler

    if len(embeddings) < 8:
        raise ValueError(f"{len(embeddings)} nuclei are too few for a map; 8 at least")
    if not embeddings.std(axis=0).any():
        raise ValueError(f"all {len(embeddings)} embeddings are alike: the encoder has collapsed")
    embeddings = reduce(StandardScaler().fit_transform(embeddings.astype(np.float64)), seed)
    settings: dict[str, Any] = {"perplexity": _perplexity(len(embeddings)), "n_jobs": jobs}
    bar = Bar(None, f"t-SNE of {len(embeddings):,}", "rounds", total=ROUNDS)
    settings |= {
        "callbacks": lambda *_: bar.update(EVERY) and False,
        "callbacks_every_iters": EVERY,
    }
    with bar:
        tsne = TSNE(initialization="pca", random_state=seed, **settings)
        return np.asarray(tsne.fit(embeddings))


def reduce(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the first COMPONENTS principal components where there are more features.

    Args:
        embeddings: (N, D) float.
        seed: of the decomposition where they are very wide.
    """
    if min(embeddings.shape) <= COMPONENTS:
        return embeddings
    return components(embeddings, COMPONENTS, seed=seed).astype(np.float64)


def fit(xy: np.ndarray) -> np.ndarray:
    """Move and scale a layout into the unit square, its proportions kept.

    Args:
        xy: (N, 2) float.
    """
    span = np.ptp(xy, axis=0).max() * 1.02
    return (xy - (xy.max(axis=0) + xy.min(axis=0)) / 2) / span + 0.5


def mosaic(xy: np.ndarray, crops: np.ndarray, squares: int) -> np.ndarray:
    """Draw, in each square of a regular grid that holds a cell, the one nearest its centre.

    Args:
        xy: (N, 2) float in [0, 1], y upwards.
        crops: (N, P, P, 3) uint8.
        squares: along a side.

    Returns:
        (about PANEL_PX, about PANEL_PX, 3) uint8 on white.
    """
    tile = PANEL_PX // squares
    panel = np.full((tile * squares, tile * squares, 3), 255, np.uint8)
    places = np.minimum(xy * squares, squares - 1e-9)
    column, row = places.astype(int).T
    distance = ((places - np.floor(places) - 0.5) ** 2).sum(axis=1)
    order = np.lexsort((distance, row * squares + column))
    _, first = np.unique((row * squares + column)[order], return_index=True)
    for i in order[first]:
        y, x = (squares - 1 - row[i]) * tile, column[i] * tile
        large = cv2.resize(crops[i], (tile - 1, tile - 1), interpolation=cv2.INTER_CUBIC)
        panel[y : y + tile - 1, x : x + tile - 1] = large
    return panel


def draw(xy: np.ndarray, samples: Benchmark, title: str, path: Path) -> None:
    """Write the map as PNG: cell images on a grid, beside them a scatter coloured by class.

    Without labels, colour is the group where there are 2 to 16 of them.

    Args:
        xy: (N, 2) float in [0, 1], of `fit`.
        path: of the PNG; its folder is made if absent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    squares = int(np.clip(np.sqrt(len(xy)) * 0.55, 8, 48))
    panel = mosaic(xy, samples.crops, squares)

    dpi, side, small, margin, head = 200, len(panel), 1400, 40, 150
    width, height = side + small + 3 * margin, side + margin + head
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        margin / width, 1 - 75 / height, title, size=17, color="#222", va="center", parse_math=False
    )
    box = (margin / width, margin / height, side / width, side / height)
    images = figure.add_axes(box)
    images.imshow(panel, interpolation="none", extent=(0, 1, 0, 1), aspect="auto")
    box = ((side + 2 * margin) / width, (margin + side - small) / height)
    scatter = figure.add_axes((*box, small / width, small / height))
    for axes in (images, scatter):
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
        axes.spines[:].set(color="#cccccc", linewidth=0.6)

    keys, names = _colouring(samples)
    dot = float(np.clip(40000 / len(xy), 0.8, 30))
    for i, name in enumerate(names):  # large classes first, so that small ones stay on top
        here = keys == name
        colour = COLOURS[i % len(COLOURS)] if len(names) > 1 else "#8899aa"
        marker = "o^s"[i // len(COLOURS) % 3]
        said = f"{name or 'nuclei'} ({here.sum():,})"
        scatter.scatter(
            *xy[here].T, s=dot, c=colour, marker=marker, lw=0, alpha=0.75, label=label(said),
            zorder=2 - here.mean(),
        )  # fmt: skip
    legend = scatter.legend(
        loc="upper left", bbox_to_anchor=(0, -0.03), ncols=2 if len(names) > 3 else 1,
        frameon=False, borderpad=0, borderaxespad=0, fontsize=15, labelspacing=0.5,
        handletextpad=0.3,
    )  # fmt: skip
    for handle in filter(None, legend.legend_handles):
        handle.set(sizes=[110], alpha=1)
    facts = (
        f"{len(xy):,} cells · t-SNE, perplexity {_perplexity(len(xy)):.0f}\n"
        f"left: in each square of a {squares}x{squares} grid the cell nearest its centre\n"
        "crops of 10 µm"
    )
    left = (side + 2 * margin) / width
    figure.text(left, margin / height, facts, size=13, color="#666", va="bottom", linespacing=1.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        figure.savefig(file, dpi=dpi, format="png")


def _perplexity(cells: int) -> float:
    """Return the perplexity, less than PERPLEXITY where there are too few neighbours."""
    return min(PERPLEXITY, (cells - 1) / 3)


def _colouring(samples: Benchmark) -> tuple[np.ndarray, list[str]]:
    """Return what colours each cell, (N,) str, and the names in the legend's order."""
    if samples.classes:
        present = set(samples.labels.tolist())
        return samples.labels, [name for name in (*samples.classes, "") if name in present]
    groups = sorted(set(samples.groups.tolist()))
    if 2 <= len(groups) <= 16:
        return samples.groups, groups
    return np.full(len(samples), ""), [""]
