"""The tables and the figure of batch effects: batch variables beside the class."""

from itertools import groupby
from pathlib import Path

import numpy as np

from evaluate.analyses.batch_effects import CELLS, NEIGHBOURS, Effect
from evaluate.benchmark import Benchmark
from evaluate.maps.map import COLOURS
from evaluate.report.figures import headline, save_figure, save_table

SECTION = "Batch effects"
Found = dict[str, tuple[tuple[float, str] | None, list[Effect]]]  # encoder -> class score, effects


def save(out: Path, samples: Benchmark, found: Found, within: str | None = None) -> str:
    """Write the tables `batch--<name>`, `batch-classes--<name>` and the figure; return the text.

    Args:
        found: per encoder its class score (and the folds' kind; None without classes) and effects.
        within: a batch variable that strata were made of, beside classes.
    """
    name = f"{samples.name}--{within}" if within else samples.name
    facts = {"section": SECTION, "command": "batch"}
    header = ["encoder", "class", "class, chance-adjusted", "batch variable", "levels",
              "balanced accuracy", "by chance", "accuracy, chance-adjusted", "k-NN purity",
              "purity by chance", "purity, chance-adjusted"]  # fmt: skip
    rows = []
    for encoder, (score, effects) in found.items():
        shown = [f"{score[0]:.3f}", f"{class_adjusted(samples, score):.2f}"] if score else ["", ""]
        for kind, mean in summaries(effects).items():
            own = [e for e in effects if e.variable == kind]
            counts = sorted({e.levels for e in own})
            levels = "–".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]]))
            rows.append([encoder, *shown, kind, levels, *mean])
    caption = _caption(samples, found, within)
    title = f"Batch variables beside class: {name}"
    table = save_table(out, f"batch--{name}", header, rows, title=title, caption=caption, **facts)
    every = [
        [encoder, e.variable, e.stratum or "all", e.levels, e.cells, e.folds]
        + [f"{v:.3f}" for v in (e.probe, e.probe_chance, e.purity, e.purity_chance)]
        for encoder, (_, effects) in found.items()
        for e in effects
    ]
    header = ["encoder", "batch variable", "class", "levels", "cells", "folds",
              "balanced accuracy", "by chance", "k-NN purity", "purity by chance"]  # fmt: skip
    title = f"Batch variables within each class: {name}"
    save_table(out, f"batch-classes--{name}", header, every, title=title, **facts)
    figure, said = draw(samples, found), _headline(samples, found)
    save_figure(
        out, f"batch--{name}", figure, title=f"Predicted from embeddings: batch and class, {name}",
        caption=caption, headline=said, **facts,
    )  # fmt: skip
    return f"{table.with_suffix('.md').read_text()}\n{said}"


def class_adjusted(samples: Benchmark, score: tuple[float, str]) -> float:
    """Return the class probe's balanced accuracy, adjusted for chance."""
    chance = 1 / len(samples.classes)
    return (score[0] - chance) / (1 - chance)


def summaries(effects: list[Effect]) -> dict[str, list[str]]:
    """Return per variable the means over classes: accuracy, chance, adjusted; likewise purity."""
    found = {}
    for kind, own in groupby(effects, key=lambda e: e.variable):
        values = [
            (
                e.probe,
                e.probe_chance,
                e.accuracy_adjusted,
                e.purity,
                e.purity_chance,
                e.purity_adjusted,
            )
            for e in own
        ]
        found[kind] = [
            f"{v:.2f}" if i % 3 == 2 else f"{v:.3f}" for i, v in enumerate(np.mean(values, axis=0))
        ]
    return found


def draw(samples: Benchmark, found: Found):
    """Return a matplotlib figure: a row per encoder, chance to perfect along x."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(e.variable for _, effects in found.values() for e in effects))
    figure = Figure(figsize=(7.5, 1.3 + 0.55 * len(found) + 0.22 * len(kinds)))
    axes = figure.add_subplot()
    for y, (_, (score, effects)) in enumerate(found.items()):
        axes.axhline(y, color="#e5e5e5", lw=1, zorder=0)
        if score:
            axes.plot(class_adjusted(samples, score), y, "o", c="black", ms=9, zorder=3)
        for i, kind in enumerate(kinds):
            own = [e for e in effects if e.variable == kind]
            if not own:
                continue
            colour, at = COLOURS[i % len(COLOURS)], y + 0.16 * (i + 1 - (len(kinds) + 1) / 2)
            accuracy = [e.accuracy_adjusted for e in own]
            purity = [e.purity_adjusted for e in own]
            axes.plot([min(accuracy), max(accuracy)], [at, at], c=colour, lw=1.2, alpha=0.6)
            axes.plot(np.mean(accuracy), at, "s", c=colour, ms=7)
            axes.plot(np.mean(purity), at, "D", mec=colour, mfc="white", ms=6)
    handles = [axes.plot([], [], "o", c="black", ms=9, label="class (probe)")[0]] if any(
        score for score, _ in found.values()
    ) else []  # fmt: skip
    for i, kind in enumerate(kinds):
        colour = COLOURS[i % len(COLOURS)]
        handles += axes.plot([], [], "s", c=colour, ms=7, label=f"{kind} (probe; line: classes)")
        handles += axes.plot([], [], "D", mec=colour, mfc="white", ms=6, label=f"{kind} (k-NN)")
    below = (0.5, -0.32 / len(found) - 0.18)
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=below,
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in found]
    axes.set_yticks(range(len(found)), names, parse_math=False)
    axes.set(ylim=(len(found) - 0.5, -0.5), xlabel="from chance (0) to perfect (1)")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.05), max(high, 0.6))
    axes.axvline(0, color="#888", lw=1, ls=":")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _caption(samples: Benchmark, found: Found, within: str | None) -> str:
    folds = {score[1] for score, _ in found.values() if score}
    classes = f"Class: balanced accuracy of the probe, {folds.pop()}. " if folds else ""
    strata = "each class" if samples.classes else "all nuclei"
    strata += f" and {within}" if within else ""
    return (
        f"{len(samples):,} nuclei of {samples.name}. {classes}Batch variables within {strata}, "
        f"mean over them: balanced accuracy of a probe (up to {CELLS} cells a level; where one has "
        "several slides, train and test hold different ones), and share of the same level among "
        f"the {NEIGHBOURS} nearest (then of other slides). Chance-adjusted: from chance (0) to "
        "perfect (1). Low is good for batch variables, unless they differ in biology: sites of "
        "other organs do."
    )


def _headline(samples: Benchmark, found: Found) -> str:
    parts = {}
    for encoder, (score, effects) in found.items():
        variables = ", ".join(f"{kind} {mean[2]}" for kind, mean in summaries(effects).items())
        kind = f"class {class_adjusted(samples, score):.2f}, " if score else ""
        parts[encoder] = f"{kind}{variables}"
    return headline(f"{samples.name}, chance-adjusted accuracy", parts)
