"""The logistic solver and the sums it stands on, against scikit-learn and numpy."""

import numpy as np
import pytest
import torch

from evaluate.probes import logistic
from evaluate.probes.logistic import Problem, Regressions
from evaluate.probes.moments import Moments


def awkward(classes: int, rows: int = 600, dim: int = 12) -> tuple[np.ndarray, ...]:
    """Correlated features far from 0, of scales far apart, one constant; labels; parts."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim))
    labels = (0.4 * x[:, :classes] + rng.gumbel(size=(rows, classes))).argmax(axis=1)
    x = (x * 10.0 ** np.linspace(-3, 3, dim) + 50).astype(np.float32)
    x[:, 3] = 7.5
    return x, labels, rng.integers(0, 4, rows)


def reference(x: np.ndarray, labels: np.ndarray, train: np.ndarray, C: float):
    """Return scikit-learn's scaler and model at their optimum, and the objective there."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(x[train].astype(np.float64))
    features = scaler.transform(x[train].astype(np.float64))
    model = LogisticRegression(C=C, tol=1e-9, max_iter=100_000).fit(features, labels[train])
    losses = -model.predict_log_proba(features)[np.arange(train.sum()), labels[train]]
    return scaler, model, losses.sum() + (model.coef_**2).sum() / 2 / C


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("small", [logistic.SMALL, 0])  # float64 throughout; float32
def test_optimum_is_scikit_learns(classes, small, monkeypatch):
    monkeypatch.setattr(logistic, "SMALL", small)
    x, labels, parts = awkward(classes)
    problems = [Problem((fold,), C) for fold in range(4) for C in (0.01, 1.0, 100.0)]
    problems.append(Problem((0, 2)))
    fitted = Regressions(x, labels, parts, problems)
    for i in (0, 1, 2, 5, 7, 12):
        problem = problems[i]
        train = ~np.isin(parts, problem.left_out)
        scaler, model, optimum = reference(x, labels, train, problem.C)
        assert float(fitted.objective[i]) == pytest.approx(optimum, rel=1e-6)
        held = parts == problem.left_out[0]
        expected = model.predict_proba(scaler.transform(x[held].astype(np.float64)))
        got = fitted.probabilities(i, problem.left_out[0])
        np.testing.assert_allclose(got, expected, atol=2e-3)
        np.testing.assert_allclose(got.sum(axis=1), 1)
    assert fitted.evaluations < 100


def test_classes_that_can_be_told_apart_still_have_an_optimum():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 100)
    x = (np.eye(3)[labels] * 20 + rng.normal(size=(300, 3))).astype(np.float32)
    parts = np.tile(np.arange(5), 60)
    fitted = Regressions(x, labels, parts, [Problem((0,), 1000.0)])
    optimum = reference(x, labels, parts != 0, 1000.0)[2]
    assert float(fitted.objective[0]) == pytest.approx(optimum, rel=1e-4)


def test_float64_takes_over_where_float32_stalls(monkeypatch):
    monkeypatch.setattr(logistic, "SMALL", 0)
    monkeypatch.setattr(logistic, "TOLERANCE", 1e-18)
    x, labels, parts = awkward(3)
    fitted = Regressions(x, labels, parts, [Problem((0,), 100.0)])
    assert fitted.x.dtype == torch.float64
    optimum = reference(x, labels, parts != 0, 100.0)[2]
    assert float(fitted.objective[0]) == pytest.approx(optimum, rel=1e-9)


def test_what_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_EVALUATIONS", 3)
    x, labels, parts = awkward(3)
    with pytest.raises(RuntimeError, match=r"C = 10\) is not done after 3 evaluations"):
        Regressions(x, labels, parts, [Problem((0,), 10.0)])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moments_without_parts_are_those_of_the_rest(dtype):
    x, _, parts = awkward(3)
    y = np.random.default_rng(1).normal(size=(len(x), 2)).astype(np.float32)
    moments = Moments([x, y], parts, 4, dtype)
    both = np.concatenate([x, y], axis=1).astype(np.float64)
    for left_out in ((0,), (1, 3)):
        rest = both[~np.isin(parts, left_out)]
        n, mean, products = moments.without(left_out)
        assert n == len(rest)
        np.testing.assert_allclose(mean, rest.mean(axis=0), rtol=1e-12)
        centred = rest - rest.mean(axis=0)
        norms = np.sqrt((centred**2).sum(axis=0))
        expected = centred.T @ centred
        size = norms[:, None] * norms + 1e-9
        loose = 1e-12 if dtype == torch.float64 else 1e-5
        assert (np.abs(products.numpy() - expected) / size).max() < loose
        scale = rest.std(axis=0)
        scale[3] = 1  # constant
        np.testing.assert_allclose(moments.scale(n, products), scale, rtol=1e-10)
    own = both[parts == 2]
    np.testing.assert_allclose(moments.of(2)[1], own.mean(axis=0), rtol=1e-12)
