"""MIDOG25: the table's header and rows as published, and each trap of it."""

import argparse

import numpy as np
import pytest
from PIL import Image

from evaluate.benchmarks.find import find_benchmark
from evaluate.benchmarks.midog25 import load
from evaluate.commands import prepare

TABLE = """\
image_id,filename,coordinateX,coordinateY,Tumor,Scanner,Origin,Species,expert1,expert2,expert3,majority
1.png,201.tiff,5047,459,canine lung cancer,3D Histech,VMU Vienna,Canine,NMF,NMF,,NMF
2.png,201.tiff,-2,900,canine lung cancer,3D Histech,VMU Vienna,Canine,AMF,NMF,AMF,AMF
3.png,007.tiff,12,40,human breast cancer,Hamammatsu XR,UMC Utrecht,Human,AMF,NMF,NMF,AMF
4.png,101.tiff,88,40,human breast cancer,Aperio CS2,UMC Utrecht,Human,NMF,NMF,,NMF
5.png,060.tiff,77,41,human breast cancer,Hamamatsu S360,UMC Utrecht,Human,NMF,NMF,,NMF
1.png,201.tiff,5047,459,canine lung cancer,3D Histech,VMU Vienna,Canine,NMF,NMF,,NMF
"""


def patch(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(1, 255, (128, 128, 3), np.uint8)


@pytest.fixture
def midog25(tmp_path):
    (tmp_path / "MIDOG25_Atypical_Classification_Train_Set.csv").write_text(TABLE)
    folder = tmp_path / "MIDOG25_Binary_Classification_Train_Set"
    folder.mkdir()
    for number in range(1, 6):
        pixels = patch(number)
        if number == 2:
            pixels[:, :60] = 0  # beyond the case's border
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_label_is_the_majority_column(midog25):
    found = find_benchmark(midog25)
    assert found.labels.tolist() == ["NMF", "AMF", "AMF", "NMF", "NMF", "NMF"]
    assert found.positive == "NMF"
    assert found.classes == ("NMF", "AMF")
    assert "1 rows whose `majority` is not their experts' vote: taken as it is" in found.notes
    assert "1 of 6 kept with a black margin" in found.notes


def test_origins_and_the_misspelt_scanner(midog25):
    found = find_benchmark(midog25)
    assert found.groups.tolist()[:4] == ["201.tiff", "201.tiff", "007.tiff", "101.tiff"]
    assert found.origins["scanner"].tolist()[2:5] == [
        "Hamamatsu XR", "Aperio CS2", "Hamamatsu S360"
    ]  # fmt: skip
    assert found.origins["species"].tolist()[:3] == ["Canine", "Canine", "Human"]
    assert set(found.origins) == {"slide", "scanner", "tumor", "origin", "species"}


def test_hamamatsu_is_resampled(midog25):
    found = find_benchmark(midog25)
    np.testing.assert_array_equal(found.crops[3], patch(4)[44:84, 44:84])  # 0.25: pixels copied
    side = 40 * 0.25 / 0.23
    window = (64 - side / 2, 64 - side / 2, 64 + side / 2, 64 + side / 2)
    image = Image.fromarray(patch(3))
    expected = image.resize((40, 40), Image.Resampling.BICUBIC, box=window)
    np.testing.assert_allclose(found.crops[2], np.asarray(expected), atol=1)  # a rounding
    native = load(midog25, mpp=0.25)[0]
    np.testing.assert_array_equal(native.crops[2], patch(3)[44:84, 44:84])


def test_duplicates_are_counted(midog25):
    assert "1 rows repeat an image: kept, as in the paper's count" in find_benchmark(midog25).notes
    fewer = load(midog25, duplicates="drop")[0]
    assert (len(fewer), fewer.notes[1]) == (5, "1 rows repeat an image: dropped")


def test_table_8_leaves_hamamatsu_out(midog25, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    prepare.arguments(parser)
    out = tmp_path / "wide"
    words = ["midog25", "--raw", midog25, "--out", out, "--view", "128"]
    prepare.run(parser.parse_args([str(word) for word in words]))
    found = find_benchmark(out)
    assert found.name == "midog25-128px"
    assert found.counts() == {"NMF": 3, "AMF": 1}
    assert not any("Hamamatsu" in scanner for scanner in found.origins["scanner"])
    np.testing.assert_array_equal(found.crops[0], patch(1))
    printed = capsys.readouterr().out
    assert "(paper, Table 8)" in printed
    assert "-7,952" in printed


def test_bad_files_say_why(midog25):
    table = midog25 / "MIDOG25_Atypical_Classification_Train_Set.csv"
    table.write_text(TABLE.replace("Aperio CS2", "Leica GT450"))
    with pytest.raises(ValueError, match=r"unknown scanner 'Leica GT450'; .* give --mpp"):
        load(midog25)
    assert len(load(midog25, mpp=0.25)[0]) == 6
    table.write_text(TABLE.replace("majority", "label"))
    with pytest.raises(ValueError, match="no column 'majority'"):
        load(midog25)
    table.write_text(TABLE.replace("5.png", "6.png"))
    with pytest.raises(FileNotFoundError, match=r"names 6.png, but .* has none"):
        load(midog25)
    table.write_text(TABLE.replace("1.png", "0.png"))
    with pytest.raises(FileNotFoundError, match=r"names 0.png, but neither"):
        load(midog25)
