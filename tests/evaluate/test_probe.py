"""Metrics and probes, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from evaluate.benchmark import Benchmark
from evaluate.probes.assess import Settings, assess
from evaluate.probes.bootstrap import Ranking, intervals
from evaluate.probes.calibration import calibration
from evaluate.probes.knn import vote
from evaluate.probes.metrics import METRICS, per_class, scores
from evaluate.probes.probe import GRID, Model, folds, predict, probe


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
    got = probe(features, data, folds(data, "stratified", 5, 7), Model(components=components), "")
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


@pytest.mark.parametrize("exact", [0, 2048])
def test_principal_axes_are_scikit_learns(exact, monkeypatch):
    from sklearn.decomposition import PCA

    from evaluate.principal import components

    monkeypatch.setattr("evaluate.principal.EXACT", exact)

    rng = np.random.default_rng(0)
    spectrum = 50 * 0.9 ** np.arange(200)  # falls slowly, as that of pixels
    x = (rng.normal(size=(900, 200)) * spectrum @ rng.normal(size=(200, 300)) / 17 + 5).astype("f4")
    train = np.arange(0, 900, 2)
    got = components(x, 20, train, 0)
    exact = PCA(20, svd_solver="full").fit(x[train].astype(float))
    expected = exact.transform(x.astype(float))
    caught = got[train].var(axis=0, ddof=1).sum() / exact.explained_variance_.sum()
    assert 0.9995 < caught < 1.0001
    assert np.abs(got[train].mean(axis=0)).max() < 1e-3
    for ours, theirs in zip(got.T[:10], expected.T[:10], strict=True):  # up to sign
        assert abs(np.corrcoef(ours, theirs)[0, 1]) > 0.999


# C by an inner split, k-NN, calibration, intervals


def test_inner_split_takes_the_C_of_the_best_balanced_accuracy_on_the_other_folds():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.preprocessing import StandardScaler

    features, data = blobs(("c", "a", "b"))
    tests = folds(data, "stratified", 4, 0)
    got = predict(features, data, tests, Model(strength=None))
    x = features.astype(np.float64)
    scored = []
    for c in GRID:  # for fold 1, by refitting
        said, truth = [], []
        for other in (0, 2, 3):
            train = np.setdiff1d(np.arange(len(data)), np.concatenate([tests[1], tests[other]]))
            scaler, model = StandardScaler(), LogisticRegression(C=c, tol=1e-8, max_iter=9999)
            model.fit(scaler.fit_transform(x[train]) / np.sqrt(x.shape[1]), data.labels[train])
            said.append(model.predict(scaler.transform(x[tests[other]]) / np.sqrt(x.shape[1])))
            truth.append(data.labels[tests[other]])
        scored.append(recall_score(np.concatenate(truth), np.concatenate(said), average="macro"))
    assert got.strengths[1] == GRID[int(np.argmax(scored))]
    assert got.strengths[1] < max(GRID)  # six features of which three are noise
    alone = predict(features, data, tests, Model(got.strengths[1] / x.shape[1]))  # unscaled
    np.testing.assert_allclose(
        alone.probabilities[tests[1]], got.probabilities[tests[1]], atol=1e-4
    )
    with pytest.raises(ValueError, match="only two folds"):
        predict(features, data, folds(data, "stratified", 2, 0), Model(strength=None))


def test_votes_of_neighbours_by_hand():
    angles = np.radians([0, 10, 90, 100, 180, 190, 270, 280])
    train = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0, 0, 1, 1, 0, 1, 1, 1])
    scale = train.std(axis=0)
    z = (train - train.mean(axis=0)) / scale
    held = np.array([[2.0, 0.3], [-3.0, -0.1]])
    got = vote(train, labels, held, 2, 3)
    for row, point in zip(got, (held - train.mean(axis=0)) / scale, strict=True):
        cosine = z @ point / np.linalg.norm(z, axis=1) / np.linalg.norm(point)
        near = np.argsort(-cosine)[:3]
        weight = np.exp(cosine[near] / 0.07)
        assert row[1] == pytest.approx(weight[labels[near] == 1].sum() / weight.sum(), abs=1e-4)
    assert vote(train, labels, held, 2, 99).shape == (2, 2)  # fewer neighbours than asked for


def test_calibration_by_hand():
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.45, 0.55], [0.4, 0.6]])
    found = calibration(chances, np.array([0, 1, 1, 1]), bins=5)
    # (0.4, 0.6]: confidence 0.575, both right; (0.6, 0.8]: 0.8, wrong; (0.8, 1]: 0.9, right
    assert found["ECE"] == pytest.approx((2 * 0.425 + 0.8 + 0.1) / 4)
    assert found["MCE"] == pytest.approx(0.8)
    assert [b["count"] for b in found["bins"]] == [2, 1, 1]


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_areas_are_scikit_learns(classes):
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(classes)
    scored = rng.random(200).round(1)  # many ties
    truth = rng.random(200) < scored / classes + 0.1
    weights = rng.integers(0, 4, (3, 200))
    auc, average = Ranking(scored, truth).areas(weights)
    for row, a, p in zip(weights, auc, average, strict=True):
        assert a == pytest.approx(roc_auc_score(truth, scored, sample_weight=row))
        assert p == pytest.approx(average_precision_score(truth, scored, sample_weight=row))
    assert np.isnan(Ranking(scored, truth).areas(1 * truth[None])).all()


@pytest.mark.parametrize("classes", [("A", "B"), ("A", "B", "C")])
def test_intervals_are_those_of_resampled_groups(classes):
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(classes)), 60)
    groups = rng.integers(0, 12, len(truth))
    chances = rng.dirichlet(np.ones(len(classes)), len(truth)) + 0.4 * np.eye(len(classes))[truth]
    chances /= chances.sum(axis=1, keepdims=True)
    column = 1 if len(classes) == 2 else None
    got = intervals(truth, chances, groups, column, 40, seed=5)
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=40)
    names = np.array(classes)
    values = []
    for draw in draws:  # the long way: rows repeated as often as their group was drawn
        rows = np.repeat(np.arange(len(truth)), draw[groups])
        found = scores(names[truth[rows]], chances[rows], classes, "B" if column else None)
        values.append([found[m] for m in METRICS])
    expected = np.percentile(values, [2.5, 97.5], axis=0).T
    np.testing.assert_allclose([got[m] for m in METRICS], expected, atol=2e-6)


def test_details_of_a_probe():
    features, data = blobs(("c", "a", "b"))
    settings = Settings(resamples=50, neighbours=5)
    splits, absent = settings.plan(data)
    rows, details = assess(features, data, splits, settings)
    assert absent is None and set(details) == {"stratified", "grouped"}
    one = details["grouped"]
    assert one["C"] == [1.0] * 5 and one["resampled"] == "group"
    assert sum(map(sum, one["confusion"])) == len(data)
    low, high = one["interval"]["balanced accuracy"]
    assert low < one["pooled"]["balanced accuracy"] < high
    assert one["pooled"]["balanced accuracy"] == pytest.approx(
        np.mean([values["recall"] for values in one["classes"].values()]), abs=1e-5
    )
    names = [*METRICS, "ECE", "k-NN balanced accuracy"]
    assert [row["metric"] for row in rows[:7]] == names and len(rows) == 2 * 5 * 7
    by_hand = per_class(np.array(["A", "A", "B"]), np.array([[1, 0], [0, 1], [0, 1]]), ("A", "B"))
    assert by_hand["B"] == pytest.approx(
        {"nuclei": 1, "precision": 0.5, "recall": 1, "F1": 2 / 3, "AUC": 0.75, "AUPR": 0.5}
    )


def test_a_class_rarer_than_folds_counts_where_it_is():
    features, benchmark = blobs(("a", "b", "c"))
    rows = np.r_[0:80, 80:82]  # two of the last class, as NuCLS has two eosinophils
    benchmark = benchmark.take(rows)
    tests = folds(benchmark, "stratified", 5, 0)
    held = [set(benchmark.labels[test].tolist()) for test in tests]
    assert sum("c" in names for names in held) == 2
    found = predict(features[rows], benchmark, tests)
    test = next(t for t, names in zip(tests, held, strict=True) if "c" not in names)
    chances, truth = found.probabilities[test], benchmark.labels[test]
    got = scores(truth, chances, benchmark.classes)
    guess = np.array(benchmark.classes)[chances.argmax(1)]
    recalls = [(guess[truth == name] == name).mean() for name in "ab"]
    areas = [roc_auc_score(truth == name, chances[:, i]) for i, name in enumerate("ab")]
    assert got["balanced accuracy"] == pytest.approx(np.mean(recalls))
    assert got["AUC"] == pytest.approx(np.mean(areas))
