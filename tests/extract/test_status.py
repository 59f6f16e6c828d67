"""Status: every count checked against the files, and what to submit again."""

import csv
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from extract.main import COMMANDS
from extract.resubmission import flags_before
from extract.status import _reasons, survey
from shards.command_line import command_parser
from shards.schema import FATES

NAME = "PAINTED-0001"


@pytest.fixture
def copy(cells, tmp_path) -> Path:
    """A copy of the painted slides' cells, to be tampered with."""
    return shutil.copytree(cells, tmp_path / "cells")


def outcomes(cells: Path, digests: bool = False) -> dict[str, str]:
    return {row["slide"]: row["outcome"] for row in survey(cells, None, digests)}


def edit_record(cells: Path, **changes) -> dict:
    path = cells / f"{NAME}.json"
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(record))
    return record


def test_like_reasons_are_one_line_that_keeps_what_they_share():
    reasons = {
        "a": "slide a has no mpp; pass --mpp 0.25",
        "b": "slide b has no mpp; pass --mpp 0.25",
        "dicom": "dicom: 4.5e+06 px by dicom.mpp-x; pass --mpp 0.25",
        "c": "c: 3,000 px by dicom.mpp-x; pass --mpp 0.25",
        "none": None,
    }
    group = [{"slide": name, "path": None, "reason": said} for name, said in reasons.items()]
    assert _reasons(group) == [
        ("slide <slide> has no mpp; pass --mpp 0.25", 2),
        ("<slide>: # px by dicom.mpp-x; pass --mpp 0.25", 2),
    ]


