"""Benchmarks: what is in the publishers' folders, and in one's own."""

import csv
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from evaluate.benchmarks.find import find_benchmark
from evaluate.benchmarks.paper import TABLES, compare
from shards.crop import cut


def test_consep_counts(data):
    found = find_benchmark(data / "consep")
    assert found.name == "consep"
    assert found.counts() == {
        "epithelial": 7956, "spindle": 8276, "inflammatory": 5103, "other": 824
    }  # fmt: skip
    assert len(set(found.groups.tolist())) == 41
    assert found.notes[1].startswith("2022 of 24181 nuclei dropped")
    with open((data / "consep") / "nuclei.csv", newline="") as file:
        first = next(csv.DictReader(file))
    image = np.asarray(Image.open((data / "consep") / "images" / f"{first['image']}.jpg"))
    x, y = (math.ceil(float(first[axis]) - 20) for axis in "xy")
    assert found.labels[0] == first["label"]
    np.testing.assert_array_equal(found.crops[0], image[y : y + 40, x : x + 40])


def test_ami_br_counts_and_centre(data):
    found = find_benchmark(data / "ami-br")
    assert found.counts() == {"AMF": 407, "NMF": 1489}
    assert (found.positive, len(set(found.groups.tolist()))) == ("NMF", 101)
    assert found.notes[0].startswith("10 of 1896 nuclei kept with a black margin")
    with open((data / "ami-br") / "labels.csv", newline="") as file:
        first = next(csv.DictReader(file))
    crop = np.asarray(Image.open((data / "ami-br") / "crops" / first["file"]))
    np.testing.assert_array_equal(found.crops[0], crop[44:84, 44:84])


def test_own_folder(own, benchmark):
    assert len(benchmark) == 6 * 36
    assert benchmark.name == "own"
    assert benchmark.notes == (
        "1 of 218 nuclei dropped: their 40x40-px window leaves the image",
        "1 of 218 rows passed over: no label",
    )
    image = np.asarray(Image.open(own / "0.png"))
    np.testing.assert_array_equal(benchmark.crops[0], image[30:70, 30:70])


