"""NuCLS: fields written as its publisher writes them, and each trap of its files."""

import argparse
import csv
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluate.benchmarks.find import find_benchmark, find_benchmarks
from evaluate.benchmarks.nucls import load, tried
from evaluate.commands import prepare

HEADER = (
    ",raw_classification,main_classification,super_classification,type,"
    "xmin,ymin,xmax,ymax,coords_x,coords_y"
).split(",")
# Left, top, bottom, right are px of the slide's base level: not the image's size.
FIELDS = (
    "TCGA-AN-A0XU-DX1_id-5ea40b25ddda5f83989991fd_left-32501_top-21485_bottom-21806_right-32812",
    "TCGA-AR-A0TS-DX1_id-5ea40b25ddda5f83989991aa_left-100_top-200_bottom-500_right-400",
    "TCGA-AR-A0TS-DX2_id-5ea40b25ddda5f83989991bb_left-100_top-200_bottom-500_right-400",
)
TRIPLES = {
    "tumor": ("tumor_nonMitotic", "tumor_any"),
    "mitotic_figure": ("tumor_mitotic", "tumor_any"),
    "lymphocyte": ("lymphocyte", "sTIL"),
    "plasma_cell": ("plasma_cell", "sTIL"),
    "fibroblast": ("nonTILnonMQ_stromal", "nonTIL_stromal"),
    "macrophage": ("macrophage", "nonTIL_stromal"),
    "ductal_epithelium": ("other_nucleus", "other_nucleus"),
    "apoptotic_body": ("AMBIGUOUS", "AMBIGUOUS"),
    "unlabeled": ("AMBIGUOUS", "AMBIGUOUS"),
}


def box(x: int, y: int, side: int = 20) -> list:
    """A rectangle's columns: four numbers, then its closed ring."""
    low_x, low_y, high_x, high_y = x - side // 2, y - side // 2, x + side // 2, y + side // 2
    ring = [(low_x, low_y), (high_x, low_y), (high_x, high_y), (low_x, high_y), (low_x, low_y)]
    return [low_x, low_y, high_x, high_y, *(",".join(map(str, a)) for a in zip(*ring, strict=True))]


