"""One encoder on one benchmark: the rows of `probe.csv`, and what stands behind them."""

from dataclasses import dataclass

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.probes import logistic, regression
from evaluate.probes.bootstrap import intervals
from evaluate.probes.calibration import BINS, calibration
from evaluate.probes.metrics import METRICS, confusion, per_class, scores
from evaluate.probes.probe import GRID, SPLITS, Model, Prediction, folds, predict

KNN_METRIC = "k-NN balanced accuracy"


@dataclass(frozen=True)
class Settings:
    """What a user may ask of a probe."""

    folds: int = 5
    seed: int = 0
    C: float | None = 1.0  # None: by an inner split
    alpha: float | None = regression.ALPHA  # None: likewise
    neighbours: int = 20  # k of the k-NN probe; 0: none
    resamples: int = 1000  # of the bootstrap; 0: no intervals

    def protocol(self, benchmark: Benchmark) -> dict:
        """Return what a row of `probe.csv` depends on, besides the data, as JSON."""
        features = "standardised on the training fold"
        if self.C is None and benchmark.targets is None:
            features += ", blocks of a total variance of 1"
        if benchmark.targets is not None:
            return {
                "regression": "ridge, Gram matrices downdated in float64",
                "alpha": self.alpha or {"inner split over": regression.GRID},
                "targets": "log(1 + count)",
                "features": features,
                "correlation": "Pearson per gene and slide",
            }
        return {
            "folds": self.folds,
            "seed": self.seed,
            "C": self.C or {"inner split over": GRID, "by": METRICS[0]},
            "solver": "L-BFGS in Böhning's metric",
            "tolerance": logistic.TOLERANCE,
            "features": features,
            "AUC and AUPR": "of the positive class" if len(benchmark.classes) == 2 else "macro",
            "k-NN": self.neighbours,
            "bootstrap": f"{self.resamples} resamples of groups, pooled held-out predictions",
            "calibration": f"top class, {BINS} bins of equal width",
        }

    def plan(self, benchmark: Benchmark) -> tuple[dict[str, list[np.ndarray]], str | None]:
        """Return the test rows of each split's folds, and why one split is absent, or None.

        Raises:
            ValueError: not even the paper's own split can be made.
        """
        first, second = regression.SPLITS if benchmark.targets is not None else SPLITS
        splits = {first: self._tests(benchmark, first)}
        try:
            splits[second] = self._tests(benchmark, second)
        except ValueError as error:
            return splits, f"no {second} folds: {error}"
        return splits, None

    def _tests(self, benchmark: Benchmark, split: str) -> list[np.ndarray]:
        if benchmark.targets is None:
            return folds(benchmark, split, self.folds, self.seed)
        owners = regression.slides_and_owners(benchmark, split)[1]
        return [np.flatnonzero(owners == name) for name in dict.fromkeys(owners.tolist())]


def assess(
    embeddings: np.ndarray,
    benchmark: Benchmark,
    splits: dict[str, list[np.ndarray]],
    settings: Settings,
    components: int | None = None,
    title: str = "",
    blocks: tuple[int, ...] | None = None,
) -> tuple[list[dict], dict]:
    """Probe one encoder.

    Args:
        embeddings: (N, D), its embeddings.
        splits: of `Settings.plan`.
        components: of a PCA within each training fold, or None.
        blocks: widths of what stands side by side in an embedding; None: it is one.

    Returns:
        Rows (split, fold, metric, value) and, by split, details as JSON.
    """
    if benchmark.targets is not None:
        return _regress(embeddings, benchmark, splits, settings)
    rows, details = [], {}
    model = Model(settings.C, components, blocks, settings.neighbours, settings.seed)
    for split, tests in splits.items():
        found = predict(embeddings, benchmark, tests, model, f"{title}, {split}")
        rows += [{"split": split, **row} for row in _fold_rows(found, benchmark, tests)]
        details[split] = details_of(found, benchmark, settings)
    return rows, details


def _fold_rows(found: Prediction, benchmark: Benchmark, tests: list[np.ndarray]) -> list[dict]:
    """Return the paper's metrics of each fold, then calibration and k-NN."""
    truth = truth_of(benchmark)
    rows = []
    for fold, test in enumerate(tests):
        labels = benchmark.labels[test]
        values = scores(labels, found.probabilities[test], benchmark.classes, benchmark.positive)
        values["ECE"] = calibration(found.probabilities[test], truth[test])["ECE"]
        if found.votes is not None:
            voted = scores(labels, found.votes[test], benchmark.classes, benchmark.positive)
            values[KNN_METRIC] = voted[METRICS[0]]
        rows += [{"fold": fold, "metric": name, "value": v} for name, v in values.items()]
    return rows


def details_of(found: Prediction, benchmark: Benchmark, settings: Settings) -> dict:
    """Return what the pooled predictions of all folds show; each nucleus was held out once."""
    truth, classes = truth_of(benchmark), benchmark.classes
    pooled = scores(benchmark.labels, found.probabilities, classes, benchmark.positive)
    details = {
        "C": found.strengths,
        "pooled": _rounded(pooled),
        "classes": {
            name: _rounded(values)
            for name, values in per_class(benchmark.labels, found.probabilities, classes).items()
        },
        "confusion": confusion(benchmark.labels, found.probabilities, classes),
        "calibration": calibration(found.probabilities, truth),
    }
    if settings.resamples:
        grouped = len(set(benchmark.groups.tolist())) > 1
        column = None
        if len(classes) == 2:
            column = classes.index(benchmark.positive) if benchmark.positive else 1
        details["resampled"] = benchmark.group_kind if grouped else "nucleus"
        groups = benchmark.groups if grouped else np.arange(len(truth))
        details["interval"] = intervals(
            truth, found.probabilities, groups, column, settings.resamples, settings.seed
        )
    return details


def _regress(embeddings, benchmark: Benchmark, splits: dict, settings: Settings) -> tuple:
    """Return rows of the mean Pearson correlation by fold, and the genes by split."""
    found = regression.regress(embeddings, benchmark, list(splits), settings.alpha)
    rows, details = [], {}
    for split, result in found.items():
        means = np.nanmean(result.values, axis=1)
        rows += [
            {"split": split, "fold": fold, "metric": regression.METRIC, "value": float(value)}
            for fold, value in enumerate(means)
        ]
        details[split] = {
            "folds": result.folds,
            "alpha": result.strengths,
            "genes": {
                gene: [None if np.isnan(v) else round(float(v), 6) for v in column]
                for gene, column in zip(benchmark.target_names, result.values.T, strict=True)
            },
        }
    return rows, details


def truth_of(benchmark: Benchmark) -> np.ndarray:
    """Return the classes' numbers, (N,) int."""
    return np.array([benchmark.classes.index(label) for label in benchmark.labels.tolist()])


def _rounded(values: dict) -> dict:
    return {k: v if isinstance(v, int) else round(v, 6) for k, v in values.items()}