def test_the_table_is_printed_and_written(run_stage, copy, painted):
    edit_record(copy, outcome="skipped", reason="not 40X: 0.501 µm/px", slide="TWENTY")
    (copy / f"{NAME}.json").rename(copy / "TWENTY.json")
    with open(painted / "slides.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    extra = [{"slide_id": s, "path": "none.tiff", "project": "P"} for s in ("TWENTY", "NEVER")]
    with open(copy.parent / "list.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows([r | {"path": painted / r["path"]} for r in rows] + extra)
    done = run_stage("extract/main.py", "status", copy, copy.parent / "list.csv")
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    record = json.loads((copy / "PAINTED-0002.json").read_text())
    assert ["done", "1", str(record["detected"]), str(record["fates"]["kept"]), "0.00"] in lines
    assert "1   not 40X: 0.501 µm/px" in done.stdout
    assert ["missing", "2", "0", "0", "0.00"] in lines
    table = pq.read_table(copy.parent / "cells-status/slides.parquet").to_pylist()
    assert [row["outcome"] for row in table] == ["missing", "missing", "done", "skipped"]
    assert table[2]["detected"] == sum(table[2][f.replace(" ", "_")] for f in FATES)
    assert len((copy.parent / "cells-status/slides.csv").read_text().splitlines()) == 5
    with open(copy.parent / "cells-status/resubmit.csv", newline="") as file:
        again = [*csv.DictReader(file)]
    assert (
        f"to resubmit: python extract/main.py {copy.parent}/cells-status/resubmit.csv "
        in done.stdout
    )
    assert "--segmenter rays" in done.stdout
    assert f"segmented by {record['versions']['segmenter']}: 1\n" in done.stdout
    assert [(row["slide_id"], row["project"]) for row in again] == [
        ("NEVER", "P"),
        (NAME, "PAINT-1"),
    ]


@pytest.mark.parametrize(
    ("commands", "flags"),
    [
        ([], []),
        (["extract/main.py slides.csv --out cells --part 2 --parts 9 --workers 4"], []),
        (
            ["extract/main.py extract '/a b/x.csv' --out c --any-scale --masks 'my masks/*.png'"],
            ["--any-scale", "--masks", "my masks/*.png"],
        ),
        (
            ["extract/main.py s --out c --segmenter import --from=seg --seed 3 --overwrite"] * 2
            + ["extract/main.py s --out c"],
            ["--segmenter", "import", "--seed", "3", "--from", "seg"],
        ),
        (["extract/main.py s --out c --flag-of-old 3"] * 2 + [""], []),
        (["extract/main.py it's --out c"], []),
        (
            ["extract/main.py s --out c"] * 2
            + [f"extract/main.py s --out c --segmenter rays --part {i} --parts 3" for i in range(3)]
            + ["extract/main.py s --out c --flag-of-old 3"] * 4,
            ["--segmenter", "rays"],
        ),
    ],
)
def test_resubmitting_takes_the_flags_of_most_slides(commands, flags, capsys):
    parser = command_parser("extract/main.py", None, COMMANDS, "extract")
    assert flags_before(commands, parser) == flags
    assert not capsys.readouterr().err


def test_all_done_is_exit_code_0(run_stage, copy, painted):
    done = run_stage("extract/main.py", "status", copy, painted / "slides.csv", "--digests")
    assert done.returncode == 0, done.stdout
    assert "resubmit" not in done.stdout
    for name in ("none", "list.csv"):
        (copy / "list.csv").touch()
        bad = run_stage("extract/main.py", "status", copy / name)
        assert bad.returncode == 2 and "no cells folder" in bad.stderr


def tamper_tar_end(cells: Path) -> None:
    path = cells / f"{NAME}.tar"
    path.write_bytes(path.read_bytes()[:-700])


def tamper_tar_name(cells: Path) -> None:
    path = cells / f"{NAME}.tar"
    path.write_bytes(path.read_bytes().replace(b"PAINTED-0001_", b"PAINTED-0009_"))


def tamper_table(cells: Path) -> None:
    path = cells / f"{NAME}.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


def tamper_fate(cells: Path) -> None:
    path = cells / f"{NAME}.parquet"
    table = pq.read_table(path)
    fates = pa.array(["edge"] * len(table)).cast(table.schema.field("fate").type.value_type)
    at = table.schema.get_field_index("fate")
    pq.write_table(table.set_column(at, "fate", fates.dictionary_encode()), path)


def tamper_offset(cells: Path) -> None:
    path = cells / f"{NAME}.parquet"
    table = pq.read_table(path)
    offsets = pa.array([None if o is None else o + 512 for o in table["offset"].to_pylist()])
    pq.write_table(
        table.set_column(table.schema.get_field_index("offset"), "offset", offsets), path
    )


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (tamper_tar_end, "PAINTED-0001.tar has"),
        (tamper_tar_name, "PAINTED-0001.tar holds 'PAINTED-0009_"),
        (lambda cells: (cells / f"{NAME}.tar").unlink(), "PAINTED-0001.tar: No such file"),
        (tamper_table, "PAINTED-0001.parquet has"),
        (tamper_fate, "PAINTED-0001.parquet counts {'edge'"),
        (tamper_offset, "PAINTED-0001.parquet's offsets leave gaps"),
        (lambda cells: (cells / f"{NAME}.parquet").write_bytes(b"PAR1"), "PAINTED-0001.parquet: "),
        (lambda cells: edit_record(cells, detected=3), "the record's fates sum to"),
        (lambda cells: (cells / f"{NAME}.json").write_text("{"), "is no outcome of extract"),
    ],
)
def test_what_does_not_add_up_is_broken(copy, tamper, message):
    tamper(copy)
    rows = {row["slide"]: row for row in survey(copy, None)}
    assert rows[NAME]["outcome"] == "broken"
    assert message in rows[NAME]["reason"]
    assert rows["PAINTED-0002"]["outcome"] == "done"


def test_a_flipped_bit_is_found_by_its_digest(copy):
    path = copy / f"{NAME}.tar"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    assert outcomes(copy)[NAME] == "done"
    assert outcomes(copy, digests=True)[NAME] == "broken"


def test_a_slide_whose_files_are_cut_short_is_done_anew(run_stage, copy, painted):
    whole = (copy / f"{NAME}.tar").read_bytes()
    tamper_tar_end(copy)
    done = run_stage(
        "extract/main.py", painted / "slides.csv", "--out", copy, "--segmenter", "rays"
    )
    assert done.returncode == 0, done.stdout
    assert (copy / f"{NAME}.tar").read_bytes() == whole
    assert set(outcomes(copy).values()) == {"done"}
