"""Tables of nuclei as Excel, R, pandas and QuPath write them: read right, or named."""

import gzip

import numpy as np
import pytest

from extract.segment.nuclei_file import open_nuclei
from shards.errors import explain


@pytest.mark.parametrize(
    "text",
    [
        "x,y,label\n1.5,2,a\n3,4.25,b\n",
        "\ufeffx,y,label\r\n1.5,2,a\r\n3,4.25,b\r\n",
        " X ; Y ; Label \n1,5;2;a\n3;4,25;b\n",  # Excel in most of Europe
        "x\ty\tclass\n1.5\t2\ta\n3\t4.25\tb\n",
        '"x" "y" "label"\n"1" 1.5 2 "a"\n"2" 3 4.25 "b"\n',  # R's write.table
        ",x,y,Cell Type\n0,1.5,2,a\n1,3,4.25,b\n",  # pandas
        "x,y,label,\n1.5,2,a,\n3,4.25,b,\n",
        "# of a program\n# x,y,label\n1.5,2,a\n3,4.25,b\n",  # NumPy
        "Image,Object ID,Name,Class,Parent,Centroid X px,Centroid Y px,Area\n"
        "s,1,,a,Root,1.5,2,NaN\ns,2,,b,Root,3,4.25,7\n",  # QuPath
        "X_px,Y_px,class\n1.5,2,a\n3,4.25,b\n",
        "centroid x,centroid y,cell.type\n1.5,2,a\n3,4.25,b\n",
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_places_whoever_wrote_them(tmp_path, text, compress):
    (tmp_path / "n.csv").write_bytes(compress(text.encode()))
    (rings,) = open_nuclei(tmp_path / "n.csv").nuclei
    np.testing.assert_array_equal(rings.points, [[1.5, 2], [3, 4.25]])
    assert rings.labels == ["a", "b"]


def test_marks_of_no_value_are_no_class(tmp_path):
    (tmp_path / "n.csv").write_text("x,y,label\n1,2,NA\n3,4,\n5,6,nan\n7,8,b\n")
    (rings,) = open_nuclei(tmp_path / "n.csv").nuclei
    assert rings.labels == [None, None, None, "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x,y\n1,2\n".encode("utf-16"), "is UTF-16"),
        ("x,y\n1,2\n".encode("utf-16-le"), "is UTF-16 without a mark"),
        ("x,y,label\n1,2,Müller\n".encode("cp1252"), "line 2 is no UTF-8"),
        (b"x,y\n1,2\n3,4,5\n", "line 3 has 3 cells under 2 names"),
        (b"x,y\n7,1,2\n8,3,4\n", "line 2 has 3 cells under 2 names .*row.names = FALSE"),
        (b"x,y,label\n1,2\n", "line 2 ends early"),
        (b"x,X,y\n1,2,3\n", "has 2 columns x"),
        (b"x;y\n1,5;2.5\n3.5;1,0\n", "other rows have decimal points"),
        (b"x;y\n1.234,5;2\n", "x is '1.234,5', and other rows|x is '1.234,5', not a number"),
        (b"x,y\n1,NA\n", "line 2: y is 'NA', not a number"),
        (b"x,y\n1,inf\n", "line 2: y is 'inf', not a number"),
        (b"x,z\n1,2\n", "no columns of places or outlines .it has x, z"),
        (b'x,y,label\n1,2,"a\n3,4,"b\n', "line 2: .*quotation mark"),
        (b"<html><title>Login</title></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS pointer"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\0" * 99, "begins with zeros"),
        (b"x,y\n1,2\n\0\0\0\0", "line 3 holds a NUL byte"),
        (b" \n", "is empty: a header was expected"),
    ],
)
def test_a_bad_table_of_nuclei_is_named_once(tmp_path, content, message):
    path = tmp_path / "n.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(open_nuclei(path).nuclei)
    assert str(error.value).count(str(path)) == 1
    assert error.value.__cause__ is not error.value
    assert explain(error.value) == str(error.value)
