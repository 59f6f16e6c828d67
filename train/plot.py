"""Draw a run's curves, from its log.jsonl."""

import json
from pathlib import Path

PANELS = (
    ("loss", "loss"),
    ("accuracy", "positives found"),
    ("probe", "k-NN probe, balanced accuracy"),
    ("rank", "effective rank"),
    ("lr", "learning rate"),
    ("momentum", "teacher momentum"),
    ("images_per_s", "images/s"),
    ("data_wait", "share waiting for data"),
)


def plot(runs: list[Path], out: Path) -> None:
    """Draw the curves of some runs beside each other.

    Args:
        runs: folders of runs.
        out: PNG to write.

    Raises:
        FileNotFoundError: a folder without log.jsonl.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 4, figsize=(16, 7), layout="constrained")
    for run in runs:
        path = run / "log.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{run} is no run: no log.jsonl in it")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for axis, (name, _) in zip(axes.flat, PANELS, strict=True):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                marker = "o" if len(points) < 30 else ""
                axis.plot(*zip(*points, strict=True), marker=marker, ms=3, lw=1.2, label=run.name)
    for axis, (name, title) in zip(axes.flat, PANELS, strict=True):
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
        if not axis.lines:
            axis.text(0.5, 0.5, f"no {name} in the log", ha="center", transform=axis.transAxes)
    axes.flat[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
