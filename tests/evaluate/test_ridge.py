"""Ridge by downdating, and the regression probe, against scikit-learn's Ridge refitted."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from evaluate.benchmark import Benchmark
from evaluate.probes.assess import Settings, assess
from evaluate.probes.regression import GRID, regress, slides_and_owners
from evaluate.probes.ridge import Ridge
from evaluate.results import benchmark_facts, store
from evaluate.tables.detail import write_details
from evaluate.tables.table import read_tables

SLIDES, CELLS, DIM, GENES = 6, 150, 10, 4


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, Benchmark]:
    """Features, and six slides of four patients; a gene is silent on the third slide."""
    rng = np.random.default_rng(0)
    count = SLIDES * CELLS
    slides = np.repeat([f"s{i}" for i in range(SLIDES)], CELLS)
    x = rng.normal(size=(count, DIM)) @ rng.normal(size=(DIM, DIM)) + 50
    x += rng.normal(0, 2, (SLIDES, DIM)).repeat(CELLS, axis=0)
    counts = rng.poisson(np.exp(0.2 * (x[:, :GENES] - 50))).astype(np.float32)
    counts[slides == "s2", 1] = 0
    owners = dict(zip([f"s{i}" for i in range(SLIDES)], ["a", "a", "b", "c", "", ""], strict=True))
    patients = np.array([owners[slide] for slide in slides.tolist()])
    return x.astype(np.float32), Benchmark(
        "genes",
        np.zeros((count, 2, 2, 3), np.uint8),
        np.full(count, ""),
        (),
        slides,
        "slide",
        batch_variables={"slide": slides, "patient": patients},
        targets=counts,
        target_names=tuple(f"G{i}" for i in range(GENES)),
    )


def refit(x: np.ndarray, y: np.ndarray, train: np.ndarray, alpha: float):
    """Return scikit-learn's scaler and ridge."""
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    features = scaler.transform(x[train].astype(np.float64))
    return scaler, Reference(alpha).fit(features, y[train].astype(np.float64))


@pytest.mark.parametrize("alpha", [1.0, 1e3])
def test_weights_and_correlations_are_scikit_learns(cells, alpha):
    x, data = cells
    x = x.copy()
    x[:, 5] = 3.25  # constant
    y = np.log1p(data.targets)
    slides, parts = np.unique(data.groups, return_inverse=True)
    ridge = Ridge(x, y, parts)
    for left_out in ([0], [2], [1, 3]):
        train = ~np.isin(parts, left_out)
        scaler, model = refit(x, y, train, alpha)
        weights = ridge.fit(left_out, [alpha])[0].numpy()
        np.testing.assert_allclose(weights.T * scaler.scale_, model.coef_, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(ridge.fit(left_out, [7.0, alpha])[1], weights, atol=1e-9)
        held = parts == left_out[0]
        guess = model.predict(scaler.transform(x[held].astype(np.float64)))
        for gene, r in enumerate(ridge.pearson(left_out[0], torch.from_numpy(weights)).tolist()):
            if slides[left_out[0]] == "s2" and gene == 1:
                assert np.isnan(r)
            else:
                assert r == pytest.approx(pearsonr(guess[:, gene], y[held, gene])[0], abs=1e-6)


def test_leaving_slides_and_patients_out(cells):
    x, data = cells
    found = regress(x, data, ["slide", "patient"], 10.0)
    assert found["slide"].folds == [f"s{i}" for i in range(SLIDES)]
    assert found["patient"].folds == ["a", "b", "c", "slide s4", "slide s5"]
    y = np.log1p(data.targets)
    scaler, model = refit(x, y, ~np.isin(data.groups, ["s0", "s1"]), 10.0)
    expected = []
    for slide in ("s0", "s1"):  # a patient's correlation is the mean over the slides
        held = data.groups == slide
        guess = model.predict(scaler.transform(x[held].astype(np.float64)))
        expected.append([pearsonr(guess[:, g], y[held, g])[0] for g in range(GENES)])
    np.testing.assert_allclose(found["patient"].values[0], np.mean(expected, axis=0), atol=1e-6)
    np.testing.assert_allclose(found["patient"].values[3], found["slide"].values[4], atol=1e-12)
    assert np.isnan(found["slide"].values).sum() == 1


def test_alpha_by_an_inner_split_is_the_best_on_the_other_slides(cells):
    x, data = cells
    data = data.take(np.flatnonzero(data.groups != "s2"))
    x = x[cells[1].groups != "s2"]
    found = regress(x, data, ["slide"], None)["slide"]
    y = np.log1p(data.targets)
    names = np.unique(data.groups)
    means = []
    for alpha in GRID:  # of the fold that leaves s0 out, by refitting
        inner = []
        for other in names[1:]:
            train = ~np.isin(data.groups, ["s0", other])
            scaler, model = refit(x, y, train, alpha)
            held = data.groups == other
            guess = model.predict(scaler.transform(x[held].astype(np.float64)))
            inner.append(np.mean([pearsonr(guess[:, g], y[held, g])[0] for g in range(GENES)]))
        means.append(np.mean(inner))
    assert found.strengths[0] == GRID[int(np.argmax(means))]


def test_origins_refuse_what_leaves_nothing_out(cells):
    _, data = cells
    one = data.take(np.flatnonzero(data.groups == "s0"))
    with pytest.raises(ValueError, match="there is only one"):
        slides_and_owners(one, "slide")
    apart = data.take(np.flatnonzero(np.isin(data.groups, ["s2", "s3", "s4"])))
    with pytest.raises(ValueError, match="each patient has one slide"):
        slides_and_owners(apart, "patient")
    assert Settings().plan(apart)[1].startswith("no patient folds")


def test_rows_and_genes(cells, tmp_path):
    x, data = cells
    settings = Settings(alpha=10.0)
    splits, absent = settings.plan(data)
    assert list(splits) == ["slide", "patient"] and absent is None
    rows, details = assess(x, data, splits, settings)
    assert [row["split"] for row in rows] == ["slide"] * 6 + ["patient"] * 5
    assert {row["metric"] for row in rows} == {"Pearson"}
    genes = details["slide"]["genes"]
    assert list(genes) == list(data.target_names) and genes["G1"][2] is None
    of_s0 = [column[0] for column in genes.values()]
    assert rows[0]["value"] == pytest.approx(np.mean(of_s0), abs=1e-5)
    facts = benchmark_facts(data, "genes", settings.protocol(data))
    store(tmp_path, data.name, facts, "mine", {}, rows, details=details)
    (path,) = write_details(tmp_path)
    values = [v for v in genes["G1"] if v is not None]
    assert f"G1,{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})" in path.read_text()
    tables = read_tables(tmp_path)
    assert [(t.split, t.metrics, t.mean.shape) for t in tables] == [
        ("slide", ("Pearson",), (1, 1)),
        ("patient", ("Pearson",), (1, 1)),
    ]
    assert "900 nuclei, 4 genes; each slide of 6 left out" in tables[0].caption
