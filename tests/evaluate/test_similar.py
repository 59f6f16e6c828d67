"""`similar`: the nearest cells are those of a plain search, whatever the size of a block."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluate.analyses import cohort
from evaluate.analyses.cohort import open_parts
from evaluate.analyses.similar import read_cell, similar


@pytest.fixture
def folder(tmp_path):
    """Embeddings of two data sets of 90 and 40 cells of three slides."""
    rng = np.random.default_rng(0)
    for name, count in (("a", 90), ("b", 40)):
        path = tmp_path / f"shards--{name}.npy"
        np.save(path, rng.normal(5, [1, 10, 0.1, 3], (count, 4)).astype(np.float32))
        facts = {"encoder": {"name": "e"}, "shards": {"name": name}}
        path.with_suffix(".json").write_text(json.dumps(facts))
        slides = [f"{name}{i % 3}" for i in range(count)]
        table = pa.table({"slide": slides, "nucleus": pa.array(range(count), pa.int32())})
        pq.write_table(table, path.with_suffix(".keys.parquet"))
    return tmp_path


@pytest.mark.parametrize("block", [7, 8192])
@pytest.mark.parametrize("others", [False, True])
def test_the_nearest_are_a_plain_searchs(folder, block, others, monkeypatch):
    monkeypatch.setattr(cohort, "BLOCK", block)
    parts = open_parts(folder, None)
    x = np.concatenate([part.embeddings for part in parts]).astype(np.float64)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    keys = [(s, n) for p in parts for s, n in zip(p.slides.to_pylist(), p.nuclei, strict=True)]
    for wanted, near in zip(
        [("a1", 4), ("b0", 9)], similar(parts, [("a1", 4), ("b0", 9)], 6, others), strict=True
    ):
        row = keys.index(wanted)
        distance = np.sqrt(np.square(z - z[row]).mean(axis=1))
        out = [k[0] == wanted[0] if others else k == wanted for k in keys]
        order = np.argsort(np.where(out, np.inf, distance))[:6]
        assert list(zip(near.slides, near.nuclei, strict=True)) == [keys[i] for i in order]
        np.testing.assert_allclose(near.distances, distance[order], rtol=1e-4)


@pytest.mark.parametrize(
    ("wanted", "k", "said"),
    [(("a1", 5), 3, "no such cell"), (("a1", 4), 130, "has 129 others here, not 130")],
)
def test_what_cannot_be_found_is_named(folder, wanted, k, said):
    with pytest.raises(ValueError, match=said):
        similar(open_parts(folder, None), [wanted], k)


def test_arrays_of_two_encoders_and_other_words_are_refused(folder):
    with pytest.raises(FileNotFoundError, match="no embeddings of slides"):
        open_parts(folder, folder)
    path = folder / "shards--b.json"
    path.write_text(json.dumps({"encoder": {"name": "x"}, "shards": {"name": "b"}}))
    with pytest.raises(ValueError, match="of another encoder"):
        open_parts(folder, None)
    for word in ("a1", "a1:x", "../a:3"):
        with pytest.raises(ValueError, match="SLIDE:NUCLEUS"):
            read_cell(word)
