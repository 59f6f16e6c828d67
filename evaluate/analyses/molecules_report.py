"""The table of Moran's I, and the maps of expression over the t-SNE (paper, Fig. 8)."""

from pathlib import Path

import numpy as np

from evaluate.analyses.molecules import Molecules
from evaluate.analyses.moran import Moran
from evaluate.benchmark import Benchmark
from evaluate.maps.colouring import hues
from evaluate.maps.map import project
from evaluate.report.figures import headline, label, save_figure, save_table

SECTION = "Molecules"
PANELS = 11  # of expression at most, beside the t-SNE
COLUMNS = 4
LEGEND = 20  # classes named at most
NO_CLASS = "#8899aa"
PERCENTILES = (1, 99)  # of a value, at which its colours end


def save(
    out: Path,
    samples: Benchmark,
    molecules: Molecules,
    found: dict[str, Moran],
    slides: np.ndarray,
    k: int,
) -> str:
    """Write the table `moran--<name>`, a row per gene, and return it as text.

    Args:
        slides: (N,) of the cells that count.
    """
    header = [molecules.what.split()[0].rstrip("s")]
    for encoder in found:
        header += [f"I, {encoder}", f"p, {encoder}"]
    first = next(iter(found.values()))
    order = np.argsort(-np.nan_to_num(first.observed, nan=-np.inf), kind="stable")
    rows = [
        [molecules.names[t]]
        + [
            text
            for m in found.values()
            for text in (f"{m.observed[t]:.3f}", f"{m.p_adjusted[t]:.3g}")
        ]
        for t in order
    ]
    caption = (
        f"Moran's I of {molecules.what} on the {k} nearest in embedding space, "
        f"{len(slides):,} cells of {len(set(slides.tolist()))} slides or fields, neighbours within "
        f"each; p one-sided from {first.permutations} permutations within each, adjusted after "
        "Benjamini and Hochberg. 0: no relation to the embedding; 1: a smooth function of it."
    )
    path = save_table(
        out, f"moran--{samples.name}", header, rows, section=SECTION, command="molecules",
        title=f"Moran's I: {samples.name}", caption=caption,
        headline=_headline(samples, molecules, found),
        best={f"I, {encoder}": "max" for encoder in found},
    )  # fmt: skip
    return path.with_suffix(".md").read_text(encoding="utf-8")


def save_maps(
    out: Path,
    encoder: str,
    embeddings: np.ndarray,
    samples: Benchmark,
    molecules: Molecules,
    values: np.ndarray,
    moran: Moran,
    markers: list[str] | None,
    drawn: int,
    seed: int,
) -> None:
    """Write the figure `expression--<encoder>--<name>`.

    Args:
        embeddings: (N, D) float.
        molecules: whose names the values bear.
        values: (N, T) float.
        markers: those to draw; None: those of the largest I.
        drawn: cells at most, at random.
    """
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(embeddings))[:drawn])
    xy = project(embeddings[rows], seed)
    ranked = np.argsort(-np.nan_to_num(moran.observed, nan=-np.inf), kind="stable")
    chosen = [molecules.names.index(m) for m in markers] if markers else ranked
    panels = [(molecules.names[t], values[rows, t], moran.observed[t]) for t in chosen[:PANELS]]
    figure = draw(xy, samples.take(rows), panels)
    caption = (
        f"Left above: t-SNE of {len(rows):,} cells as {encoder} embeds them. Then "
        f"{molecules.what} with their Moran's I, coloured from the {PERCENTILES[0]}st to the "
        f"{PERCENTILES[1]}th percentile."
    )
    save_figure(
        out, f"expression--{encoder}--{samples.name}", figure, section=SECTION, command="molecules",
        title=f"{samples.name} over {encoder}'s map", caption=caption,
    )  # fmt: skip


def draw(xy: np.ndarray, samples: Benchmark, panels: list[tuple[str, np.ndarray, float]]):
    """Return a matplotlib figure: the cells by class, then by each value.

    Args:
        xy: (N, 2) float.
        panels: name, (N,) values and Moran's I of each.
    """
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels) + 1)
    lines = -(-(len(panels) + 1) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.0 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    size = float(np.clip(9000 / len(xy), 0.6, 12))
    dots = {"s": size, "lw": 0, "rasterized": True}
    order = np.random.default_rng(0).permutation(len(xy))  # so that no class or value lies on top
    names = [name for name in samples.classes if (samples.labels == name).any()]
    colours = dict(zip(names, hues(names), strict=True))
    each = [colours.get(label, NO_CLASS) for label in samples.labels[order].tolist()]
    grid[0].scatter(*xy[order].T, c=each, **dots)
    grid[0].set_title("class" if names else "cells", fontsize=10)
    for name in names[:LEGEND]:
        grid[0].scatter([], [], color=colours[name], s=25, label=label(name, 28))
    if names:
        grid[0].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, frameon=False,
                       borderaxespad=0, handletextpad=0)  # fmt: skip
    for axes, (name, values, index) in zip(grid[1:], panels, strict=False):
        low, high = np.percentile(values, PERCENTILES)
        shown = axes.scatter(*xy[order].T, c=values[order], vmin=low, vmax=max(high, low + 1e-9),
                             cmap="viridis", **dots)  # fmt: skip
        bar = figure.colorbar(shown, ax=axes, shrink=0.6, pad=0.01, aspect=15)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
        axes.set_title(f"{label(name, 28)}   I = {index:.2f}", fontsize=10)
    for axes in grid:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="#cccccc", linewidth=0.6)
    for axes in grid[len(panels) + 1 :]:
        axes.set_axis_off()
    return figure


def _headline(samples: Benchmark, molecules: Molecules, found: dict[str, Moran]) -> str:
    parts = {}
    for encoder, moran in found.items():
        known = np.isfinite(moran.observed)
        positive = int((moran.p_adjusted[known] < 0.05).sum())
        parts[encoder] = f"{np.nanmean(moran.observed):.2f} ({positive} of {known.sum()})"
    what = f"{molecules.what} of {samples.name} on the embedding"
    return headline(f"{what}, mean Moran's I (how many gather, adjusted p < 0.05)", parts)