@pytest.mark.parametrize("mpp", ["", "0.31"])
def test_windows_of_a_slide_are_those_of_its_pixels(tmp_path, mpp):
    image = np.random.default_rng(0).integers(0, 255, (1500, 2300, 3), np.uint8)
    resolution = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}  # 0.25 µm/px
    tifffile.imwrite(
        tmp_path / "s.tif", image, tile=(256, 256), photometric="rgb", compression="zlib",
        **resolution,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    xy = np.round(rng.uniform((30, 30), (2270, 1470), (60, 2)), 2)
    xy = np.vstack([xy, [(1024, 1024), (1023.5, 1023.49), (2, 2)]])
    rows = [f"s.tif,{x},{y},a,{mpp}" for x, y in xy]
    (tmp_path / "cells.csv").write_text("image,x,y,label,mpp\n" + "\n".join(rows))
    found = find_benchmark(tmp_path)
    assert len(found) == 62
    expected = cut(image, xy[:62], float(mpp or 0.25), 40)
    np.testing.assert_array_equal(found.crops, expected)
    assert ("1 images resampled to 0.25 µm/px" in found.notes) == bool(mpp)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["image,x,y,label", "0.png,50,50,a"], "0.png has no scale of its own; add a column `mpp`"),
        (["image,x,y,kind", "0.png,50,50,a"], "no column 'label'"),
        (["image,x,y,label,mpp", "0.png,50,fifty,a,.25"], "line 2: y is 'fifty'"),
        (["image,x,y,label,mpp", "0.png,50,nan,a,.25"], "line 2: y is 'nan'"),
        (["image,x,y,label,mpp", "0.png,50,50,a,-1"], "at -1 µm/px, and no microscope is"),
        (["image,x,y,label,mpp", "0.png,50,50,a,.25", "0.png,90,90,a,.5"], "2 values of mpp"),
        (["image,x,y,label,mpp", "0.png,5,5,a,.25"], "no nucleus left"),
        (["image,x,y,label,mpp", "no.png,50,50,a,.25"], "an image that is not there"),
        (["image,x,y,label,mpp", "cells.csv,50,50,a,.25"], "neither a slide nor an image"),
        (["image,x,y,label,mpp", "0.png,50"], "line 2 ends early: it has 2 cells under 5 names"),
        (["image,x,y,label,mpp"], "a header and no rows"),
    ],
)
def test_bad_folder_says_why(tmp_path, lines, words):
    Image.fromarray(np.full((400, 400, 3), 220, np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        find_benchmark(tmp_path)


def test_no_benchmark_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_benchmark(tmp_path / "absent")
    with pytest.raises(ValueError, match="is empty"):
        find_benchmark(tmp_path)
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"it holds x.txt; looked for\n  consep: .*\n  ami-br"):
        find_benchmark(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        find_benchmark(tmp_path / "x.txt")


def test_a_prepared_benchmark_is_the_same_benchmark(run_stage, own, benchmark, tmp_path):
    done = run_stage("evaluate/main.py", "prepare", own, "--out", tmp_path / "prepared")
    assert done.returncode == 0, done.stderr
    again = find_benchmark(tmp_path / "prepared")
    assert again.sha256 == benchmark.sha256
    for name in ("name", "classes", "group_kind", "positive", "notes"):
        assert getattr(again, name) == getattr(benchmark, name)
    smaller = find_benchmark(tmp_path / "prepared", view_px=32)
    np.testing.assert_array_equal(smaller.crops, benchmark.crops[:, 4:36, 4:36])
    with pytest.raises(ValueError, match="crops of 40 px; 64 are needed"):
        find_benchmark(tmp_path / "prepared", view_px=64)
    np.save(tmp_path / "prepared/crops.npy", benchmark.crops[1:])
    with pytest.raises(ValueError, match="prepare it again"):
        find_benchmark(tmp_path / "prepared")


def test_a_folder_of_slides_and_patients(own, tmp_path):
    Image.open(own / "0.png").save(tmp_path / "0.png")
    lines = ["slide,x,y,label,patient,scanner,mpp"]
    lines += [f"0.png,{x},200,a,p{x % 7},s1,0.25" for x in range(50, 350, 10)]
    (tmp_path / "cells.csv").write_text("\n".join(lines))
    found = find_benchmark(tmp_path)
    assert (found.group_kind, set(found.groups.tolist())) == ("slide", {"0.png"})
    assert sorted(found.batch_variables) == ["patient", "scanner", "slide"]
    assert found.batch_variables["patient"].tolist()[:3] == ["p1", "p4", "p0"]
    text = (tmp_path / "cells.csv").read_text()
    (tmp_path / "cells.csv").write_text(text.replace("slide,", "group,", 1))
    with pytest.raises(ValueError, match=r"no column 'image' \(or 'slide'\)"):
        find_benchmark(tmp_path)


def test_a_benchmark_is_of_one_length(benchmark):
    with pytest.raises(ValueError, match=r"216 crops, 216 labels, 216 groups, .* 215 targets"):
        replace(benchmark, targets=np.zeros((215, 2), np.float32))


def test_counts_beside_the_papers(benchmark):
    labels = np.array(["NMF"] * 200 + ["AMF"] * 16)
    ours = replace(benchmark, name="midog25", labels=labels, classes=("NMF", "AMF"))
    lines = [line.split() for line in compare(ours.name, ours.counts())]
    assert lines[1:] == [
        ["NMF", "200", "10,191", "-9,991"],
        ["AMF", "16", "1,748", "-1,732"],
        ["all", "216", "11,939", "-11,723"],
    ]
    assert compare(benchmark.name, benchmark.counts()) == []
    totals = {name: sum(numbers.values()) for name, (_, numbers) in TABLES.items()}
    assert totals == {
        "nucls-super": 37307, "nucls-main": 37307, "nucls-raw": 38069, "midog25": 11939,
        "pannuke": 97627, "midog25-128px": 9115,
    }  # fmt: skip
