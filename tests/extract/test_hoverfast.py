"""HoverFast under supervision, against a stand-in that misbehaves as the real one was seen to."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile

from demo.paint import paint, write_slide
from extract.main import main
from extract.segment import hoverfast
from extract.segment.options import HoverFast, Run
from extract.slide import Slide
from extract.slides import Entry

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests/extract/hoverfast_stand_in.py"
CENTRES = [(x, y) for y in range(80, 440, 60) for x in range(80, 600, 60)]  # of the stand-in's
ASKED = HoverFast("0" * 64)


def run(behaviour: str, **limits: float) -> Run:
    """Return how to run the stand-in, with short limits."""
    command = f"{sys.executable} {STAND_IN} {behaviour}"
    return Run(command, "model.pth", **{"limit_s": 20.0, "stall_s": 5.0} | limits)


@pytest.fixture
def slide(painted) -> Slide:
    return Slide(painted / "PAINTED-0001.tiff")


@pytest.fixture
def segment(slide, tmp_path):
    """Segment the slide with a behaviour of the stand-in; see that nothing runs on."""
    entry = Entry("one", slide.path)
    work = tmp_path / "segmentations"

    def go(behaviour: str, asked: HoverFast = ASKED, mask=None, **limits: float):
        try:
            return hoverfast.segment(slide, entry, asked, run(behaviour, **limits), mask, work)
        finally:
            assert not running(tmp_path)
            assert not list(work.glob(".*"))

    return go


def running(folder: Path) -> list[int]:
    """Return the processes that were started in a folder."""
    mark, pids = f"LEMON_CHILD={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes():
                pids.append(int(path.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return pids


# ---- what is accepted ----------------------------------------------------------------------------


def test_whole_output_is_accepted_and_kept(segment, tmp_path):
    found, about = segment("good")
    assert np.abs(found.xy - CENTRES).max() < 1
    assert found.polygons.present.all()
    assert not found.duplicate.any()
    assert found.labels is None  # "Nuclei" is no class
    assert about["attempts"] == 1
    assert "no nucleus within 64 px of its top and left border" in about["remarks"][0]
    assert (tmp_path / "segmentations/one.json.gz").is_file()
    again, about = segment("silent")  # not run: the kept output is read
    assert np.array_equal(again.xy, found.xy)
    assert about["remarks"][0] == "read from the output kept of an earlier run"
    kept = tmp_path / "segmentations/one.json.gz"
    kept.write_bytes(kept.read_bytes()[:-20])  # damaged since: found anew
    again, about = segment("good")
    assert np.array_equal(again.xy, found.xy)
    assert "kept" not in about["remarks"][0]
    with pytest.raises(ValueError, match="ended without output"):
        segment("silent", replace(ASKED, options="-p 3"))  # other options: run anew


def test_an_array_of_nothing_is_an_output(segment):
    found, _ = segment("none")
    assert len(found.xy) == 0


def test_a_slow_child_that_is_alive_is_not_killed(segment):
    found, about = segment("slow", stall_s=1.0)
    assert len(found.xy) == len(CENTRES)
    assert about["attempts"] == 1


def test_a_second_attempt_may_succeed(segment):
    found, about = segment("second")
    assert len(found.xy) == len(CENTRES)
    assert about["attempts"] == 2


def test_the_bounds_are_added(segment, slide):
    slide.properties |= {"openslide.bounds-x": "30", "openslide.bounds-y": "20"}
    found, about = segment("good")
    assert np.abs(found.xy - CENTRES - (30, 20)).max() < 1
    assert any("bounds at 30, 20" in remark for remark in about["remarks"])


def test_a_nucleus_on_a_seam_is_kept_once(segment, tmp_path, slide):
    spec = importlib.util.spec_from_file_location("stand_in", STAND_IN)
    stand_in = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stand_in)
    from extract.segment.imported import gather
    from extract.segment.nuclei_file import open_nuclei

    path = tmp_path / "seam.json"
    path.write_text(stand_in.text([(100, 100), (200, 100), (101, 100), (214, 100), (100, 100)]))
    found = gather(open_nuclei(path), 1.0, (0, 0), 0.25)
    assert found.duplicate.tolist() == [False, False, True, False, True]


def test_a_mask_reaches_hoverfast_as_it_wants_it(run_stage, painted, tmp_path):
    mask = np.zeros((128, 160), np.uint8)
    mask[:, :80] = 255
    folder = tmp_path / "masks" / "PAINTED-0001.tiff"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "PAINTED-0001.tiff_mask_use.png"), mask)
    cv2.imwrite(str(folder / "PAINTED-0001.tiff_thumb.png"), mask)
    (tmp_path / "model.pth").touch()
    words = [painted / "PAINTED-0001.tiff", "--masks", f"{tmp_path}/masks/*/*_mask_use.png"]
    flags = ["--segmenter", "hoverfast", "--hoverfast-model", tmp_path / "model.pth"]
    flags += ["--hoverfast-command", run("masked").command]
    for name, extra in (("hoverfast", flags), ("rays", [])):
        out = tmp_path / name
        done = run_stage("extract/main.py", *words, "--out", out, *extra)
        assert done.returncode == 0, done.stdout + done.stderr
        x = pq.read_table(out / "PAINTED-0001.parquet")["x"].to_numpy()
        assert len(x) > 20
        assert x.max() < 321
    done = run_stage("extract/main.py", words[0], "--masks", tmp_path / "masks", "--out", tmp_path)
    assert "2 files belong to slide PAINTED-0001" in done.stdout
    assert "--masks '" in done.stdout


# ---- what is not ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "limits", "message"),
    [
        ("silent", {}, "ended without output; it said: File PAINTED-0001 failed: Unsupported"),
        ("usage", {}, "exit code 1; it said: HoverFast infer_wsi: error: argument -g/--batch"),
        ("truncated", {}, "gzip does not read to its end"),
        ("unclosed", {}, "in the middle of its objects"),
        ("killed", {}, "killed by signal 9"),
        ("spin", {"stall_s": 0.5}, "reported a failure and did not end; it said: .*Corrupt JPEG"),
        ("escape", {"stall_s": 0.5}, "reported a failure and did not end"),
        ("spin-quietly", {"limit_s": 1.0}, "over its time limit"),
        ("stall", {"stall_s": 1.0}, "neither CPU time nor output for 1 s"),
    ],
)
def test_what_is_not_whole_fails_twice_with_hoverfasts_words(
    segment, tmp_path, behaviour, limits, message
):
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"HoverFast failed 2 times: .*{message}"):
        segment(behaviour, **limits)
    assert time.monotonic() - start < 30
    assert not (tmp_path / "segmentations/one.json.gz").exists()
    assert "Working on" in (tmp_path / "segmentations/one.log").read_text() or behaviour == "killed"


def test_no_such_command(slide, tmp_path):
    nowhere = Run("no-such-hoverfast", "model.pth")
    with pytest.raises(FileNotFoundError, match=r"no program 'no-such-hoverfast'.*--hoverfast-co"):
        hoverfast.segment(slide, Entry("one", slide.path), ASKED, nowhere, None, tmp_path)


# ---- scale ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scaleless(tmp_path_factory) -> Path:
    """A slide without any scale."""
    path = tmp_path_factory.mktemp("scale") / "scaleless.tiff"
    rgb, _ = paint(640, 512, 1)
    tifffile.imwrite(path, rgb, tile=(256, 256), photometric="rgb", metadata=None)
    return path


def test_an_assumed_scale_is_said_or_refused(scaleless, tmp_path):
    entry = Entry("s", scaleless)
    _, about = hoverfast.segment(
        Slide(scaleless, 0.25), entry, ASKED, run("assuming"), None, tmp_path
    )
    assert any("found no mpp and assumed 0.245; the slide is 0.25" in r for r in about["remarks"])
    with pytest.raises(ValueError, match=r"take it for 40X at 0.245 µm/px .* but it is 0.5 .*20X"):
        hoverfast.segment(Slide(scaleless, 0.5), entry, ASKED, run("good"), None, tmp_path)


def test_a_20x_slide_needs_its_magnification(tmp_path):
    rgb, _ = paint(640, 512, 1)
    write_slide(tmp_path / "s.tiff", rgb, 0.5)
    slide, entry = Slide(tmp_path / "s.tiff"), Entry("s", tmp_path / "s.tiff")
    with pytest.raises(
        ValueError, match="refuses to work at 40X on it; --hoverfast-options '-l 20'"
    ):
        hoverfast.segment(slide, entry, ASKED, run("good"), None, tmp_path / "w")
    asked = replace(ASKED, magnification=20.0)
    _, about = hoverfast.segment(slide, entry, asked, run("good"), None, tmp_path / "w")
    assert "it worked at 20X on 0.5 µm/px, not resampled" in about["remarks"]
    # Where HoverFast's own OpenSlide knows less than ours, it assumes 40X: refused afterwards.
    with pytest.raises(ValueError, match=r"it assumed 0.245 µm/px; it is 0.5"):
        hoverfast.segment(slide, entry, asked, run("assuming"), None, tmp_path / "v")


# ---- the command ---------------------------------------------------------------------------------


def test_a_cohort_with_equal_stems_a_failure_and_a_rerun(run_stage, painted, tmp_path):
    (tmp_path / "model.pth").write_bytes(b"weights")
    lines = ["slide_id,path"]
    for name in ("a", "b[1]"):
        (tmp_path / name).mkdir()
        shutil.copy(painted / f"PAINTED-000{len(lines)}.tiff", tmp_path / name / "same.tiff")
        lines.append(f"{name[0]},{name}/same.tiff")
    (tmp_path / "slides.csv").write_text("\n".join(lines))
    flags = ["--segmenter", "hoverfast", "--hoverfast-model", tmp_path / "model.pth"]
    flags += ["--workers", 2, "--out", tmp_path / "cells", "--hoverfast-options", "-n 1 -p 6"]
    words = [tmp_path / "slides.csv", *flags, "--hoverfast-command"]
    failed = run_stage("extract/main.py", *words, run("truncated").command)
    assert failed.returncode == 1
    assert failed.stdout.count("gzip does not read to its end") == 2
    done = run_stage("extract/main.py", *words, run("good").command)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in "ab":
        record = json.loads((tmp_path / f"cells/{name}.json").read_text())
        assert record["detected"] == len(CENTRES) == sum(record["fates"].values())
        assert record["fates"]["kept"] > 40
        assert record["segmentation"]["made_by"]["options"] == "-p 6"
        assert record["segmentation"]["remarks"]
        assert record["settings"]["hoverfast"]["model"].startswith("9a129038d9a00aed")
        assert "run" not in record["settings"]
        table = pq.read_table(tmp_path / f"cells/{name}.parquet")
        assert json.loads(table.schema.metadata[b"lemon"])["stain"]
    # A container elsewhere changes nothing; finished slides are passed over.
    again = run_stage("extract/main.py", *words, "/elsewhere/HoverFast")
    assert again.returncode == 0
    anew = run_stage("extract/main.py", *words, "/elsewhere/HoverFast", "--overwrite")
    assert anew.returncode == 0, anew.stdout  # from the kept output
    other = run_stage("extract/main.py", *words, "x", "--hoverfast-options", "-p 3")
    assert other.returncode == 2
    assert "extracted with other settings" in other.stderr


@pytest.mark.parametrize("at_once", [1, 2])
def test_as_many_run_at_once_as_there_are_places(run_stage, painted, tmp_path, at_once):
    (tmp_path / "model.pth").touch()
    flags = ["--segmenter", "hoverfast", "--hoverfast-model", tmp_path / "model.pth"]
    flags += ["--workers", 2, "--hoverfast-at-once", at_once, "--out", tmp_path / "cells"]
    command = run("timed").command
    done = run_stage("extract/main.py", painted, *flags, "--hoverfast-command", command)
    assert done.returncode == 0, done.stdout + done.stderr
    times = np.loadtxt(tmp_path / "cells/segmentations/times")
    (_, end), (start, _) = times[np.argsort(times[:, 0])]
    assert (start < end) == (at_once == 2)


HOVERFAST = ["--hoverfast-command", "x", "--hoverfast-model", "x", "--hoverfast-options"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--hoverfast-command", "HoverFast"], "needs --hoverfast-model"),
        (["--hoverfast-model", "none.pth"], "there is no such file"),
        (["--hoverfast-options", "-n 4"], "give --hoverfast-command"),
        ([*HOVERFAST, "-l forty"], "-l forty is no magnification"),
        ([*HOVERFAST, "-l 0"], "-l 0 is no magnification"),
        ([*HOVERFAST, "-n '4"], "No closing quotation"),
        ([*HOVERFAST, "-n 4 -g"], "pairs of an option and its value"),
        ([*HOVERFAST, "-o elsewhere"], "-o is not for you to set"),
        (["--segmenter", "torchscript"], "needs --model"),
        (["--segmenter", "import"], "needs --from"),
        (["--from", "x"], "belong to --segmenter import"),
        (["--segmenter", "import", "--from", "x", "--masks", "m"], "taken as it is"),
        (["--segmenter", "import", "--from", "x", "--from-mpp", "0"], "above 0"),
        (["--hoverfast-stall", "0"], "above 0"),
        (["--hoverfast-at-once", "0"], "0 is less than 1"),
        (["--workers", "0"], "0 is less than 1"),
        (["--part", "2", "--parts", "2"], "count from 0"),
    ],
)
def test_flags_that_do_not_fit(painted, tmp_path, capsys, flags, message):
    try:
        code = main([str(painted), "--out", str(tmp_path / "cells"), *flags])
    except SystemExit as ended:  # argparse's own
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_a_killed_extractor_leaves_nothing_running(painted, tmp_path):
    (tmp_path / "model.pth").touch()
    command = [sys.executable, ROOT / "extract/main.py", painted / "PAINTED-0001.tiff", "--out"]
    command += [tmp_path / "cells", "--segmenter", "hoverfast", "--hoverfast-model"]
    command += [tmp_path / "model.pth", "--hoverfast-command", run("stall").command]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    folder = tmp_path / "cells/segmentations"
    end = time.monotonic() + 20
    while not (found := running(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    assert found
    parent = int(Path(f"/proc/{found[0]}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, 9)  # the worker
    while running(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not running(folder)
    assert process.wait(20) == 1
    assert list(folder.glob(".*.attempt"))  # what the killed one left
    slide, entry = Slide(painted / "PAINTED-0001.tiff"), Entry("PAINTED-0001", painted / "x")
    entry = replace(entry, path=slide.path)
    hoverfast.segment(slide, entry, ASKED, run("good"), None, folder)
    assert not list(folder.glob(".*.attempt"))


def test_the_real_hoverfast_on_a_tiny_slide(painted, tmp_path):
    model = os.environ.get("HOVERFAST_MODEL")
    if not shutil.which("HoverFast") or not model:
        pytest.skip("no HoverFast on PATH with HOVERFAST_MODEL naming its checkpoint")
    slide = Slide(painted / "PAINTED-0001.tiff")
    real = Run("HoverFast", model, "-n 1 -g 1 -r 1", limit_s=600)
    _, about = hoverfast.segment(slide, Entry("one", slide.path), ASKED, real, None, tmp_path)
    assert (tmp_path / "one.json.gz").is_file()
    assert about["attempts"] == 1
