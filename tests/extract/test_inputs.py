"""What changes between two runs is done again: a slide, its mask, its segmentation."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.paint import paint, write_slide
from extract import inputs
from extract.contact_sheet import write_sheet
from extract.inputs import changed, fingerprint
from extract.job import extract_slide
from extract.ledger import Settings, is_finished, read_outcome
from extract.segment.options import Import
from extract.slides import Entry
from extract.status import describe, survey, write_status

PLAIN = Settings("rays", "jpeg", 0, None, any_scale=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A slide with a mask and a segmentation, extracted with each, and one at 20X."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed, mpp in (("A", 1, 0.25), ("other", 2, 0.25), ("twenty", 3, 0.5)):
        write_slide(folder / f"{name}.tiff", paint(400, 300, seed)[0], mpp)
    (folder / "seg").mkdir()
    (folder / "seg/A.csv").write_text("x,y\n100,100\n200,200\n")
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks/A.png"), np.full((30, 40), 255, np.uint8))
    for out, entry, settings in cases(folder):
        (folder / out).mkdir()
        extract_slide(entry, folder / out, settings)
    return folder


def cases(folder: Path) -> list[tuple[str, Entry, Settings]]:
    """Return cells folder, slide and settings of each run."""
    entry = Entry("A", folder / "A.tiff")
    imported = Settings("import", "jpeg", 0, None, False, imported=Import(str(folder / "seg")))
    masked = Settings("rays", "jpeg", 0, None, False, masks=str(folder / "masks"))
    return [
        ("plain", entry, PLAIN),
        ("import", entry, imported),
        ("masked", entry, masked),
        ("skipped", Entry("twenty", folder / "twenty.tiff"), PLAIN),
    ]


@pytest.fixture
def home(made, tmp_path) -> Path:
    """A copy whose paths are the copy's, times of modification kept."""
    home = shutil.copytree(made, tmp_path / "made")
    for path in home.glob("*/*.json"):
        path.write_text(path.read_text().replace(str(made), str(home)))
    return home


def finished(home: Path, out: str) -> bool:
    (case,) = [case for case in cases(home) if case[0] == out]
    return is_finished(home / out, case[1], case[2])


def outcome(home: Path, out: str) -> tuple[str, str]:
    (row,) = survey(home / out, None)
    return row["outcome"], row["reason"]


