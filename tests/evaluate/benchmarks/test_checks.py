"""Own benchmarks as labs have them: places, classes, doubles, files; each said or refused."""

import re

import numpy as np
import pytest
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import Places, find_twins, look_alikes, no_class
from evaluate.benchmarks.find import find_benchmark
from evaluate.probes.assess import Settings
from evaluate.probes.probe import folds
from evaluate.results import benchmark_facts, store
from evaluate.tables.table import write_tables

WIDE = (300, 200)  # width, height, px


def noise(seed: int, size=WIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)


@pytest.fixture
def lab(tmp_path):
    """Write a folder of rows (image, x, y, label, …) and load it."""
    for number in range(3):
        Image.fromarray(noise(number)).save(tmp_path / f"{number}.png")

    def write(rows, header="image,x,y,label", mpp="0.25"):
        lines = [f"{header},mpp"] + [",".join(map(str, row)) + f",{mpp}" for row in rows]
        (tmp_path / "cells.csv").write_text("\n".join(lines) + "\n")
        return find_benchmark(tmp_path)

    write.path = tmp_path
    return write


def spread(count: int, seed: int = 0) -> list[tuple]:
    """Rows of nuclei whose windows lie well within the images, of two classes."""
    rng = np.random.default_rng(seed)
    xy = np.round(rng.uniform((30, 30), (270, 170), (count, 2)), 1)
    return [(f"{i % 3}.png", x, y, "ab"[i // 3 % 2]) for i, (x, y) in enumerate(xy.tolist())]


def said(benchmark: Benchmark, words: str) -> bool:
    return any(words in note for note in benchmark.notes)


def test_swapped_axes_are_an_error(lab):
    rows = [(image, y, x, label) for image, x, y, label in spread(90)]
    with pytest.raises(ValueError, match=r"of 90 nuclei lie outside .*x and y swapped, for the"):
        lab(rows)


def test_swapped_columns_are_an_error(lab):
    with pytest.raises(ValueError, match="x and y swapped"):
        lab(spread(90), header="image,y,x,label")


@pytest.mark.parametrize("scale", [4.0, 1.7, -1.0])
def test_another_scale_is_an_error(lab, scale):
    rows = [(image, x * scale, y * scale, label) for image, x, y, label in spread(60)]
    with pytest.raises(ValueError, match=r"of 60 nuclei lie outside .*another scale"):
        lab(rows)


def test_a_smaller_scale_is_said(lab):
    rows = [(image, 25 + x * 0.25, 25 + y * 0.25, label) for image, x, y, label in spread(60)]
    assert said(lab(rows), "all 60 nuclei lie in the upper left quarter")
    assert not said(lab(spread(60)), "quarter")


def test_one_image_of_many_is_told_by_name():
    places = Places("cells.csv")
    inside = np.random.default_rng(0).uniform(0, 90, (1000, 2))
    for number in range(5):
        places.look(f"{number}.png", inside, 100, 100)
    places.look("bad.png", inside[:30] + 100, 100, 100)
    with pytest.raises(ValueError, match=r"30 of 30 of bad.png \(100x100 px; they reach from 10"):
        places.notes()


def test_a_nucleus_in_each_of_many_images_is_too_many():
    places = Places("cells.csv")
    for number in range(20):
        places.look(f"{number}.png", np.array([(50, 50), (150, 50)]), 100, 100)
    with pytest.raises(ValueError, match=r"20 of 40 nuclei .* one of 0.png, 150, 50"):
        places.notes()


def test_a_few_outside_are_said_and_counted(lab):
    found = lab([*spread(60), ("0.png", 305, 50, "a"), ("1.png", 10, 50, "a")])
    assert said(found, "1 of 62 nuclei lie outside their image (the first: 0.png, 305, 50)")
    assert found.left_out == {"whose 40-px window leaves the image": 2}
    assert found.used() == ("60 nuclei of 62 (not used: 2 whose 40-px window leaves the image)")


NONE = ["", " ", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "None", "none", "NULL", "null", "<NA>"]


@pytest.mark.parametrize("word", [*NONE, "#N/A"])
def test_a_missing_value_is_no_class(lab, word):
    found = lab([*spread(30), ("0.png", 100, 100, word)])
    assert found.classes == ("a", "b")
    assert said(found, "1 of 31 rows passed over: no label")
    assert found.left_out["without a label"] == 1


def test_words_for_none_are_counted():
    labels, words = no_class(np.array(["a", "nan", "NaN", "", "nan", "banana", "NAC"]))
    assert labels.tolist() == ["a", "", "", "", "", "banana", "NAC"]
    assert words == {"nan": 2, "NaN": 1, "empty": 1}


@pytest.mark.parametrize(
    "pair", [("Tumour", "tumour"), ("1", "1.0"), ("plasma cell", "plasma_cell"), ("0", "0.00")]
)
def test_classes_alike_are_warned_about(pair):
    (warning,) = look_alikes(np.array([*pair, pair[0], "", "other"]))
    first, second = sorted(pair)
    counts = {pair[0]: 2, pair[1]: 1}
    assert warning.startswith(
        f"classes {first!r} ({counts[first]}), {second!r} ({counts[second]}) differ only in how"
    )


@pytest.mark.parametrize("pair", [("T1", "T2"), ("1", "2"), ("a", "ab"), ("lymph", "lymphoid")])
def test_other_classes_are_not(pair):
    assert look_alikes(np.array(pair)) == []


def test_rows_twice_stay_in_one_fold(lab):
    rows = spread(60)
    found = lab(rows + rows[::-1])
    assert said(found, "60 of 120 rows repeat a nucleus (same image, same place): kept, in one")
    for split in ("stratified", "grouped"):
        tests = folds(found, split, 3, 0)
        assert sorted(np.concatenate(tests).tolist()) == list(range(120))
        for test in tests:
            assert set(test.tolist()) == {119 - row for row in test.tolist()}
    assert found.take(np.arange(60, 120)).twins.tolist() == found.twins[60:].tolist()


def test_folds_without_doubles_are_as_ever(lab):
    found = lab(spread(60))
    assert found.twins is None
    from sklearn.model_selection import StratifiedKFold

    plain = StratifiedKFold(5, shuffle=True, random_state=0).split(found.crops, found.labels)
    for ours, (_, theirs) in zip(folds(found, "stratified", 5, 0), plain, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_two_labels_of_one_nucleus_are_an_error(lab):
    with pytest.raises(ValueError, match=r"1 nuclei .* different labels.*0.png, 90, 80 is 'a' and"):
        lab([*spread(30), ("0.png", 90, 80, "a"), ("0.png", 90, 80, "b")])


def test_publishers_two_labels_are_said():
    xy, labels = np.array([(1, 1), (1, 1), (2, 2)]), np.array(["a", "b", "a"])
    twins, notes = find_twins("t", np.array(["i"] * 3), xy, labels, refuse=False)
    assert twins[0] == twins[1] != twins[2]
    assert notes[1] == "1 of them bear another label than the row they repeat"


def test_an_image_under_two_names_is_one(lab):
    (lab.path / "copy.png").write_bytes((lab.path / "0.png").read_bytes())
    rows = spread(60)
    found = lab([*rows, *(("copy.png", *row[1:]) for row in rows[:30:3])])
    assert said(found, "1 images are copies of others under another name: copy.png")
    assert said(found, "10 of 70 rows repeat a nucleus")
    assert set(found.groups.tolist()) == {"0.png", "1.png", "2.png"}


def test_groups_that_share_a_nucleus_are_one(lab):
    rows = [(*row, f"p{i % 4}") for i, row in enumerate(spread(80))]
    again = [(*rows[0][:4], "p1")]  # the nucleus of p0 under p1, too
    found = lab(rows + again, header="image,x,y,label,group")
    for test in folds(found, "grouped", 3, 0):
        held = set(found.groups[test].tolist())
        assert ("p0" in held) == ("p1" in held)


def test_doubles_are_kept_by_prepare(lab, tmp_path):
    from evaluate.benchmarks.prepared import load, save

    found = lab(spread(60) + spread(60)[:5])
    save([found], tmp_path / "prepared")
    (again,) = load(tmp_path / "prepared")
    np.testing.assert_array_equal(again.twins, found.twins)
    assert (again.sha256, again.left_out, again.notes) == (
        found.sha256, dict(found.left_out), found.notes
    )  # fmt: skip


def test_rows_without_a_group_take_their_image(lab):
    rows = [(*row, "" if i % 2 else f"p{i % 4}") for i, row in enumerate(spread(60))]
    found = lab(rows, header="image,x,y,label,group")
    assert said(found, "30 of 60 rows have no group: their image is taken for it")
    assert set(found.groups.tolist()) == {"p0", "p2", "0.png", "1.png", "2.png"}
    rows = [(*row[:4], "nan") for row in rows]
    assert lab(rows, header="image,x,y,label,group").group_kind == "image"


def test_images_in_no_row_are_named(lab):
    for name in ("left.png", "._0.png", "Thumbs.db", ".DS_Store"):
        (lab.path / name).write_bytes(b"\0")
    found = lab(spread(30))
    assert said(found, "1 images beside them have no labels, hence are not used: left.png")


def test_what_is_not_used_stands_in_the_table(lab, tmp_path):
    found = lab([*spread(60), ("0.png", 10, 50, "a"), ("0.png", 60, 50, "NA")])
    facts = benchmark_facts(found, "lab", Settings().protocol(found))
    rows = [
        {"split": "stratified", "fold": fold, "metric": metric, "value": 0.5}
        for fold in range(5)
        for metric in ("balanced accuracy", "AUC", "AUPR", "F1 macro", "F1 weighted")
    ]
    store(tmp_path / "out", found.name, facts, "pixels", {}, rows)
    written = write_tables(tmp_path / "out")
    assert (
        "60 nuclei of 62 (not used: 1 whose 40-px window leaves the image; 1 without a label)"
        in written
    )


def picture(path, kind: str) -> None:
    """Write one of the files that are not what their name says."""
    good = noise(0)
    if kind == "lfs":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123456\n")
    elif kind == "html":
        path.write_text("<!DOCTYPE html><html><title>Log in</title></html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        Image.fromarray(good).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "text":
        path.write_text("not an image")
    elif kind == "16 bits":
        Image.fromarray(good[:, :, 0].astype(np.uint16) * 200).save(path)
    elif kind == "zeros":
        path.write_bytes(bytes(9000))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lfs", "a Git LFS pointer to 123,456 bytes"),
        ("html", "a web page ('Log in')"),
        ("empty", "is empty"),
        ("cut", "neither a slide nor an image that opens"),
        ("text", "neither a slide nor an image that opens"),
        ("16 bits", "not of 8 bits"),
        ("zeros", "begins with zeros"),
    ],
)
def test_an_image_that_is_none_is_called_what_it_is(lab, kind, words):
    picture(lab.path / "0.png", kind)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        lab(spread(30))
    assert "0.png" in str(error.value)


def test_what_is_transparent_is_white(lab):
    pixels = np.dstack([noise(0), np.zeros(WIDE[::-1], np.uint8)])
    Image.fromarray(pixels).save(lab.path / "0.png")
    found = lab(spread(30))
    assert (found.crops[found.groups == "0.png"] == 255).all()


def test_semicolons_and_decimal_commas(lab):
    rows = spread(30)
    lab(rows)
    lines = ["image;x;y;label;mpp"]
    lines += [f"{i};{x};{y};{label};0.25".replace(".", ",") for i, x, y, label in rows]
    text = "\n".join(lines).replace(",png", ".png")
    before = find_benchmark(lab.path)
    (lab.path / "cells.csv").write_text(text)
    assert find_benchmark(lab.path).sha256 == before.sha256


@pytest.mark.parametrize("number", [str, lambda i: f"{i}.0"], ids=["whole", "of pandas"])
@pytest.mark.parametrize("twice", [1, 2])
def test_numbers_of_nuclei_are_no_classes(lab, number, twice):
    rows = [(*row[:3], number(1 + i // 3)) for i, row in enumerate(spread(30))] * twice
    with pytest.raises(ValueError, match=r"cells.csv: its column label numbers the nuclei \(1"):
        lab(rows)


@pytest.mark.parametrize(
    "classes",
    [
        lambda i: i % 2,  # 0 and 1
        lambda i: i // 3 % 9,  # of ten nuclei an image, one class twice
        lambda i: f"c{i}",
    ],
)
def test_classes_called_by_numbers_stay(lab, classes):
    rows = [(*row[:3], classes(i)) for i, row in enumerate(spread(30))]
    assert set(lab(rows).classes) == {str(classes(i)) for i in range(30)}


def test_a_few_nuclei_an_image_may_each_be_of_a_class(lab):
    rows = [(*row[:3], i // 3) for i, row in enumerate(spread(12))]
    assert lab(rows).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("rows", "mpp"),
    [
        ([(image, x * 9, y, label) for image, x, y, label in spread(30)], "0.25"),  # outside
        ([*spread(30), (*spread(30)[0][:3], "b")], "0.25"),  # two labels
        (spread(30), "40"),
        (spread(30), ""),
        ([("none.png", *row[1:]) for row in spread(30)], "0.25"),
        ([(*row[:3], "") for row in spread(30)], "0.25"),
    ],
    ids=["outside", "two labels", "power", "no scale", "no image", "no label"],
)
def test_messages_name_the_folder(lab, rows, mpp):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        lab(rows, mpp=mpp)
    assert str(lab.path) in str(error.value), str(error.value)


@pytest.mark.parametrize("said", ["file://{}/0.png", "{}/0.png", "~/0.png"])
def test_images_may_be_named_by_home_or_local_url(lab, monkeypatch, said):
    monkeypatch.setenv("HOME", str(lab.path))
    expected = lab([("0.png", *row[1:]) for row in spread(30)]).crops
    found = lab([(said.format(lab.path), *row[1:]) for row in spread(30)])
    assert np.array_equal(found.crops, expected)
    assert not said_of_strays(found, "0.png")


def said_of_strays(benchmark: Benchmark, name: str) -> bool:
    return any("have no labels" in note and name in note for note in benchmark.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://host/0.png", r"cells\.csv: https://host/0\.png is a URL.*download it"),
        ("images\\0.png", r"cells\.csv: images\\0\.png is not there; folders are separated by /"),
        ("none.png", r"cells\.csv names an image that is not there: .*none\.png"),
    ],
)
def test_an_image_elsewhere_has_its_cure(lab, name, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        lab([(name, *row[1:]) for row in spread(30)])