def write(path, stem: str, nuclei: list, size=(200, 160), images: str = "rgb") -> np.ndarray:
    """Write a field's image and csv; nuclei are (raw class, type, six columns of place)."""
    (path / images).mkdir(parents=True, exist_ok=True)
    (path / "csv").mkdir(exist_ok=True)
    seed = FIELDS.index(stem) if stem in FIELDS else 9
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path / images / f"{stem}.png")
    with open(path / "csv" / f"{stem}.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(HEADER)
        for i, (raw, kind, place) in enumerate(nuclei):
            rows.writerow([i, raw, *TRIPLES[raw.removeprefix("correction_")], kind, *place])
    return pixels


def run(*words: object) -> None:
    """Run `evaluate/main.py prepare …` within this process."""
    parser = argparse.ArgumentParser()
    prepare.add_flags(parser)
    prepare.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def nucls(tmp_path):
    """Three fields, two slides of one patient; the last one has no nucleus."""
    first = [(raw, "rectangle", box(60 + 8 * i, 80)) for i, raw in enumerate(TRIPLES)]
    first.append(("tumor", "rectangle", box(12, 80)))  # its window leaves the field
    write(tmp_path, FIELDS[0], first)
    write(tmp_path, FIELDS[1], [("correction_tumor", "rectangle", box(100, 80))])
    write(tmp_path, FIELDS[2], [])
    (tmp_path / "csv/all_fov_locations.csv").write_text("slide_name,xmin,ymin,xmax,ymax\n")
    return tmp_path


def test_three_tasks_and_what_each_leaves_out(nucls):
    big, middle, raw = find_benchmarks(nucls)
    assert [b.name for b in (big, middle, raw)] == ["nucls-super", "nucls-main", "nucls-raw"]
    assert big.counts() == {"tumor_any": 3, "sTIL": 2, "nonTIL_stromal": 2}
    assert middle.counts() == {
        "tumor_nonMitotic": 2, "lymphocyte": 1, "nonTILnonMQ_stromal": 1, "plasma_cell": 1,
        "macrophage": 1, "tumor_mitotic": 1,
    }  # fmt: skip
    assert raw.counts() == dict.fromkeys(raw.classes, 0) | dict.fromkeys(list(TRIPLES)[:-1], 1) | {
        "tumor": 2
    }
    assert len(raw.classes) == 12
    assert big.part_of is middle.part_of is raw.part_of
    for task in (big, middle, raw):
        np.testing.assert_array_equal(task.part_of.crops[task.rows], task.crops)
    assert raw.notes[1:] == (
        "1 of 11 nuclei dropped: their window leaves the field",
        "1 of 11 nuclei passed over: unlabeled",
        "1 raw classes read without their prefix correction_",
    )


def test_origins_come_from_the_name(nucls):
    raw = find_benchmarks(nucls)[2]
    assert raw.group_kind == "slide"
    last = {kind: words[-1] for kind, words in raw.batch_variables.items()}
    assert last == {
        "slide": "TCGA-AR-A0TS-DX1", "patient": "TCGA-AR-A0TS", "hospital": "AR",
        "field": FIELDS[1],
    }  # fmt: skip
    assert raw.batch_variables["slide"][0] == "TCGA-AN-A0XU-DX1"
    assert (raw.groups == raw.batch_variables["slide"]).all()


def test_crops_are_resampled_from_a_fifth_of_a_micrometre(tmp_path):
    pixels = write(tmp_path, FIELDS[0], [("tumor", "rectangle", box(90, 80))], images="rgbs")
    found = load(tmp_path)[0].crops[0]
    # 40 px at 0.25 are 50 px at 0.2, around the pixel centre (90, 80), whose edges are ±0.5
    window = (90.5 - 25, 80.5 - 25, 90.5 + 25, 80.5 + 25)
    expected = Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC, box=window)
    np.testing.assert_array_equal(found, np.asarray(expected))
    native = load(tmp_path, mpp=0.25)[0].crops[0]
    np.testing.assert_array_equal(native, pixels[60:100, 70:110])


@pytest.mark.parametrize(
    ("window", "least"), [("60", 37), ("60@0.2", 30), ("50", 31), ("40@0.2", 25), ("40", 25)]
)
def test_the_window_that_must_lie_within(tmp_path, window, least):
    """60 px at 0.25 are 75 px at 0.2, of which 37 lie left of the centre; the view itself 25."""
    for x, kept in ((least, 1), (least - 1, 0)):
        write(tmp_path, FIELDS[0], [("tumor", "rectangle", box(x, 80))])
        write(tmp_path, FIELDS[1], [("tumor", "rectangle", box(100, 80))])  # never empty
        assert len(load(tmp_path, window=window)[0]) == kept + 1


def test_a_box_is_not_its_outline(tmp_path):
    triangle = [70, 60, 130, 120, "70,130,70,70", "60,60,120,60"]
    pixels = write(tmp_path, FIELDS[0], [("tumor", "polyline", triangle)])
    middle = load(tmp_path, mpp=0.25)[0].crops[0]
    np.testing.assert_array_equal(middle, pixels[70:110, 80:120])
    centroid = load(tmp_path, mpp=0.25, centre="centroid")[0].crops[0]
    np.testing.assert_array_equal(centroid, pixels[60:100, 70:110])  # (90, 80)


