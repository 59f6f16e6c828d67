"""MIDOG25: the table's header and rows as published, and each trap of it."""

import argparse
import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from evaluate.benchmarks.find import find_benchmark
from evaluate.benchmarks.midog25 import load, tried
from evaluate.benchmarks.midog25_table import read_mitoses
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
    assert found.batch_variables["scanner"].tolist()[2:5] == [
        "Hamamatsu XR", "Aperio CS2", "Hamamatsu S360"
    ]  # fmt: skip
    assert found.batch_variables["species"].tolist()[:3] == ["Canine", "Canine", "Human"]
    assert set(found.batch_variables) == {"slide", "scanner", "tumor", "origin", "species"}


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
    prepare.add_flags(parser)
    out = tmp_path / "wide"
    words = ["midog25", "--raw", midog25, "--out", out, "--view", "128"]
    prepare.run(parser.parse_args([str(word) for word in words]))
    found = find_benchmark(out)
    assert found.name == "midog25-128px"
    assert found.counts() == {"NMF": 3, "AMF": 1}
    assert not any("Hamamatsu" in scanner for scanner in found.batch_variables["scanner"])
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


def without(text: str, *names: str) -> str:
    """The table without some columns."""
    rows = [line.split(",") for line in text.splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if name not in names]
    return "\n".join(",".join(row[i] for i in kept) for row in rows) + "\n"


CASES = {
    "201.tiff": ("canine lung cancer", [(5047, 459), (-2, 900)]),
    "007.tiff": ("human breast cancer", [(12, 40)]),
    "101.tiff": ("human breast cancer", [(88, 40)]),
    "060.tiff": ("human breast cancer", [(77, 41)]),
    "301.tiff": ("canine lymphosarcoma", []),
}


def write_json(path, side=(5300, 520)) -> None:
    """MIDOG++.json as its publisher writes it: boxes of 50 px around their middles."""
    images, boxes = [], []
    for number, (name, (tumor, places)) in enumerate(CASES.items(), 1):
        images.append(
            {"id": number, "file_name": name, "width": side[0], "height": side[1],
             "tumor_type": tumor, "license": 1}
        )  # fmt: skip
        boxes += [
            {"bbox": [x - 25, y - 25, x + 25, y + 25], "category_id": 1, "image_id": number}
            for x, y in places
        ]
    (path / "MIDOG++.json").write_text(json.dumps({"images": images, "annotations": boxes}))


def test_facts_of_a_case_are_joined(midog25):
    table = midog25 / "MIDOG25_Atypical_Classification_Train_Set.csv"
    table.write_text(without(TABLE, "Tumor", "Scanner", "Origin", "Species"))
    with pytest.raises(ValueError, match="unknown scanner ''"):
        load(midog25)
    (midog25 / "datasets_xvalidation.csv").write_text(
        "Slide;Dataset;Tumor;Scanner;Origin;Species\n"
        "7;train;human breast cancer;Hamammatsu XR;UMC Utrecht;Human\n"
        "60;train;;Hamamatsu S360;UMC Utrecht;Human\n"
        "101;test;human breast cancer;Aperio CS2;UMC Utrecht;Human\n"
        "201;train;canine lung cancer;3D Histech;VMU Vienna;Canine\n"
    )
    write_json(midog25)
    found = find_benchmark(midog25)
    plain = TABLE.splitlines()[1:]
    for kind, column in (("tumor", 4), ("origin", 6), ("species", 7)):
        assert found.batch_variables[kind].tolist() == [row.split(",")[column] for row in plain]
    assert "Scanner of 6 rows joined from datasets_xvalidation.csv" in found.notes
    assert any(note.startswith("6 of 6 rows are the middle of a box of") for note in found.notes)


