"""Files that are not what their names say: called what they are, with the cure."""

import io
import struct
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from shards.filetype import check_file, describe


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"x": [1, 2]}), buffer)
    return buffer.getvalue()


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(zipfile.ZipInfo("data.pkl"), b"x" * 100)  # of one date, and so a test's id
    return buffer.getvalue()


def pages(big: bool, order: str) -> bytes:
    """Return a TIFF of three small pages, the directory of the last at its end."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as file:
        for number in range(3):
            file.write(np.full((16, 16), number, np.uint8), contiguous=False, metadata=None)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 86016\n"
LOGIN = b"\n<!DOCTYPE html>\n<html><head><title>Sign in\n &amp; go</title></head></html>"
DENIED = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>no</Message></Error>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (LFS, r"is a Git LFS pointer to 86,016 bytes, .*git lfs pull"),
        (LFS.replace(b"\n", b"\r\n"), "is a Git LFS pointer to 86,016 bytes"),
        (b"/annex/objects/SHA256E-s86016--4d7a.svs\n", "is a git-annex pointer.*git annex get"),
        (b"../.git/annex/objects/X1/Y2/MD5-s1--a/MD5-s1--a", "is a git-annex pointer"),
        (LOGIN, r"is a web page \('Sign in & go'\), not the data: its address needs a login"),
        (b"\xef\xbb\xbf<HTML lang=en>", "is a web page, not the data"),
        (b"<!-- saved --><html>", "is a web page, not the data"),
        (DENIED, r"is a store's error message \(AccessDenied\)"),
        (bytes(10_000), "begins with zeros: its download or copy did not end"),
        (parquet()[:-3], "is a Parquet file cut short at [0-9,]+ bytes"),
        (b"PAR1", "is a Parquet file cut short at 4 bytes"),
        (archive()[:80], "is a zip archive cut short at 80 bytes"),
        (b"II*\0" + struct.pack("<I", 5000) + bytes(400), "is a TIFF cut short at 408 bytes"),
        (b"MM\0*" + struct.pack(">I", 5000) + bytes(400), "is a TIFF cut short at 408 bytes"),
        (b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**33), "is a TIFF cut short at 16 bytes"),
        (b"II*\0", "is a TIFF cut short at 4 bytes"),
    ],
)
def test_what_stands_in_the_place_of_data_is_named(tmp_path, content, message):
    path = tmp_path / "slide.svs"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_file(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_cut_behind_its_first_page_is_cut_short(tmp_path, big, order):
    path, whole = tmp_path / "slide.svs", pages(big, order)
    path.write_bytes(whole)
    check_file(path)
    with tifffile.TiffFile(path) as file:
        offsets = [page.offset for page in file.pages]
    assert len(offsets) == 3
    for end in (offsets[1], offsets[1] + 9, offsets[2] + 1, offsets[2] + 30):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=f"is a TIFF cut short at {end:,} bytes"):
            check_file(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (parquet(), "a Parquet file"),
        (archive(), "a zip archive"),
        (b"II*\0\x08\0\0\0" + bytes(10), "a TIFF"),
        (b'{"type": "FeatureCollection"}', "JSON"),
        (b"x,y\n1,2\n", "text"),
        (b"<?xml version='1.0'?><Annotations/>", "text"),
        (b"\x01\x02\0\x03", "a file of an unknown kind"),
        (b"\0", "a file of an unknown kind"),
    ],
)
def test_real_files_pass_and_are_called_by_their_kind(tmp_path, content, kind):
    path = tmp_path / "some.file"
    path.write_bytes(content)
    check_file(path)
    assert describe(path) == kind


def test_an_absent_file_is_not_judged(tmp_path):
    check_file(tmp_path / "none")
    check_file(tmp_path)
