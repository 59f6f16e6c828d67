"""Metrics and probes, by hand and against scikit-learn."""

import numpy as np
import pytest

from evaluate.benchmark import Benchmark
from evaluate.metrics import scores
from evaluate.probe import folds, probe


def test_binary_metrics_by_hand():
    labels = np.array(["A", "A", "B", "B", "B"])
    positive = np.array([0.1, 0.6, 0.4, 0.8, 0.9])  # of B; predicted A B A B B
    got = scores(labels, np.stack([1 - positive, positive], 1), ("A", "B"), "B")
    # ranks of B downwards: .9 B, .8 B, .6 A, .4 B, .1 A; five of six pairs are in order
    expected = {
        "balanced accuracy": (1 / 2 + 2 / 3) / 2,
        "AUC": 5 / 6,
        "AUPR": (1 + 1 + 3 / 4) / 3,
        "F1 macro": (1 / 2 + 2 / 3) / 2,
        "F1 weighted": (2 * 1 / 2 + 3 * 2 / 3) / 5,
    }
    assert got == pytest.approx(expected)
    other = scores(labels, np.stack([1 - positive, positive], 1), ("A", "B"), "A")
    assert other["AUC"] == pytest.approx(5 / 6)
    assert other["AUPR"] == pytest.approx((1 + 2 / 3) / 2)


def test_three_class_metrics_by_hand():
    labels = np.array(["A", "A", "B", "C"])
    chances = np.array([[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6]])
    got = scores(labels, chances, ("A", "B", "C"))  # predicted A B B C; every class is in order
    assert got["balanced accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert got["AUC"] == got["AUPR"] == pytest.approx(1)
    assert got["F1 macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert got["F1 weighted"] == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)


def blobs(classes: tuple[str, ...], each: int = 40) -> tuple[np.ndarray, Benchmark]:
    """Gaussian features of several classes, of scales far apart, and their benchmark."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array(classes), each)
    features = rng.normal(0, 1, (len(labels), 6)) + np.repeat(np.eye(6)[: len(classes)], each, 0)
    groups = np.tile(np.array([f"g{i}" for i in range(8)]), len(labels) // 8)
    crops = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return (features * 10.0 ** np.arange(6)).astype(np.float32), Benchmark(
        "blobs", crops, labels, classes, groups, "group", classes[-1] if len(classes) == 2 else None
    )


@pytest.mark.parametrize("classes", [("b", "a"), ("c", "a", "b")])
@pytest.mark.parametrize("components", [None, 3])
def test_probe_is_scikit_learn(classes, components):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler, label_binarize

    features, data = blobs(classes)
    got = probe(features, data, folds(data, "stratified", 5, 7), components)
    steps = [PCA(components, svd_solver="full")] if components else []
    model = make_pipeline(*steps, StandardScaler(), LogisticRegression(tol=1e-8, max_iter=9999))
    splitter = StratifiedKFold(5, shuffle=True, random_state=7)
    chances = cross_val_predict(
        model, features.astype(float), data.labels, cv=splitter, method="predict_proba"
    )  # columns in alphabetical order
    for fold, (_, test) in zip(got, splitter.split(features, data.labels), strict=True):
        if len(classes) == 2:
            truth, score = data.labels[test] == "a", chances[test, 0]
        else:
            truth, score = label_binarize(data.labels[test], classes=["a", "b", "c"]), chances[test]
        assert fold["AUC"] == pytest.approx(roc_auc_score(truth, score), abs=2e-3)
        assert fold["AUPR"] == pytest.approx(average_precision_score(truth, score), abs=2e-3)


def test_folds_cover_and_groups_stay_whole():
    _, data = blobs(("a", "b", "c"))
    for split in ("stratified", "grouped"):
        tests = folds(data, split, 5, 0)
        assert sorted(np.concatenate(tests).tolist()) == list(range(len(data)))
        again = folds(data, split, 5, 0)
        assert all(np.array_equal(a, b) for a, b in zip(tests, again, strict=True))
    groups = [set(data.groups[test].tolist()) for test in folds(data, "grouped", 5, 0)]
    assert sum(map(len, groups)) == 8
    assert len(folds(data, "grouped", 20, 0)) == 8  # fewer groups than folds: each is one


def test_folds_refuse_what_cannot_be_split():
    _, data = blobs(("a", "b"))
    with pytest.raises(ValueError, match=r"class 'a' has 3 nuclei.*--folds 3"):
        folds(data.take(np.arange(37, 80)), "stratified", 5, 0)
    one = Benchmark("one", data.crops[:40], data.labels[:40], ("a",), data.groups[:40])
    with pytest.raises(ValueError, match=r"1 class\(es\) \(a\); a probe needs two"):
        folds(one, "stratified", 5, 0)
    with pytest.raises(ValueError, match="no groups are given"):
        folds(data.take(np.arange(0, 80, 8)), "grouped", 5, 0)
