"""Users' folders: links, circles, what cannot be read, and what systems leave behind."""

import os
from pathlib import Path

import pytest

from shards import folder
from shards.folder import is_hidden, list_folder, visible


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def names(root: Path) -> list[str]:
    return [str(p.relative_to(root)) for p in list_folder(root).files]


@pytest.fixture
def cohort(tmp_path) -> Path:
    """A cohort on several disks, put together with ln -s."""
    touch(tmp_path / "cohort/luad/a.svs")
    touch(tmp_path / "store/lusc/b.svs")
    touch(tmp_path / "store/lusc/deep/c.svs")
    touch(tmp_path / "store/d.svs")
    (tmp_path / "cohort/lusc").symlink_to("../store/lusc")
    (tmp_path / "cohort/d.svs").symlink_to(tmp_path / "store/d.svs")
    return tmp_path / "cohort"


def test_linked_folders_are_entered(cohort):
    assert names(cohort) == ["d.svs", "luad/a.svs", "lusc/b.svs", "lusc/deep/c.svs"]
    assert list_folder(cohort).remarks() == []


def test_a_folder_that_is_a_link_is_listed(cohort):
    (cohort.parent / "only").symlink_to("cohort/lusc")
    assert names(cohort.parent / "only") == ["b.svs", "deep/c.svs"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../cohort/luad/../..", "self"])
def test_circles_end(cohort, target):
    (cohort / "luad/self").symlink_to(target)
    found = list_folder(cohort)
    assert sum(p.name == "a.svs" for p in found.files) == 1
    assert cohort / "luad/a.svs" in found.files
    assert found.remarks()


def test_two_ways_to_a_folder_give_its_files_once_by_the_way_without_links(cohort):
    (cohort / "aaa").symlink_to("luad")
    (cohort / "zzz").symlink_to("../store/lusc")
    found = list_folder(cohort)
    assert [p.relative_to(cohort).parts[0] for p in found.files] == ["d.svs", "luad", *["lusc"] * 2]
    assert found.repeated == [cohort / "aaa", cohort / "zzz"]
    assert "2 linked folders" in found.remarks()[0]


def test_dangling_links_are_named(cohort):
    for name in "1.svs 2 3 4".split():
        (cohort / name).symlink_to("/nowhere/at/all")
    found = list_folder(cohort)
    assert [p.name for p in found.dangling] == ["1.svs", "2", "3", "4"]
    assert "4 links (" in found.remarks()[0] and "…) to nowhere" in found.remarks()[0]


def test_folders_that_cannot_be_read_are_named(cohort, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "luad":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(folder.os, "scandir", refuse)
    before = list_folder(cohort.parent)
    assert cohort / "luad" in [path for path, _ in before.unreadable]
    found = list_folder(cohort)
    assert [p.name for p in found.files] == ["d.svs", "b.svs", "c.svs"]
    assert found.remarks() == [
        f"1 place ({cohort / 'luad'}) cannot be looked into (Permission denied)"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "._a.svs",
        ".DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        ".snapshot/day/a.svs",
        "__MACOSX/luad/a.svs",
        "@eaDir/a.svs/thumb.jpg",
        "$RECYCLE.BIN/a.svs",
        ".ipynb_checkpoints/a.csv",
    ],
)
def test_hidden_files_and_folders_are_passed_over(cohort, name):
    before = names(cohort)
    touch(cohort / name)
    assert names(cohort) == before
    assert is_hidden(name.split("/")[0])


def test_what_glob_finds_is_filtered(tmp_path):
    for name in ("b.json", "a.json", "._a.json"):
        touch(tmp_path / name)
    assert [p.name for p in visible(tmp_path.glob("*.json"))] == ["a.json", "b.json"]
