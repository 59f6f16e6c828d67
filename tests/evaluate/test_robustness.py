"""Robustness to staining: measures and probe against scikit-learn and plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evaluate import main
from evaluate.analyses.neighbours import nearest
from evaluate.analyses.reference_stains import stains_of, tcga_stains
from evaluate.analyses.robustness import overlap, restained, shifted_probe, slide_stains, stability
from evaluate.benchmarks.find import find_benchmark
from evaluate.probes.probe import folds
from evaluate.report.figures import read_table
from shards.stain import MIN_DENSITY, REFERENCE_MAX, WHITE
from train.stain_transform import fit


def test_measures_are_scikit_learns_and_plain_loops():
    rng = np.random.default_rng(0)
    a = rng.normal(3, [1, 5, 0.2, 2], (200, 4)).astype(np.float32)
    b = a + rng.normal(0, 0.3, a.shape).astype(np.float32)
    found = stability(a, b, 15)
    scaler = StandardScaler().fit(a.astype(np.float64))
    za, zb = scaler.transform(a), scaler.transform(b)
    assert found.rmse == pytest.approx(np.sqrt(np.mean((za - zb) ** 2)), rel=1e-5)
    cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(za, zb, strict=True)]
    assert found.cosine == pytest.approx(np.mean(cosines), rel=1e-5)
    near = [
        NearestNeighbors(n_neighbors=15, algorithm="brute").fit(z).kneighbors()[1] for z in (za, zb)
    ]
    shares = [len(set(x) & set(y)) / 15 for x, y in zip(*near, strict=True)]
    assert found.overlap == pytest.approx(np.mean(shares), abs=1e-4)


def test_the_same_embedding_has_not_moved_and_another_has_nothing_in_common():
    a = np.random.default_rng(0).normal(size=(400, 16)).astype(np.float32)
    same = stability(a, a, 20)
    assert (same.rmse, same.overlap) == (0, 1) and same.cosine == pytest.approx(1)
    other = stability(a, np.random.default_rng(1).normal(size=a.shape).astype(np.float32), 20)
    assert other.rmse == pytest.approx(np.sqrt(2), abs=0.05)  # as the paper's scale has it
    assert abs(other.cosine) < 0.03 and other.overlap == pytest.approx(20 / 399, abs=0.02)


def test_overlap_counts_what_two_lists_share():
    assert overlap(np.array([[1, 2, 3], [4, 5, 6]]), np.array([[3, 9, 1], [7, 8, 9]])) == 1 / 3
    x = np.random.default_rng(0).normal(size=(50, 3))
    assert overlap(nearest(x, 5), nearest(x, 5)[:, ::-1]) == 1


def test_a_cell_is_restained_by_the_formula(benchmark):
    """One slide's cells by Macenko's formula in numpy: unmix, scale, mix."""
    slides = benchmark.groups
    sources, _ = slide_stains(benchmark, slides)
    assert set(sources) == set(slides.tolist())
    target = tcga_stains()["E2-A14V"]
    changed = restained(benchmark, slides, sources, "t", target)
    assert changed.name == "own--t" and (changed.labels == benchmark.labels).all()
    rows = np.flatnonzero(slides == "g2")[:3]
    source = sources["g2"]
    density = -np.log((benchmark.crops[rows].astype(np.float64) + 1) / WHITE)
    scale = target.max_concentration / np.maximum(source.max_concentration, 0.1 * REFERENCE_MAX)
    mixed = density @ np.linalg.pinv(source.matrix) * scale @ target.matrix
    expected = np.clip(WHITE * np.exp(-mixed) - 1, 0, 255)
    np.testing.assert_allclose(changed.crops[rows], expected, atol=0.51)
    assert np.abs(changed.crops.astype(int) - benchmark.crops).mean() > 2


def test_slides_that_do_not_tell_their_stains_take_those_of_all(benchmark):
    slides = benchmark.groups.copy()
    alone = np.flatnonzero(slides == "g2")[:1]
    slides[alone] = "x"
    crops = benchmark.crops.copy()
    crops[alone] = (120, 60, 130)  # flat
    crops = replace(benchmark, crops=crops)
    sources, said = slide_stains(crops, slides)
    together = fit(torch.from_numpy(crops.crops).permute(0, 3, 1, 2))
    assert sources["x"].fallback and said.startswith("of ")
    known = "the reference's" if together.fallback else "those of all crops together"
    assert said.endswith(known)
    np.testing.assert_array_equal(sources["x"].matrix, together.matrix)


@pytest.mark.parametrize("name", ["consep", "ami-br"])
def test_few_slides_of_the_benchmarks_do_not_tell_their_stains(data, name):
    """Before Ruifrok's eosin counted as one, 39 of AMi-Br's 101 were refused."""
    samples = find_benchmark(data / name)
    sources, said = slide_stains(samples, samples.groups)
    ill = [slide for slide, stain in sources.items() if stain.fallback]
    assert "those of all crops together" in said
    assert len(ill) == {"consep": 22, "ami-br": 4}[name], said


def test_restaining_by_a_slides_own_stain_changes_what_is_no_stain_only(benchmark):
    slides = np.full(len(benchmark), "one")
    sources, _ = slide_stains(benchmark, slides)
    back = restained(benchmark, slides, sources, "own", sources["one"])
    density = -np.log((benchmark.crops.astype(np.float64) + 1) / WHITE)
    plane = np.linalg.pinv(sources["one"].matrix) @ sources["one"].matrix
    expected = np.clip(WHITE * np.exp(-(density @ plane)) - 1, 0, 255)
    np.testing.assert_allclose(back.crops, expected, atol=0.51)


def test_six_stains_are_stored_each_plausible_and_its_own():
    stains = tcga_stains()
    assert len(stains) == 6 == len({name[:2] for name in stains})  # six tissue source sites
    for stain in stains.values():
        np.testing.assert_allclose(np.linalg.norm(stain.matrix, axis=1), 1)
        assert stain.matrix[0, 0] > stain.matrix[1, 0]  # haematoxylin takes more red


def test_the_stored_stains_are_those_of_their_fields(data):
    paths = sorted((data / "tcga-mini" / "slides").glob("*.svs"))
    for name, stored in tcga_stains().items():
        (path,) = [p for p in paths if p.name.startswith(f"TCGA-{name}")]
        (found,) = stains_of([path]).values()
        np.testing.assert_allclose(found.matrix, stored.matrix, atol=1e-4)
        np.testing.assert_allclose(found.max_concentration, stored.max_concentration, atol=1e-4)


def test_references_that_will_not_do_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no reference at"):
        stains_of([tmp_path / "absent.png"])
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match="neither as a slide nor as an image"):
        stains_of([tmp_path / "a.png"])
    Image.new("RGB", (60, 60), "white").save(tmp_path / "white.png")
    with pytest.raises(ValueError, match="no haematoxylin and eosin"):
        stains_of([tmp_path / "white.png"])
    assert MIN_DENSITY > 0


@pytest.mark.parametrize("components", [None, 3])
def test_the_shifted_probe_is_scikit_learns(benchmark, components):
    labelled = benchmark.take(np.flatnonzero(benchmark.labels != ""))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(labelled), 6)).astype(np.float32)
    x[:, 1] += 1.5 * (labelled.labels == labelled.classes[1])
    x[:, 2] *= 4  # what a PCA takes first
    y = x + rng.normal(0, 1, 6).astype(np.float32)
    tests = folds(labelled, "stratified", 4, 0)
    found = shifted_probe(x, {"original": x, "shifted": y}, labelled, tests, components)
    for i, test in enumerate(tests):
        train = np.setdiff1d(np.arange(len(x)), test)
        model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=5000))
        inputs = {"original": x, "shifted": y}
        if components:
            from sklearn.decomposition import PCA

            pca = PCA(components, svd_solver="randomized", random_state=0).fit(x[train])
            inputs = {name: pca.transform(values) for name, values in inputs.items()}
        model.fit(inputs["original"][train], labelled.labels[train])
        for name, values in inputs.items():
            expected = balanced_accuracy_score(labelled.labels[test], model.predict(values[test]))
            assert found[name][i] == pytest.approx(expected, abs=0.02)


def test_the_command_writes_the_papers_table_and_figures(run_stage, own, tmp_path):
    words = ["--benchmark", own, "--encoder", "morphology", "--neighbours", 20, "--folds", 3]
    done = run_stage("evaluate/main.py", "robustness", *words, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    header, ((encoder, *values),) = read_table(tmp_path / "tables/robustness--own.csv")
    assert header == ["encoder", "RMSE", "cosine similarity", "neighbourhood overlap"]
    assert encoder == "morphology" and float(values[0]) > 0.05
    header, rows = read_table(tmp_path / "tables/robustness-probe--own.csv")
    assert header[1] == "original" and len(header) == 9 and len(rows) == 1
    _, each = read_table(tmp_path / "tables/robustness-stains--own.csv")
    assert np.mean([float(row[2]) for row in each]) == pytest.approx(float(values[0]), abs=1e-3)
    for name in ("restained--own", "robustness-probe--own"):
        assert (tmp_path / f"figures/{name}.svg").stat().st_size > 5000
    done = run_stage("evaluate/main.py", "robustness", *words[:4], "--neighbours", 500,
                     "--out", tmp_path)  # fmt: skip
    assert done.returncode == 2 and "take fewer than 500 --neighbours" in done.stderr


def test_cells_without_labels_are_restained_by_slide_and_not_probed(cells, tmp_path, capsys):
    words = ["robustness", "--cells", str(cells), "--points", "120", "--encoder", "morphology"]
    assert main.main([*words, "--neighbours", "20", "--out", str(tmp_path)]) == 0
    (_, ((_, *values),)) = read_table(tmp_path / f"tables/robustness--{cells.name}.csv")
    assert float(values[0]) > 0.05 and 0 < float(values[2]) < 1
    said = capsys.readouterr().out
    assert f"120 nuclei of {cells.name}" in said and "each of 2 slides'" in said, said
    assert not list(tmp_path.glob("tables/robustness-probe*"))
    assert not (tmp_path / "embeddings").exists()  # of a sample, so not kept


def test_restaining_forgets_shared_embeddings(benchmark):
    """Embeddings of a task come from the benchmark it is a part of; a restained one has its own."""
    rows = np.arange(len(benchmark))
    task = replace(benchmark, part_of=benchmark, rows=rows)
    sources, _ = slide_stains(task, task.groups)
    changed = restained(task, task.groups, sources, "t", tcga_stains()["AY-A8YK"])
    assert changed.part_of is None and changed.sha256 != task.sha256
