"""Slide lists and sample sheets as Excel, R and pandas leave them: read right, or named."""

from pathlib import Path

import pytest

from extract.slides import list_slides
from tests.extract.test_lists import NAMES, UUIDS, tcga  # noqa: F401 (a fixture)


@pytest.fixture
def slides(tmp_path) -> Path:
    """A folder with the slides a.svs and b.svs."""
    for name in ("a.svs", "b.svs", "b, left.svs"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,MPP\na.svs,0.2\n", ("a", 0.2, None)),
        ("path, mpp\na.svs,0.2\n", ("a", 0.2, None)),
        ("path;mpp\na.svs;0,2\n", ("a", 0.2, None)),
        ("path\tmpp\r\na.svs\t0.2\r\n", ("a", 0.2, None)),
        ("path,Slide_ID,Project\na.svs,S1,TCGA-X\n", ("S1", None, "TCGA-X")),
        ("path,Slide-ID,PROJECT \na.svs,S1,TCGA-X\n", ("S1", None, "TCGA-X")),
        (",path,mpp\n0,a.svs,0.2\n", ("a", 0.2, None)),
        ("path,slide_id,project\na.svs,NA,NA\n", ("a", None, None)),  # R's way to say none
        ("path,slide_id,project\na.svs,nan,\n", ("a", None, None)),
        ("path,mpp\na.svs,\n", ("a", None, None)),
        ('slide_id,path\nS1,"b, left.svs"\n', ("S1", None, None)),
        ('"path" "mpp"\n"1" "a.svs" 0.2\n"2" "b.svs" 0.2\n', ("a", 0.2, None)),
        ("a.svs\nb.svs\n", ("a", None, None)),  # paths alone, as ls writes them
        ("# mine\n\na.svs\r\n\n", ("a", None, None)),
        ('"b, left.svs"\n', ("b, left", None, None)),
    ],
)
@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_lists_as_people_write_them(slides, text, expected, name):
    (slides / name).write_bytes(text.encode())
    if expected[0] == "b, left":
        with pytest.raises(ValueError, match="slide id 'b, left' cannot be used"):
            list_slides(slides / name)
        return
    first = list_slides(slides / name)[0]
    assert (first.slide, first.mpp, first.project) == expected
    assert first.path.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wsi,mpp\na.svs,0.25\n", "no list of slides: no column 'path'; found wsi"),  # TRIDENT
        ("slide_id,label\nA,tumor\n", "no column 'path'; found slide_id, label"),  # CLAM
        ("path\ns\\a.svs\n", "none of its 1 slides is there.*separated by / here"),
        ("path,mpp\na.svs,nan\n", "line 2: mpp is 'nan', not a number"),
        ("path,mpp\na.svs,-1\n", "line 2: mpp -1 is not above 0"),
        ('path,mpp\na.svs,"0,25"\n', "line 2: mpp is '0,25', not a number"),
        ("slide_id,path\nB,b, left.svs\n", "line 2 has 3 cells under 2 names"),
        ("path,mpp\na.svs,0.25,x\n", "line 2 has 3 cells under 2 names"),
        ("path,mpp\na.svs\n", "line 2 ends early"),
        ("slide_id,path\nS,a.svs\nT,\n", "line 3: the path is empty"),
        ("path,slide_id\na.svs,S\nb.svs,S\n", "two slides have the id S"),
        ("path,path\na.svs,b.svs\n", "has 2 columns path"),
        ("path\n", "lists no slides"),
        ("a.svs,0.25\nb.svs,0.25\n", "no column 'path'; found a.svs, 0.25"),
        ("path,mpp\nM\udcfcller.svs,0.25\n", "line 2 is no UTF-8 .*'Müller.svs,0.25'"),
        ("\udcff\udcfep\0a\0t\0h\0\n\0", "is UTF-16 .*save it as UTF-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_a_bad_list_is_named_with_its_cure(slides, text, message, name):
    (slides / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list_slides(slides / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv.gz", b"\x1f\x8b\x08", "no text but a gzip file; unpack it first"),
        ("l.xlsx", b"PK\x03\x04..[Content_Types].xml", "an Excel workbook; save the sheet as CSV"),
        ("l.zip", b"PK\x03\x04..l.csv", "a zip archive; unpack it first"),
        ("l", b"wsi\na.svs\n", "no column 'path'"),
        ("l.csv", b"<!DOCTYPE html><title>Log in</title>", "a web page .'Log in'."),
    ],
)
def test_what_is_given_for_a_list_is_called_what_it_is(slides, name, content, message):
    (slides / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list_slides(slides / name)


def test_columns_of_a_list_that_are_not_used_are_said(slides, caplog):
    (slides / "l.csv").write_text("path,projct,stain\na.svs,P,HE\n")
    list_slides(slides / "l.csv")
    assert "columns passed over: 'projct' (meant for project?), stain" in caplog.text


SHEET = ["File ID", "File Name", "Data Type", "Project ID", "Case ID"]
ROWS = [
    [UUIDS[0], NAMES[0], "Slide Image", "TCGA-BRCA", "TCGA-A7-A13E"],
    [UUIDS[4], NAMES[4], "Slide Image", "TCGA-LUSC", "TCGA-21-5784"],
]


def sheet(header: list[str], rows: list[list[str]], separator: str = "\t", quote: str = "") -> str:
    lines = [header, *rows]
    return "".join(separator.join(f"{quote}{c}{quote}" for c in line) + "\n" for line in lines)


NUMBERED = [[str(i), *row] for i, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize(
    "text",
    [
        sheet(SHEET, ROWS),
        sheet(SHEET, ROWS).replace("\n", "\r\n"),
        "\ufeff" + sheet(SHEET, ROWS),
        sheet(SHEET, ROWS, quote='"'),
        sheet(SHEET, ROWS, ","),
        sheet(SHEET, ROWS, ";"),
        sheet(SHEET, NUMBERED),  # R's write.table
        sheet(SHEET, NUMBERED, quote='"'),
        sheet(SHEET, NUMBERED, " ", '"'),
        sheet(["", *SHEET], NUMBERED),  # R's col.names = NA; pandas
        sheet(["Unnamed: 0", *SHEET], NUMBERED),
        sheet([name.replace(" ", ".") for name in SHEET], ROWS),  # R's names
        sheet([name.lower().replace(" ", "_") for name in SHEET], ROWS),
        sheet(SHEET[::-1], [row[::-1] for row in ROWS]),
        sheet(SHEET, [*ROWS, ROWS[0]]),  # the same row twice
        sheet(SHEET, [[*row[:4], f"{row[4]}, {row[4]}"] for row in ROWS]),
    ],
)
def test_a_sample_sheet_gives_project_and_case_whoever_wrote_it(tcga, text):  # noqa: F811
    (tcga / "sheet.txt").write_bytes(text.encode())
    listed = list_slides(
        tcga / "gdc_manifest.txt", slides_root=tcga / "tcga", sample_sheet=tcga / "sheet.txt"
    )
    assert [(e.project, e.case) for e in listed] == [
        ("TCGA-LUSC", "TCGA-21-5784"),
        ("TCGA-BRCA", "TCGA-A7-A13E"),
        (None, "TCGA-A7-A13E"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (sheet(SHEET, NUMBERED[:1]), "line 2 has 6 cells under 5 names.*row.names = FALSE"),
        (sheet(SHEET, [["9", *ROWS[0]], ["3", *ROWS[1]]]), "line 2 has 6 cells .*row.names"),
        (sheet(SHEET, [ROWS[0], NUMBERED[1]]), "line 3 has 6 cells under 5 names"),
        (sheet(SHEET[1:], ROWS), "no GDC sample sheet: no column 'File ID'"),
        (sheet([*SHEET[:2], "Project ID", "Case ID", "x"], ROWS),
         "line 2: Project ID 'Slide Image' is no project, as TCGA-BRCA is one"),
        (sheet([*SHEET[:3], "Case ID", "Project ID"], ROWS), "'TCGA-A7-A13E' is no project"),
        (sheet(SHEET, [ROWS[0], [*ROWS[1][:4], ROWS[0][4]]]),
         "line 3: Case ID is 'TCGA-A7-A13E', but the file is named TCGA-21-5784"),
        (sheet(SHEET, [ROWS[0], [*ROWS[0][:3], "TCGA-LUSC", ROWS[0][4]]]),
         "line 3: .* is there a second time, as TCGA-LUSC.*before as TCGA-BRCA"),
        (sheet([*SHEET, "Case ID"], [[*row, "x"] for row in ROWS]), "has 2 columns Case ID"),
        (sheet(SHEET, [ROWS[0], ROWS[1][:3]]), "line 3 ends early"),
        ("<html><title>Sign in</title>", "is a web page .'Sign in'."),
    ],
)  # fmt: skip
def test_a_sheet_whose_columns_are_shifted_is_refused(tcga, text, message):  # noqa: F811
    (tcga / "sheet.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        list_slides(
            tcga / "gdc_manifest.txt", slides_root=tcga / "tcga", sample_sheet=tcga / "sheet.txt"
        )


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_manifest_saved_again_is_still_one(tcga, separator, quote):  # noqa: F811
    rows = [line.split("\t") for line in (tcga / "gdc_manifest.txt").read_text().splitlines()]
    (tcga / "m.csv").write_text("\ufeff" + sheet(rows[0], rows[1:], separator, quote))
    expected = list_slides(tcga / "gdc_manifest.txt", slides_root=tcga / "tcga")
    assert list_slides(tcga / "m.csv", slides_root=tcga / "tcga") == expected


# ---- where a list says that a slide is ----


@pytest.mark.parametrize(
    "said",
    [
        "~/disk/a.svs",
        "file://{home}/disk/a.svs",
        "file://localhost{home}/disk/a.svs",
        "FILE:{home}/disk/a.svs",
        "file://{home}/disk/../disk/a.svs",
        "{home}/disk/a.svs",
    ],
)
@pytest.mark.parametrize("header", ["", "path,slide_id\n"])
def test_homes_and_local_urls_are_paths(tmp_path, monkeypatch, said, header):
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    (tmp_path / "my home/disk").mkdir(parents=True)
    (tmp_path / "my home/disk/a.svs").write_bytes(b"x")
    home = str(tmp_path / "my home")
    line = said.format(home=home.replace(" ", "%20") if said.startswith("file") else home)
    line = line if not said.startswith("FILE") else line.replace(" ", "%20")
    (tmp_path / "list.csv").write_text(header + line + (",A" if header else "") + "\n")
    (entry,) = list_slides(tmp_path / "list.csv")
    assert entry.path.resolve() == tmp_path / "my home/disk/a.svs"
    assert entry.slide == ("A" if header else "a")


@pytest.mark.parametrize(
    "url",
    ["https://host/a.svs", "s3://bucket/a.svs", "gs://b/a.svs", "file://server/share/a.svs"],
)
def test_urls_are_refused_with_the_line_and_the_cure(tmp_path, url):
    for text, line in ((f"x.svs\n{url}\n", 2), (f"slide_id,path\nA,x.svs\n\nB,{url}\n", 4)):
        (tmp_path / "list.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"list.csv, line {line}: {url} is a URL.*download"):
            list_slides(tmp_path / "list.csv")
    with pytest.raises(ValueError, match=r"is a URL.*download it"):
        list_slides(Path(url))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,slide_id\na.svs,A\nb.svs,a\n", r"differ only in case, A and a.*line 2\).*line 3\)"),
        ("a.svs\nsub/A.svs\n", r"differ only in case, a and A.*a\.svs .*line 1\).*line 2\)"),
        ("path,slide_id\na.svs,A\nb.svs,A\n", r"have the id A: .*line 2\) and .*line 3\)"),
        ("path,slide_id\na.svs,A\nb.svs,x.y\n", r"list.csv, line 3: slide id 'x.y' cannot be"),
        ("a.svs\n\nM\u00fcller.svs\n", r"list.csv, line 3: slide id 'Müller' cannot be used"),
    ],
)
def test_ids_that_cannot_be_are_named_with_their_lines(tmp_path, text, message):
    for name in ("a.svs", "b.svs", "sub/A.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        list_slides(tmp_path / "list.csv")


def test_ids_of_a_folder_that_differ_only_in_case_are_refused(tmp_path):
    for name in ("1/p07.svs", "2/P07.svs"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"differ only in case, p07 and P07.*1/p07.*2/P07"):
        list_slides(tmp_path)


def test_one_file_under_two_ids_is_said(slides, caplog):
    (slides / "list.csv").write_text("path,slide_id\na.svs,A\n./a.svs,B\nb.svs,C\n")
    assert [entry.slide for entry in list_slides(slides / "list.csv")] == ["A", "B", "C"]
    assert "A and B are one file" in caplog.text
    assert "C" not in caplog.text


@pytest.mark.parametrize("text", ['["a.svs"]', '[{"id": "x", "file_name": "a.svs"}]', "{}"])
def test_a_list_in_json_is_refused(slides, text):
    (slides / "list.json").write_text(text)
    with pytest.raises(ValueError, match="is JSON and no list of slides; give a table"):
        list_slides(slides / "list.json")
