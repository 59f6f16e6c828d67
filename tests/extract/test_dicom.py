"""DICOM slides: by OpenSlide where it opens them, else by wsidicom; folders of several series."""

import builtins
import logging

import numpy as np
import pytest

from extract.slide import Slide
from extract.slides import list_slides
from shards.scans.dicom import DicomScan, volume_of
from shards.scans.openslide_scan import OpenSlideScan
from shards.scans.scan import open_scan
from tests.extract.dicom_files import write_dicom

RGB = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("photometric", "reader", "source", "apart"),
    [
        ("RGB", OpenSlideScan, "openslide.mpp-x", 0),
        ("YBR_FULL", DicomScan, "dicom.mpp-x", 5),
    ],
)
def test_a_folder_is_a_slide(tmp_path, photometric, reader, source, apart):
    write_dicom(tmp_path / "1.2.3.dcm", RGB, photometric=photometric)
    assert isinstance(open_scan(tmp_path), reader)
    slide = Slide(tmp_path)
    assert (slide.mpp, slide.mpp_source) == (pytest.approx(0.25), source)
    pixels = slide.read(0, 0, 300, 200)
    assert np.abs(pixels.astype(int) - RGB).mean() <= apart
    assert np.array_equal(slide.read(120, 90, 80, 60), pixels[90:150, 120:200])
    assert slide.thumbnail(0.5)[0].shape == (100, 150, 3)


def test_without_wsidicom_its_name_is_the_cure(tmp_path, monkeypatch):
    write_dicom(tmp_path / "a.dcm", RGB, photometric="YBR_FULL")
    real = builtins.__import__

    def absent(name, *rest):
        if name.startswith("wsidicom"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"YBR_FULL.*pip install -e '\.\[dicom\]'"):
        open_scan(tmp_path / "a.dcm")


def test_a_series_is_a_slide_and_its_level_0_its_file(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "one").mkdir()
    write_dicom(tmp_path / "one/x.dcm", RGB, series="a")
    write_dicom(tmp_path / "one/a.dcm", RGB[::2, ::2], mpp=0.5, series="a")
    write_dicom(tmp_path / "one/b.dcm", RGB, series="a", kind="LABEL")
    (tmp_path / "SM_1.2.3").mkdir()
    write_dicom(tmp_path / "SM_1.2.3/x.dcm", RGB, series="b", container="T-1.x")
    (tmp_path / "two").mkdir()
    write_dicom(tmp_path / "two/x.dcm", RGB, series="c", container="U-1")
    write_dicom(tmp_path / "two/y.dcm", RGB, series="d", container="U-2")
    (tmp_path / "two/z.dcm").write_bytes(b"no DICOM")
    found = {e.slide: e.path.relative_to(tmp_path).as_posix() for e in list_slides(tmp_path)}
    assert found == {
        "one": "one/x.dcm", "T-1": "SM_1.2.3/x.dcm", "U-1": "two/x.dcm", "U-2": "two/y.dcm",
    }  # fmt: skip
    assert "4 slides (4 .dcm)" in caplog.text
    assert "z.dcm) that hold no slide left out" in caplog.text
    assert volume_of(tmp_path / "one") == tmp_path / "one/x.dcm"
    with pytest.raises(ValueError, match="holds 2 DICOM slides; name a file of one"):
        volume_of(tmp_path / "two")
    with pytest.raises(ValueError, match=r"holds no DICOM slide \(\*\.dcm\)"):
        open_scan(tmp_path)
    (entry,) = list_slides(tmp_path / "two/y.dcm")
    assert entry.path == tmp_path / "two/y.dcm"


def test_a_list_names_a_folder(tmp_path):
    (tmp_path / "S 1").mkdir()
    write_dicom(tmp_path / "S 1/1.2.dcm", RGB)
    (tmp_path / "list.csv").write_text("path,slide_id\nS 1,mine\n")
    (entry,) = list_slides(tmp_path / "list.csv")
    assert (entry.slide, entry.path) == ("mine", tmp_path / "S 1/1.2.dcm")


def test_what_is_no_slide_by_its_content_is_said(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(60))
    with pytest.raises(ValueError, match=r"a\.dcm is a DICOM file, but holds no whole slide"):
        open_scan(tmp_path / "a.dcm")
