"""Draw a run's curves, from its log.jsonl."""

import json
from collections.abc import Iterator
from pathlib import Path

from shards.write import atomic

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
DINO_PANELS = (  # where a run logs them
    ("dino", "DINO loss"),
    ("ibot", "iBOT loss"),
    ("koleo", "KoLeo, both views"),
    ("kde", "kernel density, both views"),
    ("entropy", "entropy of the targets, nats"),
    ("temperature", "teacher temperature"),
    ("weight_decay", "weight decay"),
    ("spread", "spread of the embeddings"),
)


def plot(runs: list[Path], out: Path) -> None:
    """Draw the curves of some runs beside each other.

    Args:
        runs: folders of runs.
        out: PNG to write.

    Raises:
        FileNotFoundError: a folder without log.jsonl.
        ValueError: a line of it is damaged, or matplotlib writes no such image.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {}
    for run in runs:
        path = run / "log.jsonl"
        if not path.is_file():
            raise FileNotFoundError(f"{run} is no run: no log.jsonl in it")
        logs[run] = list(_lines(path))
    dino = any("dino" in line for lines in logs.values() for line in lines)
    panels = PANELS + DINO_PANELS * dino
    rows = len(panels) // 4
    figure, axes = pyplot.subplots(rows, 4, figsize=(16, 3.5 * rows), layout="constrained")
    for turn, (run, lines) in enumerate(logs.items()):
        for axis, (name, _) in zip(axes.flat, panels, strict=True):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                marker = "o" if len(points) < 30 else ""
                line = {"marker": marker, "ms": 3, "lw": 1.2, "color": f"C{turn % 10}"}
                axis.plot(*zip(*points, strict=True), **line, label=run.name)
    for axis, (name, title) in zip(axes.flat, panels, strict=True):
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
        if not axis.lines:
            axis.text(0.5, 0.5, f"no {name} in the log", ha="center", transform=axis.transAxes)
    axes.flat[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic(out) as file:
        figure.savefig(file, dpi=110, format=out.suffix[1:].lower() or "png")
    pyplot.close(figure)


def _lines(path: Path) -> Iterator[dict]:
    """Yield what a log's lines hold; the last may have been cut by a kill and is passed over."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is damaged ({error})") from error
