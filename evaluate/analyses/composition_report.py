"""The figure and table of a composition grid: mean and standard error for each of its points."""

from pathlib import Path

import numpy as np

from evaluate.analyses.composition import Job
from evaluate.maps.map import COLOURS
from evaluate.report.figures import label, save_figure, save_table
from evaluate.results import read_rows

METRIC, SPLIT = "balanced accuracy", "stratified"


def job_scores(out: Path, jobs: list[Job]) -> tuple[list[str], dict[Job, np.ndarray]]:
    """Return the benchmarks, and (benchmarks, folds) values for each job that is done."""
    wanted = {job.name: job for job in jobs}
    values: dict[tuple[str, str], list[float]] = {}
    for row in read_rows(out):
        if row["encoder"] in wanted and (row["metric"], row["split"]) == (METRIC, SPLIT):
            values.setdefault((row["encoder"], row["benchmark"]), []).append(row["value"])
    names = sorted({benchmark for _, benchmark in values})
    return names, {
        job: np.array([values[name, benchmark] for benchmark in names])
        for name, job in wanted.items()
        if all((name, benchmark) in values for benchmark in names) and names
    }


def mean_and_error(repeats: list[np.ndarray], repeated: bool) -> tuple[float, float]:
    """Return the mean and its standard error, NaN where there is none.

    Paper leaves open: over what the standard error is; here: over repeats, each with its own
    selection and training seed, of the mean over benchmarks and folds; with one repeat over folds.

    Args:
        repeats: (benchmarks, folds) each.
        repeated: the grid has several repeats; a point that has one alone shows no error.
    """
    if repeated and len(repeats) == 1:
        return float(repeats[0].mean()), float("nan")
    parts = [r.mean() for r in repeats] if repeated else repeats[0].mean(axis=0)
    return float(np.mean(parts)), float(np.std(parts, ddof=1) / np.sqrt(len(parts)))


def write_composition(out: Path, jobs: list[Job]) -> Path | None:
    """Write `tables/composition.csv` and `figures/composition.svg` of the jobs that are done.

    Returns:
        The table's path, or None if no job is done.
    """
    benchmarks, done = job_scores(out, jobs)
    if not done:
        return None
    columns = [*(["mean"] if len(benchmarks) > 1 else []), *benchmarks]
    points: dict[tuple, list[Job]] = {}  # a point and its repeats
    for job in done:
        points.setdefault((job.encoder, job.cells, job.slides, job.projects), []).append(job)
    repeated = max(map(len, points.values())) > 1
    table: dict[tuple, list[tuple[float, float]]] = {}
    for point, repeats in points.items():
        parts = {"mean": [done[job] for job in repeats]}
        parts |= {b: [done[job][[i]] for job in repeats] for i, b in enumerate(benchmarks)}
        table[point] = [mean_and_error(parts[column], repeated) for column in columns]
    header = ["encoder", "cells", "slides", "projects", "repeats", *columns]
    rows = [
        [e, c, s or "all", p or "all", len(points[e, c, s, p])]
        + [f"{mean:.3f}" + (f" ({error:.3f})" if error == error else "") for mean, error in values]
        for (e, c, s, p), values in sorted(table.items(), key=lambda item: _rank(item[0]))
    ]
    folds = next(iter(done.values())).shape[1]
    over = "repeats" if repeated else f"{folds} folds"
    facts = {"section": "Composition", "command": "composition"}
    path = save_table(
        out, "composition", header, rows, title="What training data is made of",
        caption=f"{METRIC.capitalize()}, mean (standard error over {over}); {len(done)} of "
        f"{len(jobs)} runs are done.",
        best={columns[0]: "max"}, **facts,
    )  # fmt: skip
    _draw(out, columns, table, facts | {"headline": _headline(table)}, over)
    return path


def _rank(point: tuple) -> tuple:
    encoder, cells, slides, projects = point
    return (slides is not None, encoder, cells, slides or 0, projects or 0)


def _headline(table: dict[tuple, list]) -> str:
    """Say what more of each brought, from the least to the most."""
    parts = []
    upper = sorted((point for point in table if not point[2]), key=_rank)
    lower = sorted((point for point in table if point[2]), key=_rank)
    for what, points, at in (("cells", upper, 1), ("slides", lower, 2)):
        of = [p for p in points if p[0] == points[0][0] and p[3] == points[-1][3]] if points else []
        if len(of) > 1:
            first, last = table[of[0]][0][0], table[of[-1]][0][0]
            parts.append(f"from {of[0][at]:,} to {of[-1][at]:,} {what}: {first:.3f} to {last:.3f}")
    return f"Mean {METRIC} {'; '.join(parts)}." if parts else ""


def _draw(out: Path, columns: list[str], table: dict, facts: dict, over: str) -> None:
    from matplotlib.figure import Figure

    rows = [[point for point in table if not point[2]], [point for point in table if point[2]]]
    rows = [points for points in rows if points]
    figure = Figure(figsize=(4.6 * len(columns) + 1, 3.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False, sharey="col")
    for axes_row, points in zip(grid, rows, strict=True):
        diverse = bool(points[0][2])
        along, by = (2, 3) if diverse else (1, 0)
        lines = sorted({point[by] for point in points}, key=lambda v: (v is not None, v))
        for column, axes in enumerate(axes_row):
            for i, line in enumerate(lines):
                here = sorted((p for p in points if p[by] == line), key=lambda p: p[along])
                mean, error = np.array([table[p][column] for p in here]).T
                said = f"{line or 'all'} projects" if diverse else str(line)
                said = said.replace("1 projects", "1 project")
                beside = [p[along] * 1.03**i for p in here]
                style = {"marker": "o", "ms": 5, "capsize": 3, "lw": 1.6}
                style["color"] = COLOURS[i % len(COLOURS)]
                axes.errorbar(beside, mean, error, label=said, **style)
            ticks = sorted({p[along] for p in points})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            what = f"slides, of {points[0][1]:,} cells in all" if diverse else "cells"
            axes.set_xlabel(what)
            title = f"mean of {len(columns) - 1} benchmarks" if columns[column] == "mean" else ""
            axes.set_title(title or label(columns[column]), size=11)
        axes_row[0].set_ylabel(METRIC)
        axes_row[0].legend(frameon=False, fontsize=9)
    save_figure(
        out, "composition", figure, title="Quality against what the training data is made of",
        caption="Above: cells from all slides. Below: the same number of cells from more slides "
        f"and projects. Bars: standard error over {over} (paper, Fig. 3).", **facts,
    )  # fmt: skip
