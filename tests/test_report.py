"""The report: figures and tables that any command leaves, and the page made of them."""

import json

import pytest

from evaluate.exhibits import read_exhibits, read_table, save_figure, save_table


def test_exhibits_travel_whole(tmp_path):
    from matplotlib.figure import Figure

    facts = {"section": "Robustness", "title": "A <b>", "best": {"score": "max"}}
    rows = [["a|b", "0.7 (0.1)"], ["c\\d", 0.9]]
    save_table(tmp_path, "one", ["encoder", "score"], rows, **facts)
    figure = Figure()
    figure.subplots().plot([1, 2])
    first = save_figure(tmp_path, "two", figure, section="Robustness").read_bytes()
    assert save_figure(tmp_path, "two", figure, section="Robustness").read_bytes() == first
    (tmp_path / "figures" / "bare.png").write_bytes(b"")
    bare, two, one = read_exhibits(tmp_path)
    assert (bare.section, bare.title, bare.path.suffix) == ("More", "bare", ".png")
    assert two.path.suffix == ".svg" and two.path.with_suffix(".png").stat().st_size > 1000
    assert (one.title, one.best, one.path.suffix) == ("A <b>", {"score": "max"}, ".csv")
    expected = (["encoder", "score"], [["a|b", "0.7 (0.1)"], ["c\\d", "0.9"]])
    assert read_table(one.path) == expected
    assert read_table(one.path.with_suffix(".md")) == expected


def test_exhibits_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="no field 'note'"):
        save_table(tmp_path, "one", ["a"], [], note="x")
    with pytest.raises(ValueError, match="names no file"):
        save_table(tmp_path, "../one", ["a"], [])
    save_table(tmp_path, "one", ["a"], [])
    path = tmp_path / "tables" / "one.json"
    path.write_text(json.dumps({"title": 3}))
    with pytest.raises(ValueError, match="'title' is unknown or of another type"):
        read_exhibits(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="no description"):
        read_exhibits(tmp_path)
    path.with_suffix(".csv").write_text("a,b\n1\n")
    with pytest.raises(ValueError, match="no table"):
        read_table(path.with_suffix(".csv"))
