"""What stands behind a probe's five figures: intervals, calibration, classes, genes, as tables."""

from pathlib import Path

import numpy as np

from evaluate.probes.assess import KNN_METRIC
from evaluate.probes.metrics import METRICS
from evaluate.report.figures import save_table
from evaluate.results import read_pairs

SECTION = "Probes in detail"
CLASS_COLUMNS = ("nuclei", "precision", "recall", "F1", "AUC", "AUPR")


def write_details(out: Path) -> list[Path]:
    """Write `tables/{intervals,classes,genes}--<benchmark>` of all that was probed.

    Returns:
        The CSV files.
    """
    pairs = [pair for pair in read_pairs(out) if pair["details"]]
    written = []
    for name in dict.fromkeys(pair["benchmark"] for pair in pairs):
        own = [pair for pair in pairs if pair["benchmark"] == name]
        if own[0]["facts"].get("targets"):
            written.append(_genes(out, name, own))
        else:
            written += [_intervals(out, name, own), _classes(out, name, own)]
    return written


def _intervals(out: Path, name: str, pairs: list[dict]) -> Path:
    header = ["encoder", "folds", *METRICS, "ECE", KNN_METRIC, "C"]
    rows, drawn = [], set()
    for pair in pairs:
        for split, found in pair["details"].items():
            cells = []
            for metric in METRICS:
                cells.append(f"{found['pooled'][metric]:.3f}")
                if "interval" in found:
                    low, high = found["interval"][metric]
                    cells[-1] += f" [{low:.3f}, {high:.3f}]"
                    drawn.add(found["resampled"])
            near = [
                row["value"]
                for row in pair["rows"]
                if row["split"] == split and row["metric"] == KNN_METRIC
            ]
            cells += [f"{found['calibration']['ECE']:.3f}", f"{np.mean(near):.3f}" if near else "–"]
            strengths = "/".join(f"{c:g}" for c in dict.fromkeys(found["C"]))
            rows.append([pair["encoder"], split, *cells, strengths])
    interval = f"; in brackets 95 % of bootstrap resamples of each {'/'.join(drawn)} as a whole"
    return save_table(
        out,
        f"intervals--{name}",
        header,
        rows,
        section=SECTION,
        title=f"{name}: all held-out predictions together",
        caption="Each nucleus is predicted by the models that did not see it, and scored once, so "
        f"the values differ a little from means over folds{interval if drawn else ''}. ECE: "
        "expected calibration error. k-NN: mean over folds. C: as chosen in the folds.",
        command="probe",
    )


def _classes(out: Path, name: str, pairs: list[dict]) -> Path:
    rows = [
        [pair["encoder"], split, kind]
        + [v if isinstance(v, int) else f"{v:.3f}" for v in (found[c] for c in CLASS_COLUMNS)]
        for pair in pairs
        for split, details in pair["details"].items()
        for kind, found in details["classes"].items()
    ]
    return save_table(
        out,
        f"classes--{name}",
        ["encoder", "folds", "class", *CLASS_COLUMNS],
        rows,
        section=SECTION,
        title=f"{name}: class by class",
        caption="Each class against the rest, all held-out predictions together.",
        command="probe",
    )


def _genes(out: Path, name: str, pairs: list[dict]) -> Path:
    rows = []
    for gene in pairs[0]["facts"]["targets"]:
        row = [gene]
        for pair in pairs:
            values = next(iter(pair["details"].values()))["genes"][gene]
            values = [value for value in values if value is not None]
            spread = f" ({np.std(values, ddof=1):.3f})" if len(values) > 1 else ""
            row.append(f"{np.mean(values):.3f}{spread}" if values else "–")
        rows.append(row)
    return save_table(
        out,
        f"genes--{name}",
        ["gene", *(pair["encoder"] for pair in pairs)],
        rows,
        section=SECTION,
        title=f"{name}: gene by gene",
        caption="Pearson correlation of predicted and true log(1 + transcripts), mean (s.d.) over "
        "slides left out in turn.",
        command="probe",
        best={pair["encoder"]: "max" for pair in pairs},
    )
