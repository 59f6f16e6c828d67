"""Lists of slides as users have them: folders, CSV, GDC manifests and sample sheets."""

import csv
import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import pytest

from extract import gdc
from extract.slides import Entry, check_download, list_slides

UUIDS = [f"{n:08x}-1111-4222-8333-{n:012x}" for n in range(1, 7)]
NAMES = [
    "TCGA-A7-A13E-01Z-00-DX1.6B6A0D7A-0000-4000-8000-000000000001.svs",
    "TCGA-A7-A13E-01Z-00-DX2.6b6a0d7a-0000-4000-8000-000000000002.svs",
    "TCGA-BH-A1FU-11A-02-TSB.6b6a0d7a-0000-4000-8000-000000000003.svs",
    "TCGA-AY-A8YK-01A-01-BS1.6b6a0d7a-0000-4000-8000-000000000004.svs",
    "TCGA-21-5784-01Z-00-DX1.6b6a0d7a-0000-4000-8000-000000000005.svs",
    "nationwidechildrens.org_clinical_patient_brca.txt",
]


@pytest.fixture
def tcga(tmp_path) -> Path:
    """A folder as gdc-client leaves it, one download unfinished, and its manifest and sheet."""
    root = tmp_path / "tcga"
    rows = []
    for uuid, name in zip(UUIDS, NAMES, strict=True):
        folder = root / uuid
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / f"{name}.parcel").touch()
        content = f"pixels of {name}".encode()
        partial = name.startswith("TCGA-21")
        (folder / (name + ".partial" if partial else name)).write_bytes(content)
        md5 = hashlib.md5(content).hexdigest()
        rows.append([uuid, name, md5, str(len(content)), "released"])
    write_rows(tmp_path / "gdc_manifest.txt", "id filename md5 size state".split(), rows)
    columns = ["File ID", "File Name", "Data Category", "Project ID", "Case ID", "Sample Type"]
    cases = ["TCGA-A7-A13E, TCGA-A7-A13E", "TCGA-A7-A13E", "", "", "TCGA-21-5784", ""]
    projects = ["TCGA-BRCA", "TCGA-BRCA", "TCGA-BRCA", "TCGA-READ", "TCGA-LUSC", "TCGA-BRCA"]
    sheet = [
        [u, n, "Biospecimen", p, c, "Primary Tumor"]
        for u, n, p, c in zip(UUIDS, NAMES, projects, cases, strict=True)
    ]
    write_rows(tmp_path / "gdc_sample_sheet.tsv", columns, sheet)
    return tmp_path


