"""The paper's five metrics of a classification (Tables 10-12), through scikit-learn."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

NO_SAMPLE: dict[str, Any] = {"zero_division": 0}  # of what has no samples
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
        labels: (N,) str; of more than two classes, one that does not occur does not count.
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
    else:
        present = truth.any(axis=0)
        names, truth, probabilities = names[present], truth[:, present], probabilities[:, present]
    f1 = {
        kind: f1_score(labels, predicted, labels=names, average=kind, **NO_SAMPLE)
        for kind in ("macro", "weighted")
    }
    values = (
        recall_score(labels, predicted, labels=names, average="macro"),  # balanced accuracy
        roc_auc_score(truth, probabilities, average="macro"),
        average_precision_score(truth, probabilities, average="macro"),
        f1["macro"],
        f1["weighted"],
    )
    return dict(zip(METRICS, map(float, values), strict=True))


def per_class(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Score each class against the rest.

    Args:
        labels: (N,) str; every class occurs.
        probabilities: (N, K) float, columns in the order of `classes`.
        classes: K names.

    Returns:
        Class -> nuclei, precision, recall, F1, AUC, AUPR.
    """
    predicted = np.array(classes)[probabilities.argmax(axis=1)]
    found = precision_recall_fscore_support(labels, predicted, labels=list(classes), **NO_SAMPLE)
    table = {}
    for k, name in enumerate(classes):
        precision, recall, f1, nuclei = (np.asarray(column)[k] for column in found)
        truth = labels == name
        table[name] = {
            "nuclei": int(nuclei),
            "precision": float(precision),
            "recall": float(recall),
            "F1": float(f1),
            "AUC": float(roc_auc_score(truth, probabilities[:, k])),
            "AUPR": float(average_precision_score(truth, probabilities[:, k])),
        }
    return table


def confusion(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> list[list[int]]:
    """Return counts by true class (rows) and predicted class (columns); arguments as above."""
    predicted = np.array(classes)[probabilities.argmax(axis=1)]
    return confusion_matrix(labels, predicted, labels=list(classes)).tolist()
