"""`outliers`: the farthest cells are those of a plain search, whatever the blocks."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluate.analyses import cohort
from evaluate.analyses import outliers as module
from evaluate.analyses.cohort import open_parts
from evaluate.analyses.outliers import outliers
from evaluate.main import main


@pytest.fixture
def folder(tmp_path):
    """Embeddings of two data sets of 90 and 40 cells of five slides, two of them alike but far."""
    rng = np.random.default_rng(0)
    for name, count in (("a", 90), ("b", 40)):
        path = tmp_path / f"shards--{name}.npy"
        x = rng.normal(5, [1, 10, 0.1, 3], (count, 4)).astype(np.float32)
        x[[3, 4]] = 60 if name == "a" else x[[3, 4]]
        np.save(path, x)
        facts = {"encoder": {"name": "e"}, "shards": {"name": name}}
        path.with_suffix(".json").write_text(json.dumps(facts))
        slides = [f"{name}{i % (3 if name == 'a' else 2)}" for i in range(count)]
        table = pa.table({"slide": slides, "nucleus": pa.array(range(count), pa.int32())})
        pq.write_table(table, path.with_suffix(".keys.parquet"))
    return tmp_path


def plain(parts, k, other_slides):
    """Return every cell's key and distance, the farthest first."""
    x = np.concatenate([part.embeddings for part in parts]).astype(np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    keys = [(s, n) for p in parts for s, n in zip(p.slides.to_pylist(), p.nuclei, strict=True)]
    slides = np.array([s for s, _ in keys])
    distance = np.sqrt(np.square(z[:, None] - z).mean(axis=2))
    out = slides[:, None] == slides if other_slides else np.eye(len(z), dtype=bool)
    distance = np.sort(np.where(out, np.inf, distance), axis=1)[:, k - 1]
    order = np.argsort(-distance, kind="stable")
    return [keys[i] for i in order], distance[order]


@pytest.mark.parametrize(("rows", "queries"), [(7, 3), (50, 1024), (8192, 16)])
@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("other_slides", [False, True])
def test_the_farthest_are_a_plain_searchs(folder, rows, queries, k, other_slides, monkeypatch):
    monkeypatch.setattr(cohort, "BLOCK", rows)
    monkeypatch.setattr(module, "QUERIES", queries)
    parts = open_parts(folder, None)
    far = outliers(parts, 12, k, other_slides)
    keys, distances = plain(parts, k, other_slides)
    assert list(zip(far.slides, far.nuclei, strict=True)) == keys[:12]
    np.testing.assert_allclose(far.distances, distances[:12], rtol=1e-9)


def test_a_twin_does_not_hide_an_outlier_at_a_larger_k(folder):
    parts = open_parts(folder, None)
    pair = {("a0", 3), ("a1", 4)}
    first, fifth = (outliers(parts, 2, k) for k in (1, 5))
    assert not pair & set(zip(first.slides, first.nuclei, strict=True))
    assert pair == set(zip(fifth.slides, fifth.nuclei, strict=True))


def test_most_cells_are_given_up_early(folder, monkeypatch):
    monkeypatch.setattr(cohort, "BLOCK", 10)
    monkeypatch.setattr(module, "QUERIES", 5)
    far = outliers(open_parts(folder, None), 3, 1)
    assert far.compared < 0.6 * 130**2


@pytest.mark.parametrize(
    ("count", "k", "other_slides", "said"),
    [
        (131, 1, False, "there are 130 cells here"),
        (3, 130, False, "some have 129 others"),
        (3, 101, True, "some have 100 others"),
    ],
)
def test_too_few_cells_are_named(folder, count, k, other_slides, said):
    with pytest.raises(ValueError, match=said):
        outliers(open_parts(folder, None), count, k, other_slides)


def test_the_command_draws_them(cells, shards_folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "results"
    words = ["--encoder", "morphology", "--shards", str(shards_folder), "--out", str(out)]
    assert main(["embed", *words]) == 0
    words = ["--in", str(out / "embeddings/morphology"), "--out", str(out), "--count", "14"]
    assert main(["outliers", *words, "--shards", str(shards_folder)]) == 0
    table = next(out.rglob("outliers--morphology*.csv")).read_text().splitlines()
    assert len(table) == 15 and table[0] == "rank,slide,nucleus,distance"
    distances = [float(line.rsplit(",", 1)[1]) for line in table[1:]]
    assert distances == sorted(distances, reverse=True) and distances[0] > distances[-1]
    assert next(out.rglob("outliers--morphology*.png")).stat().st_size > 1000
    assert "14 of" in capsys.readouterr().out
    assert main(["outliers", *words, "--cells", str(cells)]) == 2  # embeddings of shards alone