def write_rows(path: Path, columns: list[str], rows: list[list[str]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([columns, *rows])


def test_a_manifest_gives_diagnostic_slides_with_project_and_case(tcga, caplog):
    listed = list_slides(
        tcga / "gdc_manifest.txt",
        slides_root=tcga / "tcga",
        sample_sheet=tcga / "gdc_sample_sheet.tsv",
    )
    assert [(e.slide, e.project, e.case) for e in listed] == [
        ("TCGA-21-5784-01Z-00-DX1", "TCGA-LUSC", "TCGA-21-5784"),
        ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-BRCA", "TCGA-A7-A13E"),
        ("TCGA-A7-A13E-01Z-00-DX2", "TCGA-BRCA", "TCGA-A7-A13E"),
    ]
    assert listed[1].path == tcga / "tcga" / UUIDS[0] / NAMES[0]
    assert listed[1].size == len(f"pixels of {NAMES[0]}") and listed[1].md5 is None
    assert "2 frozen sections left out (--frozen takes them)" in caplog.text
    assert "1 of 3 slides are not there" in caplog.text
    frozen = list_slides(tcga / "gdc_manifest.txt", slides_root=tcga / "tcga", frozen=True)
    assert len(frozen) == 5
    assert frozen[-1].case == "TCGA-BH-A1FU"  # told by the name, without a sheet


def test_the_list_is_the_same_whatever_the_order_of_the_manifest(tcga):
    lines = (tcga / "gdc_manifest.txt").read_text().splitlines()
    expected = list_slides(tcga / "gdc_manifest.txt", slides_root=tcga / "tcga")
    for seed in range(5):
        shuffled = random.Random(seed).sample(lines[1:], len(lines) - 1)
        (tcga / "other.tsv").write_text("\n".join([lines[0], *shuffled]))
        assert list_slides(tcga / "other.tsv", slides_root=tcga / "tcga") == expected


def test_a_folder_in_gdcs_layout_knows_its_partial_and_frozen_files(tcga, caplog):
    listed = list_slides(tcga / "tcga", sample_sheet=tcga / "gdc_sample_sheet.tsv")
    assert [e.slide[-3:] for e in listed] == ["DX1", "DX2"]
    assert {e.project for e in listed} == {"TCGA-BRCA"}
    assert "1 unfinished downloads (*.partial) left out" in caplog.text
    assert "2 frozen sections left out" in caplog.text


def test_slides_laid_flat_are_found_by_a_manifest(tcga):
    for uuid, name in zip(UUIDS[:2], NAMES[:2], strict=True):
        (tcga / "tcga" / uuid / name).rename(tcga / name)
    listed = list_slides(tcga / "gdc_manifest.txt", slides_root=tcga)
    assert listed[1].path == tcga / NAMES[0]


def test_a_csvs_rows_are_taken_as_given(tcga):
    path = tcga / "mine.csv"
    path.write_text(
        f"path,case\ntcga/{UUIDS[2]}/{NAMES[2]},P1\ntcga/{UUIDS[0]}/{NAMES[0]},\nnot/there.svs,\n"
    )
    listed = list_slides(path, verify_md5=True)
    assert [(e.slide, e.case) for e in listed] == [
        ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13E"),
        ("TCGA-BH-A1FU-11A-02-TSB", "P1"),
        ("there", None),
    ]


def test_size_and_md5_are_checked(tcga):
    def listed() -> Entry:
        return list_slides(tcga / "gdc_manifest.txt", slides_root=tcga / "tcga", verify_md5=True)[1]

    check_download(listed())
    path = tcga / "tcga" / UUIDS[0] / NAMES[0]
    path.write_bytes(b"P" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match=r"has MD5 \w+ instead of \w+; download it again"):
        check_download(listed())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="has 73 bytes instead of 74; download it again"):
        check_download(listed())
    path.unlink()
    check_download(listed())  # absent: said when it is opened


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../etc\tx.svs\t\t1\treleased", "line 2: id '../../etc' is no UUID"),
        (f"{UUIDS[0]}\t../x.svs\t\t1\treleased", "line 2: '../x.svs' is no plain file name"),
        (f"{UUIDS[0]}\tx.svs\t\tbig\treleased", "line 2: size 'big' is no number of bytes"),
        (f"{UUIDS[0]}\tx.svs", "line 2 ends early: it has 2 cells under 5 names"),
        (f"{UUIDS[0]}\tx.txt\t\t1\treleased", "lists no slides"),
        (f"{UUIDS[0]}\tx.svs\tabc\t1\treleased", "line 2: md5 'abc' is no MD5"),
        (f"1\t{UUIDS[0]}\tx.svs\t\t1\treleased", "line 2 has 6 cells .*row.names = FALSE"),
        (f"{UUIDS[0]}\tx.svs\t\t1\treleased", "none of its 1 slides is there"),
    ],
)
def test_a_bad_manifest_is_named(tmp_path, line, message):
    (tmp_path / "m.txt").write_text(f"id\tfilename\tmd5\tsize\tstate\n{line}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list_slides(tmp_path / "m.txt", slides_root=tmp_path)


def test_what_is_missing_around_a_manifest_is_named(run_stage, tcga):
    manifest = tcga / "gdc_manifest.txt"
    for flags, message in [
        ([], "is a GDC manifest: say with --slides-root where its files are"),
        (["--slides-root", tcga / "none"], "--slides-root .* is no folder"),
        (["--slides-root", tcga / "tcga", "--sample-sheet", tcga / "none"], "no sample sheet"),
        (["--slides-root", tcga / "tcga", "--sample-sheet", manifest], "is no GDC sample sheet"),
    ]:
        done = run_stage("extract/main.py", manifest, "--out", tcga / "cells", *flags)
        assert done.returncode == 2
        assert re.search(message, done.stderr), done.stderr


def test_frozen_sections_by_name():
    assert gdc.is_frozen("TCGA-BH-A1FU-11A-02-TSB.uuid.svs")
    assert gdc.is_frozen("TCGA-BH-A1FU-11A-02-MS2")
    assert gdc.is_frozen("TCGA-BH-A1FU-01A-01-BS1.svs")
    assert not gdc.is_frozen("TCGA-A7-A13E-01Z-00-DX1.svs")
    assert not gdc.is_frozen("ANY-A1-TS1.svs")


def test_a_manifest_from_end_to_end(run_stage, painted, tmp_path):
    """One slide is done, one not downloaded: recorded as failed, and done once it is there."""
    rows = []
    for n, uuid in ((1, UUIDS[0]), (2, UUIDS[1])):
        slide = painted / f"PAINTED-000{n}.tiff"
        md5 = hashlib.md5(slide.read_bytes()).hexdigest()
        rows.append([uuid, f"TCGA-AA-000{n}-01Z-00-DX1.x.tiff", md5, slide.stat().st_size, "live"])
    write_rows(tmp_path / "m.txt", "id filename md5 size state".split(), rows)
    root, cells = tmp_path / "root", tmp_path / "cells"
    flags = ("--slides-root", root, "--verify-md5")

    def download(number: int) -> None:
        (root / UUIDS[number - 1]).mkdir(parents=True)
        name = root / UUIDS[number - 1] / rows[number - 1][1]
        shutil.copy(painted / f"PAINTED-000{number}.tiff", name)

    download(1)
    first = run_stage("extract/main.py", tmp_path / "m.txt", "--out", cells, *flags)
    assert first.returncode == 1
    assert "1 slide done, 0 skipped, 1 failed" in first.stdout
    assert "TCGA-AA-0002-01Z-00-DX1: there is no slide" in first.stdout
    record = json.loads((cells / "TCGA-AA-0001-01Z-00-DX1.json").read_text())
    assert record["case"] == "TCGA-AA-0001"
    status = run_stage("extract/main.py", "status", cells, tmp_path / "m.txt", *flags)
    assert status.returncode == 1
    download(2)
    again = tmp_path / "cells-status/resubmit.csv"
    second = run_stage("extract/main.py", again, "--out", cells, "--verify-md5")
    assert second.returncode == 0, second.stdout
    status = run_stage("extract/main.py", "status", cells, tmp_path / "m.txt", *flags)
    assert status.returncode == 0, status.stdout


def test_rows_of_several_manifests_count_once(tcga, caplog):
    path = tcga / "gdc_manifest.txt"
    before = list_slides(path, slides_root=tcga / "tcga")
    rows = path.read_text().splitlines()[1:]
    path.write_text(path.read_text() + "\n".join(rows[:2]) + "\n")
    assert list_slides(path, slides_root=tcga / "tcga") == before
    assert "2 rows repeat another, taken once" in caplog.text
