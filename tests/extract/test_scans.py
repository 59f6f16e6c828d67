"""Folders of slides as labs put them together: nothing is left out without a word."""

import json
import shutil
from pathlib import Path

import pytest

from extract.contact_sheet import write_sheet
from extract.job import extract_slide
from extract.ledger import Settings
from extract.slides import Entry, list_slides
from extract.status import survey
from shards.cells import finished_slides, kept_cells

SETTINGS = Settings("rays", "jpeg", 0, None, any_scale=False)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 86016\n"


@pytest.fixture
def cohort(tmp_path) -> Path:
    """Two slides in a folder, two behind a link, one linked by itself."""
    for name in ("cohort/luad/a.svs", "store/b.svs", "store/deep/c.SVS", "disk/d.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"pixels")
    (tmp_path / "cohort/lusc").symlink_to("../store")
    (tmp_path / "cohort/d.tiff").symlink_to(tmp_path / "disk/d.tiff")
    return tmp_path / "cohort"


def ids(folder: Path) -> list[str]:
    return [entry.slide for entry in list_slides(folder)]


def test_slides_behind_links_are_listed(cohort, caplog):
    assert ids(cohort) == ["a", "b", "c", "d"]
    assert not caplog.text
    (cohort.parent / "only").mkdir()
    (cohort.parent / "only/all").symlink_to(cohort)
    assert ids(cohort.parent / "only") == ["a", "b", "c", "d"]


def test_a_slide_that_several_links_lead_to_is_taken_once(cohort, caplog):
    (cohort / "luad/b.svs").symlink_to("../../store/b.svs")
    assert ids(cohort) == ["a", "b", "c", "d"]
    assert "1 slides are there twice by links, taken once" in caplog.text


def test_two_slides_of_one_name_are_an_error_still(cohort):
    (cohort / "luad/b.svs").write_bytes(b"other pixels")
    with pytest.raises(ValueError, match=r"two slides have the id b: .*b\.svs and .*b\.svs"):
        list_slides(cohort)


@pytest.mark.parametrize(
    "name", ["._a.svs", ".hidden/x.svs", "Thumbs.db", ".DS_Store", "__MACOSX/a.svs", "@eaDir/a.svs"]
)
def test_what_systems_leave_behind_is_no_slide(cohort, caplog, name):
    (cohort / name).parent.mkdir(exist_ok=True)
    (cohort / name).write_bytes(b"x")
    assert ids(cohort) == ["a", "b", "c", "d"]
    assert not caplog.text


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["x.czi", "y.CZI", "z.xml"], "3 files that are no slides by their names left out (2 .czi"),
        (["notes"], "(1 without ending; the first notes)"),
        (["u.svs.partial"], "1 unfinished downloads (*.partial) left out"),
        (["u.svs.gz"], "(1 .gz; the first u.svs.gz)"),
        ([f"f.{i}" for i in range(10)], ", …; the first f.0)"),
    ],
)
def test_files_of_other_kinds_are_counted_and_named(cohort, caplog, names, said):
    for name in names:
        (cohort / name).write_bytes(b"x")
    assert ids(cohort) == ["a", "b", "c", "d"]
    assert said in caplog.text