def test_cases_are_cut_at_any_window(midog25, tmp_path):
    write_json(midog25)
    folder = tmp_path / "cases"
    folder.mkdir()
    table = midog25 / "MIDOG25_Atypical_Classification_Train_Set.csv"
    table.write_text(TABLE.replace(",12,40,", ",300,200,"))
    with pytest.raises(FileNotFoundError, match=r"names 4 cases, of which 4 are not in .*: 201"):
        load(midog25, images=folder)
    cases = {}
    for number, name in enumerate(list(CASES)[:4]):
        cases[name] = np.random.default_rng(number).integers(0, 255, (520, 5300, 3), np.uint8)
        tifffile.imwrite(folder / name, cases[name], photometric="rgb")
    found = load(midog25, view_px=64, images=folder)[0]
    assert found.labels.tolist() == ["NMF", "AMF", "NMF", "NMF", "NMF"]
    np.testing.assert_array_equal(
        found.crops[0], cases["201.tiff"][459 - 32 : 459 + 32, 5047 - 32 : 5047 + 32]
    )
    side = 64 * 0.25 / 0.23
    window = (300.5 - side / 2, 200.5 - side / 2, 300.5 + side / 2, 200.5 + side / 2)
    expected = Image.fromarray(cases["007.tiff"]).resize(
        (64, 64), Image.Resampling.BICUBIC, box=window
    )
    np.testing.assert_allclose(found.crops[1], np.asarray(expected), atol=1)
    assert found.left_out["whose window leaves the case"] == 1
    assert found.twins[0] == found.twins[4]
    assert len(set(found.twins.tolist())) == 4
    assert any("1 of 6 nuclei lie outside their image" in note for note in found.notes)
    fewer = load(midog25, images=folder, scanners=("3D Histech",), duplicates="drop")[0]
    assert fewer.used() == (
        "1 nuclei of 6 (not used: 3 of other scanners; 1 that repeat another; 1 whose window "
        "leaves the case)"
    )
    write_json(midog25, (2650, 260))
    with pytest.raises(ValueError, match=r"is \(5300, 520\) px, by MIDOG\+\+.json \(2650, 260\)"):
        load(midog25, images=folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "is not MIDOG++'s JSON"),
        ("{", "is not MIDOG++'s JSON"),
        ('{"images": [], "annotations": []}', "has no case"),
        ('{"images": [{"id": 1}], "annotations": []}', "is not MIDOG++'s JSON"),
        ("<!DOCTYPE html><title>x</title>", "is a web page"),
    ],
)
def test_another_json_is_refused(midog25, text, words):
    (midog25 / "MIDOG++.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        load(midog25)


def test_stray_columns_behind_the_table(midog25, caplog):
    table = midog25 / "MIDOG25_Atypical_Classification_Train_Set.csv"
    lines = TABLE.splitlines()
    stray = [line + (",,,17,,4,2" if i == 2 else ",,,,,,") for i, line in enumerate(lines)]
    table.write_text("\n".join(stray) + "\n")
    assert len(load(midog25)[0]) == 6
    assert "column 15 has values and no name; it is passed over" in caplog.text
    table.write_text("\n".join([lines[0], *stray[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"line 3"):
        load(midog25)


def test_one_image_for_two_places_is_said(midog25):
    table = midog25 / "MIDOG25_Atypical_Classification_Train_Set.csv"
    table.write_text(TABLE.replace("2.png,201.tiff,-2", "1.png,201.tiff,-2"))
    notes = load(midog25)[0].notes
    assert "1 images stand for several places, showing one: 1.png" in notes


def test_the_publishers_own_table(data, capsys):
    """Tables 4 and 8 of the paper by the table alone, and what MIDOG++ says of its places."""
    if not (data / "midog25").is_dir():
        pytest.skip(f"no MIDOG25 table in {data}")
    mitoses = read_mitoses(data / "midog25")
    assert (len(mitoses), len(set(mitoses.image.tolist()))) == (11939, 11936)
    assert (mitoses.repeats(True).sum(), mitoses.repeats(False).sum()) == (3, 2)
    assert mitoses.outvoted() == 49
    assert mitoses.notes[0].startswith("11939 of 11939 rows are the middle of a box of MIDOG++")
    assert "the 128-px window of 417 leaves the case" in mitoses.notes[0]
    assert {k: len(set(v.tolist())) for k, v in mitoses.facts.items()} == {
        "Tumor": 7, "Scanner": 4, "Origin": 4, "Species": 2
    }  # fmt: skip
    counts = tried(data / "midog25")
    assert counts["all rows"] == {"midog25": {"NMF": 10191, "AMF": 1748}}
    by_scanner = counts["scanners at 0.25 µm/px (3D Histech, Aperio CS2)"]
    assert by_scanner == {"midog25-128px": {"NMF": 7955, "AMF": 1160}}
    parser = argparse.ArgumentParser()
    prepare.add_flags(parser)
    prepare.run(parser.parse_args(["midog25", "--raw", str(data / "midog25"), "--try"]))
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "off by 0 (sum over classes): all rows: midog25 11,939"
    tables = [line.split()[:3] for line in printed.splitlines()[4:]]
    assert ["NMF", "10,191", "10,191"] in tables and ["AMF", "1,748", "1,748"] in tables
    assert ["NMF", "7,955", "7,955"] in tables and ["AMF", "1,160", "1,160"] in tables
    with pytest.raises(FileNotFoundError, match=r"give their folder as --images"):
        load(data / "midog25")