def test_prepare_writes_tasks_and_compares_with_table_3(capsys, nucls, tmp_path):
    out = tmp_path / "prepared"
    run("nucls", "--raw", nucls, "--out", out)
    printed = capsys.readouterr().out
    assert re.search(r"tumor_any +3 +16,052 +-16,049\n", printed)
    assert re.search(r"all +9 +38,069 +-38,060\n", printed)
    table = pq.read_table(out / "cells.parquet")
    kinds = ["slide", "patient", "hospital", "field"]
    names = ["label", "group", *kinds, "label_super", "label_main", "label_raw"]
    assert table.column_names == names
    assert table["label"].to_pylist() == table["label_super"].to_pylist()
    assert json.loads((out / "benchmark.json").read_text())["nuclei"] == 9
    raw, again = find_benchmarks(nucls), find_benchmarks(out)
    for before, after in zip(raw, again, strict=True):
        assert after.sha256 == before.sha256
        assert (after.name, after.classes, after.notes) == (
            before.name, before.classes, before.notes
        )  # fmt: skip
        np.testing.assert_array_equal(after.rows, before.rows)
    assert find_benchmark(f"{out}:main").name == "nucls-main"
    with pytest.raises(ValueError, match=r"3 tasks, there are nucls-super, .*prepared:super"):
        find_benchmark(out)
    with pytest.raises(ValueError, match="no task 'fine'"):
        find_benchmark(f"{out}:fine")


def test_every_rule_is_tried(capsys, nucls):
    counts = tried(nucls)
    assert len(counts) == 12
    one = next(rule for rule in counts if "40x40 px at 0.2 µm/px, centre of the box" in rule)
    assert counts[one]["nucls-super"]["tumor_any"] == 3
    run("nucls", "--raw", nucls, "--try")
    printed = capsys.readouterr().out
    assert printed.count("off by") == 12
    for task, table in (("super", "3a"), ("main", "3b"), ("raw", "3c")):
        nearest = printed.partition(f"\nnucls-{task}: ")[2].splitlines()
        assert nearest[1].endswith(f"(paper, Table {table})")


def test_a_wider_view_bears_its_side(nucls, tmp_path):
    out = tmp_path / "wide"
    run(nucls, "--out", out, "--view", 56)
    found = find_benchmarks(out)
    assert [b.name for b in found] == ["nucls-56px-super", "nucls-56px-main", "nucls-56px-raw"]
    assert found[0].crops.shape[1:] == (56, 56, 3)
    assert find_benchmarks(out, 40)[0].crops.shape[1:] == (40, 40, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nucls"], "no such folder"),
        (["nuclei", "--raw", "."], "no benchmark 'nuclei'; there are consep"),
        (["pannuke", "--raw", "."], "is no pannuke; it should hold images.npy"),
        (["nucls", "--raw", ".", "--cells", "7"], "nucls takes no --cells; it takes --view, --mpp"),
        (["nucls", "--raw", ".", "--window", "60px"], "a window of '60px'"),
        (["nucls", "--raw", ".", "--mpp", "0"], "images would be at 0 µm/px"),
    ],
)
def test_a_command_that_cannot_be_says_why(monkeypatch, nucls, arguments, words):
    monkeypatch.chdir(nucls)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(words)):
        run(*arguments, "--out", "out")
    assert not (nucls / "out").exists()


def test_bad_files_say_why(tmp_path):
    write(tmp_path, FIELDS[0], [("tumor", "rectangle", box(100, 80))])
    file = tmp_path / "csv" / f"{FIELDS[0]}.csv"
    good = file.read_text()
    file.write_text(good.replace("tumor_any", "tumour"))
    with pytest.raises(ValueError, match="unknown super_classification 'tumour'"):
        load(tmp_path)
    file.write_text(good.replace("xmin", "left"))
    with pytest.raises(ValueError, match="no column 'xmin'"):
        load(tmp_path)
    file.write_text(good)
    (tmp_path / "rgb" / f"{FIELDS[0]}.png").unlink()
    with pytest.raises(FileNotFoundError, match="has no image"):
        load(tmp_path)
    file.rename(file.with_name("field.csv"))
    with pytest.raises(ValueError, match=r"field.csv is no NuCLS field: expected TCGA-XX"):
        load(tmp_path)
