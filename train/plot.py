"""Draw a run's curves, from its log.jsonl."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from shards.write import atomic

PANELS = (  # drawn where a run logs them
    ("loss", "loss"),
    ("accuracy", "positives found"),
    ("probe", "k-NN probe, balanced accuracy"),
    ("rank", "effective rank"),
    ("lr", "learning rate"),
    ("momentum", "teacher momentum"),
    ("images_per_s", "images/s"),
    ("data_wait", "share waiting for data"),
    ("spread", "spread of the embeddings"),
    ("contrast", "MoCo's loss, without the measures'"),
    ("measures", "handcrafted measures, smooth L1"),
    ("dino", "DINO loss"),
    ("ibot", "iBOT loss"),
    ("koleo", "KoLeo, both views"),
    ("kde", "kernel density, both views"),
    ("entropy", "entropy of the targets, nats"),
    ("temperature", "teacher temperature"),
    ("weight_decay", "weight decay"),
)
COLUMNS = 4


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
    logged = {name for lines in logs.values() for line in lines for name in line}
    panels = [(name, title) for name, title in PANELS if name in logged]
    rows = max(math.ceil(len(panels) / COLUMNS), 1)
    size = (4 * COLUMNS, 3.5 * rows)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, squeeze=False, layout="constrained")
    for turn, (run, lines) in enumerate(logs.items()):
        for axis, (name, _) in zip(axes.flat, panels, strict=False):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                marker = "o" if len(points) < 30 else ""
                line = {"marker": marker, "ms": 3, "lw": 1.2, "color": f"C{turn % 10}"}
                axis.plot(*zip(*points, strict=True), **line, label=run.name)
    for axis, (_, title) in zip(axes.flat, panels, strict=False):
        axis.set_title(title, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    if panels:
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
