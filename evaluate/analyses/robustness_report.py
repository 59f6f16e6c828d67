"""Tables and figures of robustness to staining (paper, Table 7, Figs 6 and 7)."""

from pathlib import Path

import numpy as np

from evaluate.analyses.robustness import MEASURES, Stability
from evaluate.benchmark import Benchmark
from evaluate.maps.map import COLOURS
from evaluate.report.figures import headline, label, save_figure, save_table

SECTION = "Robustness to staining"
CELLS = 36  # in a panel of the figure of cells


def save(
    out: Path,
    samples: Benchmark,
    changed: list[Benchmark],
    stains: list[str],
    moved: dict[str, dict[str, Stability]],
    accuracies: dict[str, dict[str, list[float]]],
    k: int,
    ill_posed: str,
    slides: int,
    given: bool,
    seed: int,
) -> str:
    """Write `robustness--`, `robustness-stains--` and `robustness-probe--<name>`; return the text.

    Args:
        changed: in each stain.
        moved: encoder -> stain -> how far embeddings moved.
        accuracies: encoder -> `original` and each stain -> balanced accuracy of each fold; {}
            without classes.
        ill_posed: of `slide_stains`.
        given: the stains are the user's.
    """
    name, facts = samples.name, {"section": SECTION, "command": "robustness"}
    origin = "given" if given else "of TCGA fields of six sites"
    own = f"each of {slides} slides' or fields' own stains by Macenko from its crops"
    own += f"; {ill_posed}" if ill_posed else ""
    caption = (
        f"{len(samples):,} nuclei of {name}, restained to {len(stains)} stains {origin} ({own}); "
        f"features standardised by the originals'; k = {k}, Euclidean; mean over stains."
    )
    rows, every = [], []
    for encoder, of in moved.items():
        values = np.array([[s.rmse, s.cosine, s.overlap] for s in of.values()])  # (stains, 3)
        rows.append([encoder, *(f"{v:.3f}" for v in values.mean(axis=0))])
        every += [
            [encoder, stain, *(f"{v:.3f}" for v in line)]
            for stain, line in zip(of, values, strict=True)
        ]
    best = dict(zip(MEASURES, ("min", "max", "max"), strict=True))
    similar = headline(f"{name} under other stains, cosine similarity", {r[0]: r[2] for r in rows})
    table = save_table(
        out, f"robustness--{name}", ["encoder", *MEASURES], rows, caption=caption, best=best,
        title=f"Stability of embeddings under restaining: {name}",
        headline="" if accuracies else similar, **facts,
    )  # fmt: skip
    save_table(
        out, f"robustness-stains--{name}", ["encoder", "stain", *MEASURES], every,
        title=f"Stability under each stain: {name}", **facts,
    )  # fmt: skip
    text = table.with_suffix(".md").read_text(encoding="utf-8")
    if accuracies:
        text += _save_probe(out, samples, stains, accuracies, facts)
    save_figure(
        out, f"restained--{name}", draw_cells(samples, changed, stains, seed),
        title=f"Cells under other stains: {name}",
        caption="The same nuclei as they are and in each stain (paper, Fig. 6).", **facts,
    )  # fmt: skip
    return text


def _save_probe(
    out: Path, samples: Benchmark, stains: list[str], accuracies: dict, facts: dict
) -> str:
    name = samples.name
    header = ["encoder", "original", *stains, "mean of stains"]
    rows = []
    for encoder, of in accuracies.items():
        cells = [f"{np.mean(of[c]):.3f} ({np.std(of[c], ddof=1):.3f})" for c in header[1:-1]]
        mean = np.mean([np.mean(of[stain]) for stain in stains])
        rows.append([encoder, *cells, f"{mean:.3f}"])
    caption = (
        "Balanced accuracy, mean (s.d.) over folds; the probe learns from originals and is tested "
        "on held-out cells under each stain."
    )
    said = {row[0]: f"from {row[1].split()[0]} to {row[-1]}" for row in rows}
    said = headline(f"{name} under other stains, balanced accuracy", said)
    table = save_table(
        out, f"robustness-probe--{name}", header, rows, caption=caption, headline=said,
        best=dict.fromkeys(header[1:], "max"), title=f"Probe under each stain: {name}", **facts,
    )  # fmt: skip
    figure = draw_probe(stains, accuracies, 1 / len(samples.classes))
    title = f"The probe under each stain: {name}"
    save_figure(out, f"robustness-probe--{name}", figure, caption=caption, title=title, **facts)
    return f"\n{table.with_suffix('.md').read_text(encoding='utf-8')}\n{said}"


def draw_probe(stains: list[str], accuracies: dict[str, dict[str, list[float]]], chance: float):
    """Return a matplotlib figure: bars from chance, of each encoder under each condition."""
    from matplotlib.figure import Figure

    conditions = ["original", *stains, "mean of stains"]
    figure = Figure(figsize=(1.8 + 1.05 * len(conditions), 3.6))
    axes = figure.add_subplot()
    width = 0.8 / len(accuracies)
    places = np.arange(len(conditions)) + np.where(np.arange(len(conditions)) > len(stains), 0.3, 0)
    places[0] -= 0.3
    for i, (encoder, of) in enumerate(accuracies.items()):
        mean = [np.mean(of[c]) for c in conditions[:-1]]
        sd = [np.std(of[c], ddof=1) for c in conditions[:-1]]
        mean, sd = [*mean, np.mean(mean[1:])], [*sd, np.std(mean[1:], ddof=1)]
        x = places + width * (i - (len(accuracies) - 1) / 2)
        axes.bar(
            x, np.array(mean) - chance, width * 0.92, chance, yerr=sd,
            color=COLOURS[i % len(COLOURS)], label=label(encoder, 30),
            error_kw={"lw": 0.9, "ecolor": "#333"},
        )  # fmt: skip
    axes.set_xticks(places, [label(c, 14) for c in conditions], fontsize=9)
    axes.set(ylabel="balanced accuracy", xlim=(places[0] - 0.6, places[-1] + 0.6))
    axes.axhline(chance, color="#888", lw=1)
    axes.text(places[-1] + 0.6, chance, " chance", va="center", fontsize=9, color="#666")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False, fontsize=9)
    return figure


def draw_cells(samples: Benchmark, changed: list[Benchmark], stains: list[str], seed: int = 0):
    """Return a matplotlib figure: the same cells as they are, then in each stain."""
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(samples))[:CELLS])
    panels = dict(zip(["original", *stains], [samples, *changed], strict=True))
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.9 * columns, 3.1 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for axes, (name, cells) in zip(grid, panels.items(), strict=False):
        axes.imshow(_tiles(cells.crops[rows]), interpolation="nearest")
        axes.set_title(name, fontsize=11, parse_math=False)
    for axes in grid:
        axes.set_axis_off()
    return figure


def _tiles(crops: np.ndarray, gap: int = 2) -> np.ndarray:
    """Lay crops out in a square, (H, W, 3) uint8 on white."""
    side = int(np.ceil(np.sqrt(len(crops))))
    step = crops.shape[1] + gap
    sheet = np.full((side * step, side * step, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        y, x = (step * place for place in divmod(i, side))
        sheet[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return sheet
