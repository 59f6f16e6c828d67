"""Selections: nested, balanced, without the patients of a benchmark; and mixing them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.exclusion import case
from shards.mix.mix import mix
from shards.read import Shards
from shards.selection import _quotas, select
from tests.shards.test_mix import write_cells

COUNTS = [5, 8, 12, 20, 30, 45, 60, 80]


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Eight slides of 5 to 80 cells, of four patients in three projects."""
    names = [f"TCGA-0{i % 3}-AAA{i % 4}-01Z-00-DX{i}" for i in range(8)]
    slides = {
        name: [i % 6] * count for i, (name, count) in enumerate(zip(names, COUNTS, strict=True))
    }
    folder = tmp_path_factory.mktemp("select")
    return write_cells(folder, slides, project=lambda slide: f"P{slide[6]}")


def chosen(path: Path) -> set[tuple[str, int]]:
    """Return a selection's cells, which must be different ones."""
    table = pq.read_table(path).to_pylist()
    found = {(row["slide"], row["nucleus"]) for row in table}
    assert len(found) == len(table)
    return found


def by_slide(found: set[tuple[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for slide, _ in found:
        counts[slide] = counts.get(slide, 0) + 1
    return counts


@pytest.mark.parametrize("balance", ["slide", "project", "none"])
def test_selections_are_nested(cells, tmp_path, balance):
    sets = []
    for count in (1, 10, 11, 50, 100, 199, 260):
        select(cells, tmp_path / "s.parquet", count, balance=balance, seed=3)
        sets.append(chosen(tmp_path / "s.parquet"))
        assert len(sets[-1]) == count
    assert all(a < b for a, b in pairwise(sets))
    select(cells, tmp_path / "s.parquet", 50, balance=balance, seed=4)
    assert chosen(tmp_path / "s.parquet") != sets[3]


def test_slides_and_projects_are_nested(cells, tmp_path):
    slides = []
    for count in range(1, 9):
        select(cells, tmp_path / "s.parquet", 5, slides=count, balance="slide", seed=1)
        slides.append(set(by_slide(chosen(tmp_path / "s.parquet"))))
        assert len(slides[-1]) == min(count, 5)
        full = select(cells, tmp_path / "f.parquet", 5, slides=count, balance="none", seed=1)
        assert full["slides"] <= count
    projects = []
    for count in (1, 2, 3):
        facts = select(cells, tmp_path / "s.parquet", 20, slides=3, projects=count, balance="slide")
        projects.append(set(facts["projects"]))
        assert len(projects[-1]) == count
        assert facts["slides"] == 3
    assert projects[0] < projects[1] < projects[2]


def test_balance_by_slide_and_project(cells, tmp_path):
    select(cells, tmp_path / "s.parquet", 100, balance="slide")
    counts = sorted(by_slide(chosen(tmp_path / "s.parquet")).values())
    assert counts == [5, 8, 12, 15, 15, 15, 15, 15]  # the poor give all, the rest share
    select(cells, tmp_path / "p.parquet", 100, balance="project")
    projects: dict[str, int] = {}
    for slide, count in by_slide(chosen(tmp_path / "p.parquet")).items():
        projects[slide[6]] = projects.get(slide[6], 0) + count
    assert sorted(projects.values()) == [33, 33, 34]
    select(cells, tmp_path / "n.parquet", 130, balance="none", seed=2)
    counts = by_slide(chosen(tmp_path / "n.parquet"))
    richest = max(counts.values())
    assert 25 <= richest <= 55  # half of the cells of the slide with 80, give or take


@settings(max_examples=200)
@given(supplies=st.lists(st.integers(1, 50), min_size=1, max_size=12), data=st.data())
def test_quotas_are_even_whole_and_nested(supplies, data):
    slides = [{"slide": f"S{i}", "cells": n} for i, n in enumerate(supplies)]
    groups = [s["slide"] for s in slides]
    count = data.draw(st.integers(1, sum(supplies)))
    quotas = _quotas(slides, groups, count, 0, 0)
    assert sum(quotas.values()) == count
    assert all(0 <= quotas[g] <= n for g, n in zip(groups, supplies, strict=True))
    not_all = [quotas[g] for g, n in zip(groups, supplies, strict=True) if quotas[g] < n]
    assert not not_all or max(quotas.values()) - min(not_all) <= 1
    if count < sum(supplies):
        more = _quotas(slides, groups, count + 1, 0, 0)
        assert all(quotas[g] <= more[g] for g in groups)


def test_cells_within_a_slide_are_drawn_at_random(tmp_path):
    cells = write_cells(tmp_path / "cells", {"A": [0] * 2000})
    select(cells, tmp_path / "s.parquet", 500)
    nuclei = np.array([n for _, n in chosen(tmp_path / "s.parquet")])
    assert abs(nuclei.mean() / 1500 - 1) < 0.1
    assert len(np.unique(nuclei // 300)) == 10


# ---- leaving patients out ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TCGA-A2-A0D0-01Z-00-DX1", "TCGA-A2-A0D0"),
        ("tcga-a2-a0d0-DX1.uuid.svs", "TCGA-A2-A0D0"),
        ("TCGA-A2-A0D0", "TCGA-A2-A0D0"),
        ("my slide 1", "my slide 1"),
    ],
)
def test_case_is_the_first_three_fields(name, expected):
    assert case(name) == expected


def test_cases_are_left_out_with_all_their_slides(cells, tmp_path, caplog):
    caplog.set_level("INFO")
    listed = tmp_path / "list.txt"
    # NuCLS names its slides so; the third is of nobody here.
    listed.write_text("# NuCLS\nTCGA-00-AAA0-DX1\n\ntcga-01-aaa1  # lower case\nTCGA-ZZ-ZZZZ\n")
    facts = select(cells, tmp_path / "s.parquet", 100, exclude=listed)
    out = {"TCGA-00-AAA0-01Z-00-DX0", "TCGA-01-AAA1-01Z-00-DX1"}
    assert set(facts["excluded_slides"]) == out
    assert not out & set(by_slide(chosen(tmp_path / "s.parquet")))
    assert "2 of its 3 cases are here, 2 slides left out" in caplog.text


# ---- following a selection -----------------------------------------------------------------------


def test_mix_follows_a_selection(cells, tmp_path):
    select(cells, tmp_path / "s.parquet", 70, slides=6, balance="slide")
    info = mix(cells, tmp_path / "out", 20, 0, selection=tmp_path / "s.parquet")
    assert info["samples"] == 70
    shards = Shards(tmp_path / "out")
    found = {(r["slide"], r["nucleus"]) for r in shards.index.to_pylist()}
    assert found == chosen(tmp_path / "s.parquet")
    select(cells, tmp_path / "s.parquet", 71, slides=6, balance="slide")
    with pytest.raises(ValueError, match="other cells or settings"):
        mix(cells, tmp_path / "out", 20, 0, selection=tmp_path / "s.parquet")
    everything = mix(cells, tmp_path / "all", 20, 0)
    whole = pa.Table.from_pylist(
        [
            {"slide": r["slide"], "nucleus": r["nucleus"]}
            for r in Shards(tmp_path / "all").index.to_pylist()
        ]
    )
    pq.write_table(whole, tmp_path / "whole.parquet")  # anyone's file with these two columns
    same = mix(cells, tmp_path / "same", 20, 0, selection=tmp_path / "whole.parquet")
    assert [s["sha256"] for s in same["shards"]] == [s["sha256"] for s in everything["shards"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "an empty selection"),
        ({"count": 261}, "the 8 chosen slides hold 260"),
        ({"count": 5, "slides": 9}, "there are 8 to choose from"),
        ({"count": 5, "slides": 0}, "--slides 0"),
        ({"count": 5, "projects": 4}, "--projects 4: there are 3"),
        ({"count": 5, "slides": 2, "projects": 3}, "each of 3 projects needs one"),
        ({"count": 5, "balance": "organ"}, "--balance organ"),
    ],
)
def test_what_cannot_be_chosen_is_named(cells, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        select(cells, tmp_path / "s.parquet", **arguments)
    assert not (tmp_path / "s.parquet").exists()


def test_slides_without_a_project_are_named(tmp_path):
    cells = write_cells(tmp_path / "cells", {"A": [0], "B": [1]}, project=lambda slide: None)
    assert select(cells, tmp_path / "s.parquet", 1, slides=1)["projects"] == []
    with pytest.raises(ValueError, match=r"2 slides have no project \(A, …\)"):
        select(cells, tmp_path / "s.parquet", 1, balance="project")


def test_bad_selections_and_lists_are_named(cells, tmp_path):
    path, out = tmp_path / "s.parquet", tmp_path / "out"

    def refused(rows: list[tuple[str, int]]) -> str:
        table = pa.table({"slide": [r[0] for r in rows], "nucleus": [r[1] for r in rows]})
        pq.write_table(
            table.cast(pa.schema([("slide", pa.string()), ("nucleus", pa.int32())])), path
        )
        with pytest.raises(ValueError, match=r".") as error:
            mix(cells, out, 20, 0, selection=path)
        return str(error.value)

    slide = "TCGA-00-AAA0-01Z-00-DX0"
    assert "is an empty selection" in refused([])
    assert "names slide 'X'" in refused([("X", 0)])
    assert "did not keep" in refused([(slide, 2)])
    assert "twice" in refused([(slide, 1), (slide, 1)])
    path.write_text("no parquet")
    with pytest.raises(ValueError, match="is no selection"):
        mix(cells, out, 20, 0, selection=path)
    with pytest.raises(FileNotFoundError, match="no file"):
        mix(cells, out, 20, 0, selection=tmp_path / "none")
    (tmp_path / "list.txt").write_text("# nobody\n")
    with pytest.raises(ValueError, match="lists no case"):
        select(cells, path, 5, exclude=tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="of cases to exclude"):
        select(cells, path, 5, exclude=tmp_path / "none.txt")
    assert not out.exists()
