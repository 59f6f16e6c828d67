"""The paper's five metrics of a classification (Tables 10-12), through scikit-learn."""

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)

METRICS = ("balanced accuracy", "AUC", "AUPR", "F1 macro", "F1 weighted")


def scores(
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    positive: str | None = None,
) -> dict[str, float]:
    """Score one fold's predictions.

    With two classes AUC and AUPR are those of the positive class; with more, the mean over
    classes of one against the rest. AUPR is average precision, without interpolation.

    Paper leaves open: which average AUC and AUPR take, which class is positive; here: macro, and
    the class that the benchmark names, else the last.

    Args:
        labels: (N,) str; every class occurs.
        probabilities: (N, K) float, columns in the order of `classes`.
        classes: K names.
        positive: of two classes, the one AUPR counts.

    Returns:
        Metric -> value, in the order of METRICS.
    """
    names = np.array(classes)
    predicted = names[probabilities.argmax(axis=1)]
    truth = labels[:, None] == names  # (N, K) bool
    if len(names) == 2:
        column = classes.index(positive) if positive else 1
        truth, probabilities = truth[:, column], probabilities[:, column]
    f1 = {
        kind: f1_score(labels, predicted, labels=names, average=kind, zero_division=0)
        for kind in ("macro", "weighted")
    }
    values = (
        balanced_accuracy_score(labels, predicted),
        roc_auc_score(truth, probabilities, average="macro"),
        average_precision_score(truth, probabilities, average="macro"),
        f1["macro"],
        f1["weighted"],
    )
    return dict(zip(METRICS, map(float, values), strict=True))
