"""The static map: the layout's frame, cells of one slide, the command and its page."""

import numpy as np
import pytest

from evaluate import main
from evaluate.maps.map import fit, project, reduce
from evaluate.samples import from_cells, from_shards


def test_a_layout_fits_the_unit_square_in_proportion():
    xy = np.random.default_rng(0).normal(5, (30, 3), (500, 2))
    fitted = fit(xy)
    assert fitted.min() >= 0 and fitted.max() <= 1
    scale = np.ptp(fitted, axis=0) / np.ptp(xy, axis=0)
    assert np.isclose(*scale)
    assert np.allclose((fitted.max(axis=0) + fitted.min(axis=0)) / 2, 0.5)
    assert 0.97 < np.ptp(fitted, axis=0).max() < 1


@pytest.mark.soak  # a minute if the cores are busy
def test_threads_do_not_change_the_layout():
    vectors = np.random.default_rng(0).normal(size=(300, 60)).astype(np.float32)
    assert (project(vectors, 3, jobs=2) == project(vectors, 3, jobs=1)).all()


def test_components_are_as_many_as_there_are():
    vectors = np.random.default_rng(0).normal(size=(300, 60))
    assert reduce(vectors).shape == (300, 50) and reduce(vectors[:, :9]).shape == (300, 9)


@pytest.mark.parametrize("read", [from_cells, from_shards])
def test_cells_of_one_slide(cells, shards_folder, read):
    source = cells if read is from_cells else shards_folder
    every = read(source, 10_000)
    one = read(source, 10_000, slide="PAINTED-0002")
    assert set(one.batch_variables["slide"]) == {"PAINTED-0002"}
    assert len(one) == (every.batch_variables["slide"] == "PAINTED-0002").sum()
    of_all = every.take(np.flatnonzero(every.batch_variables["slide"] == "PAINTED-0002"))
    order = np.argsort(of_all.nuclei)
    mine = np.argsort(one.nuclei)
    assert (of_all.nuclei[order] == one.nuclei[mine]).all()
    assert (of_all.crops[order] == one.crops[mine]).all()
    assert len(read(source, 5, slide="PAINTED-0002")) == 5
    with pytest.raises(ValueError, match="no cell of slide 'none'"):
        read(source, 5, slide="none")


def test_the_command_writes_both_maps(cells, tmp_path, capsys):
    command = ["map", "--encoder", "morphology", "--cells", str(cells), "--out", str(tmp_path)]
    one = [*command, "--slide", "PAINTED-0001", "--points", "60"]
    assert main.main([*one, "--html"]) == 0
    printed = capsys.readouterr().out
    stem = f"morphology--{cells.name}--PAINTED-0001"
    page = tmp_path / "maps" / f"{stem}.html"
    size = f"{page.stat().st_size / 1e6:.1f} MB"
    assert (tmp_path / "maps" / f"{stem}.png").is_file()
    assert size in printed and "60 cells" in printed
    assert '"owners": ["PAINTED-0001"]' in page.read_text()
    values = tmp_path / "genes.csv"
    lines = [f"PAINTED-0001,{nucleus},{nucleus % 7}" for nucleus in range(0, 500, 2)]
    values.write_text("\n".join(["slide,nucleus,EPCAM", *lines]))
    assert main.main([*one, "--html", "--values", str(values), "--log1p"]) == 0
    assert '{"name": "EPCAM", "low": 0.0, "high": 1.94' in page.read_text()
    assert main.main([*one, "--html", "--values", str(values), "--markers", "CD8A"]) == 2
    assert "--markers CD8A: there are EPCAM" in capsys.readouterr().err
    assert main.main([*one, "--html", "--markers", "CD8A"]) == 2
    assert "no genes are known here" in capsys.readouterr().err
    assert main.main([*one, "--markers", "EPCAM"]) == 2
    assert "colour the page: give --html" in capsys.readouterr().err
    assert main.main([*command, "--html", "map.txt"]) == 2
    assert "ends in .html" in capsys.readouterr().err
    assert main.main(["map", "--encoder", "pixels", "--benchmark", "x", "--slide", "y",
                      "--out", str(tmp_path)]) == 2  # fmt: skip
    assert "--slide chooses among" in capsys.readouterr().err
