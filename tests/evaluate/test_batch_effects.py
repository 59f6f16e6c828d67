"""Batch effects: predictions of batch variables agree with scikit-learn, slides kept apart."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluate.analyses.batch_effects import (
    _draw,
    _slide_folds,
    batch_variables,
    class_score,
    effects,
    knn_purity,
)
from evaluate.analyses.neighbours import nearest, standardise
from evaluate.benchmark import Benchmark
from evaluate.commands.batch import read_variables
from evaluate.report.figures import read_table

SITES, SLIDES, CELLS, D = 3, 4, 40, 8


def cohort(seed=0, site=0.0, slide=0.0, kind=3.0):
    """Vectors of 3 sites x 4 slides x 40 cells of two classes, moved by site, slide and class."""
    rng = np.random.default_rng(seed)
    n = SITES * SLIDES * CELLS
    site_of = np.repeat(np.arange(SITES), SLIDES * CELLS)
    slide_of = np.repeat(np.arange(SITES * SLIDES), CELLS)
    labels = np.array(["a", "b"])[np.arange(n) % 2]
    x = rng.normal(size=(n, D))
    x += site * rng.normal(size=(SITES, D))[site_of]
    x += slide * rng.normal(size=(SITES * SLIDES, D))[slide_of]
    x[:, 0] += kind * (labels == "b")
    names = np.array(
        [f"TCGA-{'XYZ'[s]}1-{i:04d}-01Z" for i, s in zip(slide_of, site_of, strict=True)]
    )
    samples = Benchmark(
        "made", np.zeros((n, 8, 8, 3), np.uint8), labels, ("a", "b"), names, "slide"
    )
    return x.astype(np.float32), samples


def measured(x, samples, kind):
    kinds, slides = batch_variables(samples)
    found = effects(x, samples, kind, kinds[kind], slides, samples.labels)
    assert [e.stratum for e in found] == ["a", "b"]
    return found


def test_site_is_the_barcodes_second_field():
    _, samples = cohort()
    kinds, slides = batch_variables(samples, {"scanner": {samples.groups[0]: "GT450"}})
    assert set(kinds) == {"slide", "site", "scanner"}
    assert set(kinds["site"]) == {"X1", "Y1", "Z1"}
    assert (kinds["scanner"] == "GT450").sum() == CELLS and (slides == samples.groups).all()


def test_without_an_effect_nothing_is_predicted():
    for kind in ("slide", "site"):
        for effect in measured(*cohort(), kind):
            assert abs(effect.accuracy_adjusted) < 0.15 and abs(effect.purity_adjusted) < 0.05


def test_an_effect_of_the_site_is_predicted():
    for effect in measured(*cohort(site=4.0), "site"):
        assert effect.accuracy_adjusted > 0.9 and effect.purity_adjusted > 0.8


def test_slides_do_not_pass_for_their_site():
    """Slides that differ a lot tell the site to a probe that has seen them, not to ours."""
    x, samples = cohort(slide=3.0)
    sites = batch_variables(samples)[0]["site"]
    naive = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)), x, sites,
        cv=StratifiedKFold(5, shuffle=True, random_state=0), scoring="balanced_accuracy",
    )  # fmt: skip
    assert naive.mean() > 0.8
    for effect in measured(x, samples, "site"):
        assert effect.probe < 0.6 and effect.purity_adjusted < 0.25
    for effect in measured(x, samples, "slide"):
        assert effect.accuracy_adjusted > 0.8


def test_the_probe_is_scikit_learns():
    x, samples = cohort(site=0.4, slide=0.4)
    kinds, slides = batch_variables(samples)
    effect = measured(x, samples, "site")[0]
    rows = _draw(np.flatnonzero(samples.labels == "a"), kinds["site"], slides, 100, 0)
    levels = kinds["site"][rows]
    asked = Benchmark("x", samples.crops[rows], levels, ("X1", "Y1", "Z1"), slides[rows])
    scores = []
    for test in _slide_folds(asked, 0):
        train = np.setdiff1d(np.arange(len(rows)), test)
        assert not set(slides[rows[test]]) & set(slides[rows[train]])
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-6, max_iter=5000))
        model.fit(x[rows[train]], levels[train])
        scores.append(balanced_accuracy_score(levels[test], model.predict(x[rows[test]])))
    assert effect.folds == len(scores) == SLIDES and effect.cells == len(rows)
    assert effect.probe == pytest.approx(np.mean(scores), abs=0.01)


def test_purity_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 5)).astype(np.float32)
    levels = np.array(["a", "b", "b"])[rng.integers(0, 3, 150)]
    slides = np.char.add(levels, rng.integers(0, 3, 150).astype(str))
    distance = ((x[:, None].astype(np.float64) - x) ** 2).sum(axis=2)
    shares, chances = {"a": [], "b": []}, {"a": [], "b": []}
    for i in range(150):
        others = np.flatnonzero(slides != slides[i])
        near = others[np.argsort(distance[i, others])[:10]]
        shares[levels[i]].append(np.mean(levels[near] == levels[i]))
        chances[levels[i]].append(np.mean(levels[others] == levels[i]))
    expected = [np.mean([np.mean(part[name]) for name in "ab"]) for part in (shares, chances)]
    np.testing.assert_allclose(knn_purity(x, levels, slides, 10), expected, atol=1e-6)


def test_neighbours_are_scikit_learns_whatever_the_block(monkeypatch):
    x = np.random.default_rng(0).normal(5, 2, (300, 12)).astype(np.float32)
    _, expected = NearestNeighbors(n_neighbors=8, algorithm="brute").fit(
        x.astype(np.float64)
    ).kneighbors()  # fmt: skip
    np.testing.assert_array_equal(nearest(x, 8), expected)
    monkeypatch.setattr("evaluate.analyses.neighbours.BLOCK_BYTES", 4 * 300 * 7)
    np.testing.assert_array_equal(nearest(x, 8), expected)
    with pytest.raises(ValueError, match="has 299 others"):
        nearest(x, 300)


def test_standardised_is_scikit_learns_but_constants_are_zero():
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    np.testing.assert_allclose(standardise(x[:20], x), StandardScaler().fit(x).transform(x[:20]),
                               atol=1e-5)  # fmt: skip
    x[:, 2] = 7
    assert (standardise(x)[:, 2] == 0).all()


def test_the_class_is_scored_on_whole_slides():
    x, samples = cohort()
    score, words = class_score(x, samples, samples.groups)
    assert score > 0.85 and words == "slides kept whole"


def test_the_command_writes_tables_and_a_figure(run_stage, own, tmp_path):
    (tmp_path / "s.csv").write_text(
        "slide,scanner\n" + "".join(f"g{i},{'AB'[i % 2]}\n" for i in range(6))
    )
    words = ["--benchmark", own, "--encoder", "morphology", "--variables", tmp_path / "s.csv"]
    done = run_stage("evaluate/main.py", "batch", *words, "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    header, rows = read_table(tmp_path / "r/tables/batch--own.csv")
    of = [dict(zip(header, row, strict=True)) for row in rows]
    # images and groups are the same
    assert [row["batch variable"] for row in of] == ["group", "scanner"]
    assert float(of[1]["by chance"]) == 0.5 and 0 <= float(of[1]["balanced accuracy"]) <= 1
    for path in ("figures/batch--own.svg", "tables/batch-classes--own.csv", "commands"):
        assert (tmp_path / "r" / path).stat().st_size
    done = run_stage("evaluate/main.py", "batch", *words[:4], "--within", "x", "--out", tmp_path)
    assert done.returncode == 2 and "known are group" in done.stderr


def test_bad_lists_of_variables_are_named(tmp_path):
    path = tmp_path / "o.csv"
    path.write_text("slide,scanner\na,X\na,Y\n")
    with pytest.raises(ValueError, match="line 3 names slide 'a' a second time"):
        read_variables(path)
    path.write_text("name,scanner\na,X\n")
    with pytest.raises(ValueError, match="no column 'slide'; found name, scanner"):
        read_variables(path)
    _, samples = cohort()
    with pytest.raises(ValueError, match="is a slide of made"):
        batch_variables(samples, {"scanner": {"zzz": "X"}})