def later(path: Path) -> None:
    """Give a file a later time of modification, as a copy has."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 10**9))


def edit(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        path = home / name
        path.write_bytes(path.read_bytes().replace(old, new))
        later(path)

    return change


def replaced(name: str, by: str) -> Callable[[Path], None]:
    def change(home: Path) -> None:
        shutil.copy(home / by, home / name)
        later(home / name)

    return change


def repaint_mask(home: Path) -> None:
    mask = np.full((30, 40), 255, np.uint8)
    mask[:10] = 0
    cv2.imwrite(str(home / "masks/A.png"), mask)
    later(home / "masks/A.png")


@pytest.mark.parametrize("out", ["plain", "import", "masked", "skipped"])
def test_what_has_not_changed_is_passed_over(home, out):
    record = read_outcome(home / out, "twenty" if out == "skipped" else "A")
    kinds = {"import": {"slide", "segmentation"}, "masked": {"slide", "mask"}}
    assert set(record["inputs"]) == kinds.get(out, {"slide"})
    for kept in record["inputs"].values():
        status = Path(kept["path"]).stat()
        assert (kept["size"], kept["mtime_ns"]) == (status.st_size, status.st_mtime_ns)
    assert finished(home, out)
    assert outcome(home, out)[0] == record["outcome"]


@pytest.mark.parametrize("out", ["plain", "import", "masked", "skipped"])
def test_a_copy_of_the_same_bytes_is_no_change(home, out):
    for path in [*home.glob("*.tiff"), *home.glob("seg/*"), *home.glob("masks/*")]:
        later(path)
    assert finished(home, out)
    assert outcome(home, out)[0] != "stale"


@pytest.mark.parametrize(
    ("out", "change", "what"),
    [
        ("plain", replaced("A.tiff", "other.tiff"), "slide"),
        ("import", replaced("A.tiff", "other.tiff"), "slide"),
        ("skipped", replaced("twenty.tiff", "other.tiff"), "slide"),
        ("plain", lambda home: (home / "A.tiff").write_bytes(b""), "slide"),
        ("import", edit("seg/A.csv", b"\n200,200\n", b"\n200,200\n30,30\n"), "segmentation"),
        ("import", edit("seg/A.csv", b"200,200", b"200,201"), "segmentation"),  # of equal size
        ("import", edit("seg/A.csv", b"x,y", b"y,x"), "segmentation"),
        ("masked", repaint_mask, "mask"),
        ("masked", replaced("A.tiff", "other.tiff"), "slide"),
    ],
)
def test_what_has_changed_is_done_again(home, out, change, what):
    change(home)
    assert not finished(home, out)
    found, reason = outcome(home, out)
    assert found == "stale"
    assert reason.startswith(f"its {what} {home}") and "has changed since it was" in reason
    rows = survey(home / out, None)
    write_status(rows, home / "status")
    assert len((home / "status/resubmit.csv").read_text().splitlines()) == 2
    assert "its " + what in describe(rows) and "stale" in describe(rows)


@pytest.mark.parametrize("name", ["A.tiff", "seg/A.csv"])
def test_what_is_gone_is_not_judged(home, name):
    (home / name).unlink()
    assert finished(home, "import")
    assert outcome(home, "import")[0] == "done"


def test_what_does_not_concern_a_slide_is_no_change(home):
    repaint_mask(home)
    (home / "seg/B.csv").write_text("x,y\n1,1\n")
    assert finished(home, "plain")
    assert finished(home, "import")


@pytest.mark.parametrize("out", ["plain", "import", "masked"])
def test_records_of_early_versions_stay_valid(home, out):
    path = home / out / "A.json"
    record = json.loads(path.read_text())
    del record["inputs"]
    path.write_text(json.dumps(record))
    replaced("A.tiff", "other.tiff")(home)
    assert finished(home, out)
    assert outcome(home, out)[0] == "done"


def test_a_slide_that_was_moved_is_the_same(home):
    (home / "moved").mkdir()
    shutil.copy(home / "A.tiff", home / "moved/A.tiff")
    assert is_finished(home / "plain", Entry("A", home / "moved/A.tiff"), PLAIN)
    shutil.copy(home / "other.tiff", home / "moved/A.tiff")
    assert not is_finished(home / "plain", Entry("A", home / "moved/A.tiff"), PLAIN)


def test_an_md5_that_is_known_is_kept_and_compared(home):
    record = read_outcome(home / "plain", "A")
    record["inputs"]["slide"]["md5"] = "aa"
    assert changed(record, Entry("A", home / "A.tiff", md5="AA")) is None
    assert "another MD5" in changed(record, Entry("A", home / "A.tiff", md5="bb"))


def test_the_sheet_does_not_cut_another_slide(home):
    replaced("A.tiff", "other.tiff")(home)
    page = write_sheet(home / "plain", home / "sheet", slides=1).read_text()
    assert "has changed since it was extracted; only what is in the cells folder is shown" in page


def test_a_large_slide_is_told_by_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "WHOLE", 1000)
    monkeypatch.setattr(inputs, "PIECE", 100)
    path = tmp_path / "large.svs"
    content = np.random.default_rng(0).integers(0, 256, 50_000, np.uint8).tobytes()
    path.write_bytes(content)
    kept = {"inputs": {"slide": fingerprint(path, whole=False)}}
    for at in (0, 49_999):  # head and tail
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        later(path)
        assert "has changed" in changed(kept)
    path.write_bytes(content)
    later(path)
    assert changed(kept) is None


def test_the_command_does_anew_what_has_changed(run_stage, home):
    flags = ("--out", home / "import", "--workers", 1, "--segmenter", "import", "--from")
    (home / "seg/A.csv").write_text("x,y\n100,100\n200,200\n300,200\n")
    done = run_stage("extract/main.py", home / "A.tiff", *flags, home / "seg")
    assert done.returncode == 0
    assert "A: its segmentation" in done.stderr and "it is extracted anew" in done.stderr
    assert "3 nuclei detected" in done.stdout
