"""Tables as people's programs write them: the right value, or a sentence with the cure."""

import gzip
import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.table import read_table
from shards.text import clean, read_text

GOOD = [  # every one of them holds the rows (a.svs, 0.25), (Müller, 0.5)
    "path,mpp\na.svs,0.25\nMüller,0.5\n",
    "path,mpp\na.svs,0.25\nMüller,0.5",  # no line feed at the end
    "path,mpp\r\na.svs,0.25\r\nMüller,0.5\r\n",
    "path,mpp\ra.svs,0.25\rMüller,0.5\r",
    "path,mpp\r\na.svs,0.25\nMüller,0.5\r",  # joined of several
    "\ufeffpath,mpp\na.svs,0.25\nMüller,0.5\n",
    "\ufeffpath,mpp\na.svs,0.25\n\ufeffMüller,0.5\n",  # cat of two files with marks
    "path,mpp\n\u200ba.svs,0.25\nMüller\u200b,0.5\n",  # copied from a web page
    "path;mpp\na.svs;0.25\nMüller;0.5\n",
    "path;mpp\na.svs;0,25\nMüller;0,5\n",
    "path\tmpp\na.svs\t0.25\nMüller\t0.5\n",
    "path\tmpp\na.svs\t0,25\nMüller\t0,5\n",
    "sep=;\npath;mpp\na.svs;0,25\nMüller;0,5\n",  # Excel's hint to itself
    '"path","mpp"\n"a.svs","0.25"\n"Müller","0.5"\n',
    '"path", "mpp"\n"a.svs", "0.25"\n"Müller", "0.5"\n',
    " Path , MPP \n a.svs , 0.25 \n\tMüller\t, 0.5\n",
    "PATH,Mpp\na.svs,0.25\nMüller,0.5\n",
    "mpp,path\n0.25,a.svs\n0.5,Müller\n",
    "path,note,mpp\na.svs,,0.25\nMüller,x,0.5\n",
    "\n\npath,mpp\n\na.svs,0.25\n  \nMüller,0.5\n\n,\n , \n",
    "# a comment\n# path: of the slide\npath,mpp\na.svs,0.25\nMüller,0.5\n",
    "# path,mpp\na.svs,0.25\nMüller,0.5\n",  # numpy.savetxt's header
    "path,mpp,\na.svs,0.25,\nMüller,0.5,\n",
    "path,mpp\na.svs,0.25,\nMüller,0.5,,\n",
    "path,mpp,,\na.svs,0.25\nMüller,0.5\n",
    ",path,mpp\n0,a.svs,0.25\n1,Müller,0.5\n",  # pandas
    "Unnamed: 0,path,mpp\n7,a.svs,0.25\n9,Müller,0.5\n",  # pandas, twice
    "...1,path,mpp\n1,a.svs,0.25\n2,Müller,0.5\n",  # readr
    "path,mpp\n1,a.svs,0.25\n2,Müller,0.5\n",  # R's write.table, with its row names
    '"path"\t"mpp"\n"1"\t"a.svs"\t0.25\n"2"\t"Müller"\t0.5\n',
    '"path" "mpp"\n"1" "a.svs" 0.25\n"2" "Müller" 0.5\n',  # its own separator
    "path mpp\na.svs 0.25\nMüller 0.5\n",
    "path   mpp\na.svs  0.25\nMüller 0.5\n",
    'path,mpp,note\na.svs,0.25,"two\nlines"\nMüller,0.5,\n',
    'path,mpp,note\na.svs,0.25,5" wide\nMüller,0.5,\n',
    "path,m.p.p\na.svs,0.25\nMüller,0.5\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_one_table_in_many_spellings(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    table = read_table(tmp_path / "t.csv", ["path"], ["mpp"])
    assert table.words("path") == ["a.svs", "Müller"]
    assert table.numbers("mpp").tolist() == [0.25, 0.5]
    assert len(table) == 2
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for row, word in enumerate(("a.svs", "Müller")):
        (line,) = [n for n, content in enumerate(lines, 1) if word in content]
        assert table.where(row) == f"{tmp_path / 't.csv'}, line {line}"


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"path": ["a.svs"]}), file)
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BAD = [
    # encodings
    ("path,mpp\na.svs,0.25\n".encode("utf-16"), "is UTF-16 .*iconv -f UTF-16 -t UTF-8"),
    ("path,mpp\na.svs,0.25\n".encode("utf-16-le"), "is UTF-16 without a mark"),
    ("path,mpp\na.svs,0.25\n".encode("utf-16-be"), "is UTF-16 without a mark"),
    ("path,mpp\na.svs,0.25\n".encode("utf-32"), "is UTF-32"),
    ("path\na\nMüller\n".encode("cp1252"), r"line 3 is no UTF-8 \(byte 0xfc; .*'Müller'"),
    ("path\r\na\r\nMüller\r\n".encode("cp1252"), r"line 3 is no UTF-8"),
    ("path\ra\rMüller\r".encode("cp1252"), r"line 3 is no UTF-8"),
    (b"path\na\n\0\0\0\0", "line 3 holds a NUL byte"),
    (b"path\na\nb\0c\n", "line 3 holds a NUL byte"),
    # what is no text
    (LFS, "is a Git LFS pointer.*git lfs pull"),
    (b"<!DOCTYPE html>\n<html><head>", "is a web page"),
    (b"\n <html lang=en>", "is a web page"),
    (b"<!-- x --><HTML>", "is a web page"),
    (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code>', "store's error message .NoSuchKey."),
    (gzip.compress(b"path\na\n", mtime=0), "is no text but a gzip file; unpack"),
    (b"BZh91AY&SY", "bzip2"),
    (b"\xfd7zXZ\0\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd\0", "zstd"),
    (zipped("xl/workbook.xml"), "an Excel workbook; save the sheet as CSV UTF-8"),
    (zipped("[Content_Types].xml"), "an Excel workbook"),
    (zipped("t.csv"), "a zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file; save the sheet as CSV"),
    (parquet(), "a Parquet file"),
    (b"%PDF-1.7\n", "a PDF"),
    (b"{\\rtf1\\ansi", "rich text; save it as plain text"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff\xe0", "a JPEG image"),
    (b"II*\0\x08\0", "a TIFF"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"\0" * 4096, "begins with zeros: its download or copy did not end"),
    (b'{"type": "FeatureCollection"}', "no text but JSON; give a table, or one entry a line"),
    # headers
    (b"", "is empty .0 bytes."),
    (b"\n \n\n", "is empty"),
    (b"# only a comment\n", "no column 'path'"),
    (b"wsi,mpp\na.svs,0.25\n", "no column 'path'; found wsi, mpp; needed are path; optional are"),
    (b"paths,mpp\na.svs,0.25\n", "no column 'path'; .*rename 'paths' for path"),
    (b"a.svs\nb.svs\n", "no column 'path'; found a.svs; needed are path"),
    (b"path,path\na,b\n", r"has 2 columns path \(columns 1: 'path', 2: 'path'\); leave one"),
    (b"path,MPP,mpp \na,1,2\n", "has 2 columns mpp .*2: 'MPP', 3: 'mpp'"),
    (b"path,m-p-p,m_p_p\na,1,2\n", "has 2 columns mpp"),
    (b"#\n", "is empty"),
    (b"sep=;\n", "is empty"),
    # rows
    (b"path,mpp\na,1\npath,mpp\nb,1\n", "line 3 is the header again: two files, joined"),
    (b"path,mpp\na,0.25\nb,0.25,x\n", "line 3 has 3 cells under 2 names"),
    (b"path,mpp\na,0.25,x\n", "line 2 has 3 cells under 2 names.*row.names = FALSE"),
    (b"path,mpp\n3,a,0.25\n17,b,0.25\n", "line 2 has 3 cells .*row.names = FALSE"),
    (b"path,mpp\n1,a,0.25\n", "line 2 has 3 cells .*row.names = FALSE"),
    (b"path,mpp\n1,a,0.25\n2,b\n", "line 2 has 3 cells under 2 names"),
    (b"path,mpp\n1,a,\n2,b,\n", "not a number"),  # not row names: the third cells are empty
    (b"path,mpp\nB, left.svs,0.25\n", "line 2 has 3 cells under 2 names"),
    (b"path,mpp\na\n", "line 2 ends early: it has 1 cell under 2 names"),
    (b"path,project,mpp\n\na,P,1\nb,P\n", "line 4 ends early: it has 2 cells under 3 names"),
    (b"path;mpp\na;0.25\nb;0.5;\nc;1;x\n", "line 4 has 3 cells"),
    (b'path,mpp\n"a,0.25\nb,0.5\n', "line 2: .*a quotation mark that does not close"),
    (b'path,mpp\na,0.25\n"b,0.5\n"c,1\n', "line 3: .*quotation mark"),
    (b'path,mpp\n"a\nb",0.25\n', "line 2: a cell goes over 2 lines"),
    (b'path,mpp,note\na,1,"x\nb,2,y\nc,3,"\n', "line 2: a cell goes over 3 lines"),
    (b'path,mpp,note\na,1,x\nb,2,"y\nc,3,z\n', "line 3: .*a quotation mark that does not close"),
    # numbers
    (b"path,mpp\na,0.25\nb,abc\n", "line 3: mpp is 'abc', not a number"),
    (b"path,mpp\na,0.25\n\nb,nan\n", "line 4: mpp is 'nan', not a number"),
    (b"path,mpp\na,NA\n", "line 2: mpp is 'NA', not a number"),
    (b"path,mpp\na,inf\n", "line 2: mpp is 'inf', not a number"),
    (b"path,mpp\na,0.25\nb,\n", "line 3: no mpp"),
    (b'path,mpp\na,"0,25"\n', "line 2: mpp is '0,25', not a number"),
    (b"path;mpp\na;1.5\nb;1,234\n", "line 3: mpp is '1,234', and other rows have decimal points"),
    (b"path;mpp\na;1,234.5\n", "line 2: mpp is '1,234.5'"),
    (b"path;mpp\na;1,234,5\n", "line 2: mpp is '1,234,5', not a number"),
    ("path,mpp\na,−1\n".encode(), "line 2: mpp is '−1', not a number"),
    ("path,mpp\na,0.25 µm\n".encode(), "line 2: mpp is '0.25 µm', not a number"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD)
def test_what_is_wrong_is_named_with_its_cure(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_table(path, ["path"], ["mpp"]).numbers("mpp")
    assert str(error.value).startswith(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    for reader in (lambda path: read_table(path, ["path"]), read_text):
        with pytest.raises(FileNotFoundError, match=r"t.csv is not there"):
            reader(tmp_path / "t.csv")
        with pytest.raises(FileNotFoundError, match="is a folder"):
            reader(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,Slide-ID", "'Slide-ID' is taken for slide_id"),
        ("path,slide id", "'slide id' is taken for slide_id"),
        ("path,SlideID", "'SlideID' is taken for slide_id"),
        ("path,slide.id", "'slide.id' is taken for slide_id"),
        ("path,slid_id", "columns passed over: 'slid_id' (meant for slide_id?)"),
        ("path,remark", "columns passed over: remark"),
        ("path,", "column 2 has values and no name; it is passed over"),
    ],
)
def test_columns_that_are_not_known_are_said_once(tmp_path, caplog, header, message):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\na.svs,A\n")
    for _ in range(2):
        table = read_table(path, ["path"], ["slide_id"])
    (said,) = caplog.messages
    assert message in said
    assert table.words("slide_id") == (["A"] if "taken" in message else [""])
    caplog.clear()
    read_table(tmp_path / "t.csv", ["path"], say_unknown=False)
    assert not caplog.messages


def test_an_exact_name_wins_over_a_close_one(tmp_path):
    (tmp_path / "t.csv").write_text("Slide-ID,Slide_ID\na,b\n")
    assert read_table(tmp_path / "t.csv", ["slide_id"]).words("slide_id") == ["b"]


def test_marks_of_no_value_are_no_words(tmp_path):
    (tmp_path / "t.csv").write_text("label\n" + "\n".join("NA,nan,NaN,None,null,x,Nan".split(",")))
    assert read_table(tmp_path / "t.csv", ["label"]).words("label") == [""] * 5 + ["x", "Nan"]


def test_empty_numbers_where_they_may_be_empty(tmp_path):
    (tmp_path / "t.csv").write_text("path,mpp\na,0.25\nb,\nc,x\n")
    table = read_table(tmp_path / "t.csv", ["path"], ["mpp", "size"])
    with pytest.raises(ValueError, match="line 4: mpp is 'x', not a number"):
        table.numbers("mpp", missing=("",))
    assert np.isnan(table.numbers("size")).all()
    (tmp_path / "t.csv").write_text("path,mpp\na,0.25\nb,\n")
    numbers = read_table(tmp_path / "t.csv", ["path"], ["mpp"]).numbers("mpp", missing=("",))
    assert numbers[0] == 0.25 and np.isnan(numbers[1])


def test_a_table_of_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("path,mpp\n")
    table = read_table(tmp_path / "t.csv", ["path"], ["mpp"])
    assert len(table) == 0 and table.words("path") == [] and table.numbers("mpp").tolist() == []


def test_uneven_rows_of_a_large_table_are_found(tmp_path):
    rows = [f"{i},{i / 2}\n" for i in range(200_000)]
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(rows))
    table = read_table(tmp_path / "t.csv", ["x", "y"])
    assert table.numbers("y").sum() == sum(range(200_000)) / 2
    assert table.where(199_999).endswith("line 200001")
    rows[150_000] = "1,2,3\n"
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(rows))
    with pytest.raises(ValueError, match="line 150002 has 3 cells under 2 names"):
        read_table(tmp_path / "t.csv", ["x", "y"])


@pytest.mark.parametrize("text", ["path\n", "TCGA-18-5592", "ä", "IIx", "#", " \n", "BZ,x"])
def test_text_is_taken_for_nothing_else(tmp_path, text):
    assert clean(text.encode(), tmp_path / "x").decode() == text


PIECES = [*',;\t "\n\r\0#.', "ä", "path", "mpp", "1", "1,2", "\ufeff", "sep=", "NA"]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES)),
    st.sampled_from(["", "path,mpp\n", "path;mpp\n"]),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
)
def test_whatever_stands_there_is_read_or_named(tmp_path_factory, words, header, encoding):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((header + "".join(words)).encode(encoding, "ignore"))
    try:
        table, said = read_table(path, ["path"], ["mpp"]), str(path)
        table.numbers("mpp", missing=("",))
    except ValueError as error:
        table, said = None, str(error)
    assert said.startswith(str(path))
    if table:
        last = path.read_bytes().count(b"\n") + path.read_bytes().count(b"\r") + 1
        lines = list(table.lines)
        assert lines == sorted(set(lines)) and all(2 <= line <= last for line in lines)