def test_the_data_of_a_mirax_slide_are_no_other_files(tmp_path, caplog):
    (tmp_path / "m").mkdir()
    for name in ("m.mrxs", "m/Data0000.dat", "m/Slidedat.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert ids(tmp_path) == ["m"]
    assert not caplog.text


def test_a_folder_without_slides_says_what_it_holds(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no slides .* it is empty"):
        list_slides(tmp_path)
    (tmp_path / "a.czi").write_bytes(b"x")
    (tmp_path / "cohort").symlink_to("/nowhere")
    with pytest.raises(FileNotFoundError, match=r"1 link .* to nowhere .*\(1 \.czi; the first a"):
        list_slides(tmp_path)


def test_a_link_to_nowhere_is_recorded_as_failed(cohort, tmp_path, caplog):
    (cohort / "gone.svs").symlink_to("/mnt/archive/gone.svs")
    (entry,) = [e for e in list_slides(cohort) if e.slide == "gone"]
    assert "gone.svs) to nowhere (is the disk mounted?)" in caplog.text
    assert "1 of 5 slides are not there" in caplog.text
    record = extract_slide(entry, tmp_path, SETTINGS)
    assert record["outcome"] == "failed"
    assert "is a link to /mnt/archive/gone.svs, and that is not there" in record["reason"]
    assert json.loads((tmp_path / "gone.json").read_text())["outcome"] == "failed"


def test_a_folder_of_nothing_but_links_to_nowhere_is_an_error(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/a.svs").symlink_to("/nowhere/a.svs")
    with pytest.raises(FileNotFoundError, match=r"none of its 1 slides is there.*link to nowhere"):
        list_slides(tmp_path / "c")
    (tmp_path / "d").symlink_to("/nowhere")
    with pytest.raises(FileNotFoundError, match="a link to /nowhere that is not there"):
        list_slides(tmp_path / "d")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (LFS, r"is a Git LFS pointer to 86,016 bytes, .*git lfs pull"),
        (b"<!DOCTYPE html><title>Log in</title>", r"is a web page \('Log in'\)"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "message .NoSuchKey."),
        (bytes(5000), "begins with zeros"),
        (b"II*\0\xff\xff\xff\x00" + bytes(90), "is a TIFF cut short at 98 bytes"),
        (b"PK\x03\x04" + b"x" * 90 + b"PK\x05\x06", "is no slide that .* but a zip archive"),
        (b"\x1f\x8b\x08" + b"x" * 90, "is no slide that OpenSlide can open, but a gzip file"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 90, "is no slide that .* but a PNG image"),
        (b"%PDF-1.7", "is no slide that OpenSlide can open, but a PDF"),
        (b"path,mpp\na.svs,0.25\n", "is no slide that OpenSlide can open, but text"),
        (b'{"message": "not found"}', "is no slide that OpenSlide can open, but JSON"),
    ],
)
def test_a_slide_that_is_none_is_called_what_it_is(tmp_path, content, said):
    path = tmp_path / "x.svs"
    path.write_bytes(content)
    record = extract_slide(Entry("x", path), tmp_path, SETTINGS)
    assert record["outcome"] == "failed"
    with pytest.raises(ValueError, match=said):
        raise ValueError(record["reason"])


def test_a_pointer_is_named_before_its_size_is_wrong(tmp_path):
    (tmp_path / "x.svs").write_bytes(LFS)
    entry = Entry("x", tmp_path / "x.svs", size=86016)
    assert "is a Git LFS pointer" in extract_slide(entry, tmp_path, SETTINGS)["reason"]


def test_what_a_mac_leaves_in_a_cells_folder_is_no_record(cells, tmp_path):
    copy = shutil.copytree(cells, tmp_path / "cells")
    (copy / "._PAINTED-0001.json").write_bytes(b"\0\5\x16\7Mac OS X")
    assert [row["slide"] for row in survey(copy, None)] == ["PAINTED-0001", "PAINTED-0002"]
    assert len(finished_slides(copy)) == 2
    write_sheet(copy, tmp_path / "sheet", slides=1)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("PAINTED-0001.json", b"", r"json is empty"),
        ("PAINTED-0001.json", b"[]", r"json is no outcome of extract"),
        ("PAINTED-0001.json", b'{"a": 1}', r"json is no outcome of extract, for it names none"),
        ("PAINTED-0001.json", b"{", r"json is no outcome of extract \(JSONDecodeError"),
        ("PAINTED-0001.json", b"\xff\xfe{\0", r"json is no outcome of extract \(Unicode"),
        ("PAINTED-0001.parquet", b"", r"parquet is empty"),
        ("PAINTED-0001.parquet", LFS, r"parquet is a Git LFS pointer"),
        ("PAINTED-0001.parquet", b"PAR1" * 20, r"parquet: .*; extract that slide again"),
        ("PAINTED-0001.parquet", b"PAR1" + b"x" * 50, r"is a Parquet file cut short"),
    ],
)
def test_cells_that_are_none_are_called_what_they_are(cells, tmp_path, name, content, said):
    copy = shutil.copytree(cells, tmp_path / "cells")
    (copy / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        kept_cells(copy)
