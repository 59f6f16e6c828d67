"""Moran's I against esda's numbers and the double sum; molecules found by key."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluate.analyses.molecules import from_file, from_targets
from evaluate.analyses.moran import graph, morans_i
from evaluate.benchmark import Benchmark
from evaluate.report.figures import read_table
from shards.schema import key


def example():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(120, 3))
    y = [x[:, 0] + 0.5 * rng.normal(size=120), rng.poisson(1.5, 120), np.sin(x[:, 1] * 2)]
    return x, np.stack(y, axis=1).astype(float)


def test_equals_esda():
    """esda 2.9.0, libpysal 4.14.1: Moran(y, KNN.from_array(x / sd, k=6), "r", 9999), one-tailed."""
    x, y = example()
    slides = np.full(120, "s")
    found = morans_i(graph(x, slides, 6), y, slides, 999, seed=1)
    np.testing.assert_allclose(
        found.observed, [0.6396237094125571, 0.02527646129541864, 0.5387413413126307], rtol=1e-6
    )
    # of permutations: within what 999 of them tell of 9,999
    np.testing.assert_allclose(found.z, [13.74, 0.74, 11.53], rtol=0.08, atol=0.05)
    assert found.p[0] == found.p[2] == 0.001
    assert found.p[1] == pytest.approx(0.2183, abs=0.04)
    assert found.p_adjusted[1] == found.p[1] and found.p_adjusted[0] == pytest.approx(0.0015)


def test_equals_the_double_sum_within_slides():
    x, y = example()
    slides = np.repeat(["a", "b", "c"], [60, 40, 20])
    weights = graph(x, slides, 4)
    dense, z = np.zeros((120, 120)), np.zeros(y.shape)
    for slide in "abc":
        rows = np.flatnonzero(slides == slide)
        scaled = (x[rows] - x[rows].mean(0)) / x[rows].std(0)
        distance = ((scaled[:, None] - scaled) ** 2).sum(axis=2)
        np.fill_diagonal(distance, np.inf)
        for i, near in zip(rows, np.argsort(distance, axis=1)[:, :4], strict=True):
            dense[i, rows[near]] = 1 / 4
        z[rows] = (y[rows] - y[rows].mean(0)) / y[rows].std(0)
    np.testing.assert_allclose(weights.toarray(), dense)
    sums = [
        sum(dense[i, j] * z[i, t] * z[j, t] for i in range(120) for j in range(120))
        for t in range(3)
    ]
    expected = np.array(sums) / (z**2).sum(axis=0)
    np.testing.assert_allclose(morans_i(weights, y, slides, 9).observed, expected, rtol=1e-6)


def test_shuffled_values_have_uniform_p_values():
    rng = np.random.default_rng(0)
    x, slides = rng.normal(size=(150, 4)), np.full(150, "s")
    y = rng.exponential(size=(150, 300))
    p = morans_i(graph(x, slides, 5), y, slides, 99, seed=3).p
    assert p.min() >= 0.01
    assert 0.02 <= (p <= 0.05).mean() <= 0.09 and 0.42 < np.mean(p) < 0.58


def test_what_does_not_vary_has_no_index():
    x, y = example()
    slides = np.full(120, "s")
    y[:, 1] = 0.1
    found = morans_i(graph(x, slides, 5), y, slides, 19)
    assert np.isnan(found.observed[1]) and np.isnan(found.p[1]) and np.isnan(found.p_adjusted[1])
    assert np.isfinite(found.p_adjusted[[0, 2]]).all()


def test_a_slide_differing_as_a_whole_counts_for_nothing():
    rng = np.random.default_rng(0)
    slides = np.repeat(["a", "b"], 80)
    x, y = rng.normal(size=(160, 3)), rng.normal(size=(160, 1))
    x[80:] += 9
    y[80:] += 9
    assert abs(morans_i(graph(x, slides, 6), y, slides, 9).observed[0]) < 0.15
    with pytest.raises(ValueError, match="80 cells, too few for 80"):
        graph(x, slides, 80)


def samples_of(count):
    crops, none = np.zeros((count, 8, 8, 3), np.uint8), np.full(count, "")
    slides = {"slide": np.array(["S1", "S2"])[np.arange(count) % 2]}
    return Benchmark("m", crops, none, (), np.full(count, "P"), "project", batch_variables=slides)


def test_values_are_joined_by_key_and_by_slide_and_nucleus(tmp_path):
    samples, nuclei = samples_of(6), np.arange(6) * 10
    keys = [
        key(s, n) for s, n in zip(samples.batch_variables["slide"], nuclei.tolist(), strict=True)
    ]
    order = [4, 2, 0, 5, 1]  # another order, and one cell absent
    columns = {"EPCAM": [float(i) for i in order], "CD3E": [1, 2, None, 4, 5]}
    table = pa.table({"key": [keys[i] for i in order], "x": [0.0] * 5, **columns})
    pq.write_table(table, tmp_path / "v.parquet")
    with open(tmp_path / "v.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slide", "nucleus", "EPCAM", "CD3E"])
        for i, e, c in zip(order, columns["EPCAM"], columns["CD3E"], strict=True):
            writer.writerow(
                [samples.batch_variables["slide"][i], nuclei[i], e, "" if c is None else c]
            )
    for name in ("v.parquet", "v.csv"):
        found = from_file(tmp_path / name, samples, nuclei, log1p=False)
        assert found.names == ("EPCAM", "CD3E") and found.rows.tolist() == [1, 2, 4, 5]
        np.testing.assert_array_equal(found.values, [[1, 5], [2, 2], [4, 1], [5, 4]])
    logged = from_file(tmp_path / "v.csv", samples, nuclei, log1p=True)
    np.testing.assert_allclose(logged.values, np.log1p(found.values))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,G\na,1\n", "no column `key`"),
        ("key,label\nS1_0000000,a\n", "no column of numbers"),
        ("key,G\nS9_0000000,1\n", "none of the 2 cells"),
        ("key,G\nS1_0000000,1\nS1_0000000,2\n", "1 cells stand there twice"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        from_file(tmp_path / "v.csv", samples_of(2), np.array([0, 1]), False)


def test_counts_of_a_benchmark_are_logged():
    samples = samples_of(3)
    counts = np.array([[0, 3], [1, 0], [2, 9]], np.float32)
    genes = Benchmark(
        "g", samples.crops, samples.labels, (), samples.groups, targets=counts,
        target_names=("A", "B"),
    )  # fmt: skip
    found = from_targets(genes)
    assert found.names == ("A", "B") and found.what == "genes"
    np.testing.assert_allclose(found.values, np.log1p(counts))


def test_the_command_on_cells_with_a_table_of_values(run_stage, cells, tmp_path):
    """What the extract stage measured stands in for genes: its own tables say it by key."""
    tables = []
    for path in sorted(cells.glob("*.parquet")):
        table = pq.read_table(
            path, columns=["nucleus", "area_um2", "haematoxylin_mean", "eosin_mean"]
        )
        tables.append(table.append_column("slide", pa.array([path.stem] * len(table))))
    pq.write_table(pa.concat_tables(tables), tmp_path / "v.parquet")
    out = tmp_path / "r"
    words = ["molecules", "--cells", cells, "--encoder", "morphology", "--out", out]
    done = run_stage("evaluate/main.py", *words, "--values", tmp_path / "v.parquet",
                     "--permutations", 19, "--markers", "eosin_mean", "area_um2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, rows = read_table(out / f"tables/moran--{cells.name}.csv")
    assert header == ["value", "I, morphology", "p, morphology"]
    assert sorted(row[0] for row in rows) == ["area_um2", "eosin_mean", "haematoxylin_mean"]
    of = {row[0]: float(row[1]) for row in rows}
    assert of["area_um2"] > 0.4  # an embedding that measures the area gathers it
    assert (out / f"figures/expression--morphology--{cells.name}.svg").stat().st_size > 10_000
    done = run_stage("evaluate/main.py", *words, "--values", tmp_path / "v.parquet",
                     "--markers", "CD8A")  # fmt: skip
    assert done.returncode == 2 and "--markers CD8A: there are" in done.stderr


def test_values_as_other_programs_write_them(tmp_path, caplog):
    """Semicolons, an index, a decimal comma, R's NA; a column of words is said, not lost."""
    path = tmp_path / "v.csv"
    path.write_text(";Slide;nucleus;CD3;site\n0;a;0;1,5;x\n1;a;1;NA;y\n2;a;2;2;x\n")
    samples = samples_of(3)
    samples.batch_variables["slide"] = np.array(["a"] * 3)
    found = from_file(path, samples, np.arange(3), log1p=False)
    assert found.names == ("CD3",) and found.values.tolist() == [[1.5], [2.0]]
    assert found.rows.tolist() == [0, 2]
    assert "columns that are not numbers are passed over: site" in caplog.text
