"""Lists of patients to keep out of training, as people make them: not one of them slips through."""

import json
from pathlib import Path

import pytest

from shards.exclusion import case, excluded

SLIDES = {  # id -> recorded case
    "TCGA-18-5592-01Z-00-DX1": "TCGA-18-5592",
    "TCGA-18-5592-01Z-00-DX2": "TCGA-18-5592",
    "TCGA-38-6178-01Z-00-DX1": None,
    "TCGA-21-5784-01Z-00-DX1": None,
    "P07": "Ann",
    "P07_2": "Ann",
    "P-08": "Bob, Eve",
    "my slide 9": None,
}
A, B = "TCGA-18-5592", "TCGA-38-6178"
TWO = {s for s in SLIDES if s.startswith((A, B))}


@pytest.fixture
def cells(tmp_path) -> Path:
    for slide, patient in SLIDES.items():
        (tmp_path / f"{slide}.json").write_text(json.dumps({"slide": slide, "case": patient}))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        f"{A}\n{B}\n",
        f"{A}\n{B}",
        f'c("{A}", "{B}")\n',  # as R prints a vector
        f'keep_out <- c("{A}", "{B}")\n',
        f"('{A}', '{B}')\n",  # and Python
        f"# of the benchmarks\n['{A}', '{B}']\n",
        f"\ufeff{A}\n{B}\n",
        f"\ufeff{A}\n\ufeff{B}\n",  # two files joined
        f"\u200b{A}\n{B}\u200b\n",
        f"{A}\r\n{B}\r\n",
        f"{A}\r{B}\r",
        f"{A}, {B}\n",
        f"{A},{B}\n",
        f"{A};{B}",
        f"{A}\t{B}",
        f"{A} {B}\n",
        f"{A} | {B}",
        f" {A} \n\t{B}\t\n\n",
        f"{A.lower()}\n{B.lower()}\n",
        f"{A}  # of NuCLS\n# a remark\n{B}\n",
        f"# case list\n{A}\n{B}\n",
        f"# cases\n{A}\n{B}\n",
        f"# cases\n{A}, {B}\n",
        f"#patient\n{A}\n{A}, {B}\n",
        f"# slide,case\nx,{A}\ny,{B}\n",  # NumPy's header
        f'"{A}"\n"{B}"\n',
        f"'{A}', '{B}'\n",
        f"{A}\n{B}\n".replace("-", "."),  # R
        f"{A}\n{B}\n".replace("-", "_"),
        f"{A}\n{B}\n".replace("-", "\u2011"),  # Word's dash that does not break
        f"{A}\n{B}\n".replace("-", "\u2013"),
        f"{A}-01Z-00-DX1\n{B}-01Z-00-DX1\n",
        f"{A}-01Z-00-DX1.0a1b2c.svs\n/data/{B}-01Z-00-DX1.0a1b2c.svs\n",
        f"C:\\slides\\{A}-01Z-00-DX1.svs\n{B}\n",
        f"case\n{A}\n{B}\n",
        f"Case ID\n{A}\n{B}\n",
        f"case,project\n{A},TCGA-LUSC\n{B},TCGA-LUAD\n",
        f"{A},TCGA-LUSC\n{B},TCGA-LUAD\n",  # no header
        f"project;bcr_patient_barcode\nTCGA-LUSC;{A}\nTCGA-LUAD;{B}\n",
        f'case;n\n"{A}, {B}";2\n"{B}";1\n',
        f",patient\n0,{A}\n1,{B}\n",  # pandas
        f"patient\n1,{A}\n2,{B}\n",  # R
        f'"x"\n"1" "{A}"\n"2" "{B}"\n',  # R, of a vector
        f"Slide-ID,case\n{A}-01Z-00-DX1,\n,{B}\n",
        f"File ID\tFile Name\tCase ID\n1\t{A}-01Z-00-DX1.svs\t{A}\n2\tx.svs\t{B}, {B}\n",
    ],
)
def test_two_patients_are_left_out_however_they_are_listed(cells, text, caplog):
    caplog.set_level("INFO")
    (cells / "list.txt").write_bytes(text.encode())
    assert excluded(cells / "list.txt", cells, list(SLIDES)) == TWO
    assert "2 of its" in caplog.text and "3 slides left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P07\n", {"P07", "P07_2"}),  # the other slide is of the same patient
        ("Ann\n", {"P07", "P07_2"}),
        ("ann", {"P07", "P07_2"}),
        ("Eve\n", {"P-08"}),
        ("p-08.ome.tiff\n", {"P-08"}),
        ("my slide 9\n", {"my slide 9"}),
        ("my slide 9, Eve\n", {"my slide 9", "P-08"}),
        ("P07 P-08\n", {"P07", "P07_2", "P-08"}),
    ],
)
def test_other_names_than_tcgas(cells, text, expected):
    (cells / "list.txt").write_text(text)
    assert excluded(cells / "list.txt", cells, list(SLIDES)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("TCGA-ZZ-9999\n", "NOTHING is left out .it names TCGA-ZZ-9999; slides are called like"),
        (f"{A}\nTCGA-38-617\n", "TCGA-38-617 is no whole TCGA case"),
        (f"{A}\nTCGA-38-61789\n", "not here: TCGA-38-61789"),
        (f"{A}\nP.08\n", "P.08 is not here, but p-08 is; is it meant?"),
        (f"{A}\nP0\n", "not here: P0"),
        ("TCGA-ZZ-9999\n" * 3 + "\n".join("abcdefg"), "TCGA-ZZ-9999, a, b, c, d and 3 more"),
    ],
)
def test_what_is_not_here_is_said(cells, text, message, caplog):
    caplog.set_level("INFO")
    (cells / "list.txt").write_text(text)
    found = excluded(cells / "list.txt", cells, list(SLIDES))
    assert found == ({s for s in SLIDES if s.startswith(A)} if A in text else set())
    assert message.replace(".it", "(it") in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# nobody\n", "lists no case"),
        (b"case\n", "lists no case"),
        (b" \n,\n", "lists no case"),
        ((A + "\n").encode("utf-16"), "is UTF-16"),
        ((A + "\n").encode("utf-16-be"), "is UTF-16 without a mark"),
        ("Müller\n".encode("cp1252"), "line 1 is no UTF-8"),
        (A.encode() + b"\n\0\0\0", "line 2 holds a NUL byte"),
        (b"PK\x03\x04....xl/workbook.xml", "an Excel workbook; save the sheet as CSV"),
        (f"case\n{A}, {B}\n".encode(), "line 2 has 2 cells under 1 name "),
        (f"case,project\n{A}\n".encode(), "line 2 ends early"),
    ],
)
def test_a_list_that_cannot_be_read_is_named(cells, content, message):
    (cells / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        excluded(cells / "list.txt", cells, list(SLIDES))


def test_a_case_of_five_letters_is_another():
    assert case("TCGA-18-55921") == "TCGA-18-55921"
    assert case("TCGA-18.5592") == "TCGA-18.5592"
