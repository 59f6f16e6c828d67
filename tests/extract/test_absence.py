"""A slide that ends without cells says why, in its record, on the screen, and to mix."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from demo.paint import paint, write_slide
from extract.job import extract_slide
from extract.ledger import Settings
from extract.segment.options import Import
from extract.slides import Entry
from extract.status import describe, survey
from extract.summary import summarise
from shards.cells import finished_slides

SHAPE = (600, 600, 3)


def flat(*colour: int) -> np.ndarray:
    return np.full(SHAPE, colour, np.uint8)


def smear() -> np.ndarray:
    """Return tissue so far out of focus that no edge is left."""
    y, x = np.mgrid[:600, :600]
    shade = 25 * np.sin(x / 90) * np.cos(y / 110)
    return (np.array([200, 140, 180]) + shade[..., None]).astype(np.uint8)


def stroma() -> np.ndarray:
    """Return pink fibres without a nucleus."""
    rng = np.random.default_rng(0)
    fibres = cv2.GaussianBlur(rng.normal(0, 60, SHAPE[:2]).astype(np.float32), (41, 1), 0)
    return np.clip(np.array([225, 170, 200]) + fibres[..., None], 0, 255).astype(np.uint8)


def shaded_glass() -> np.ndarray:
    return np.clip(244 - 12 * np.arange(600)[None, :, None] / 600, 0, 255) * np.ones(SHAPE)


def extracted(folder: Path, image: np.ndarray, **options) -> dict:
    write_slide(folder / "s.tiff", image.astype(np.uint8), 0.25)
    segmenter = "import" if "imported" in options else "rays"
    settings = Settings(segmenter, "jpeg", 0, None, False, **options)
    return extract_slide(Entry("s", folder / "s.tiff"), folder, settings)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (flat(255, 255, 255), "the slide is blank, of one colour all over (RGB 255, 255, 255)"),
        (flat(244, 244, 244), "the slide is blank, of one colour all over (RGB 244, 244, 244)"),
        (flat(0, 0, 0), "the slide is blank, of one colour all over (RGB 0, 0, 0)"),
        (flat(220, 150, 190), "the slide is blank, of one colour all over (RGB"),
        (shaded_glass(), "no tissue, for nothing on it is stained more than the glass"),
        (smear(), "no contrast in 0.0225 mm² of tissue; is it out of focus?"),
        (stroma(), "rays found none in 0.0225 mm² of tissue"),
    ],
    ids=["white", "glass", "black", "pink", "shaded", "smear", "stroma"],
)
def test_why_there_is_no_nucleus(tmp_path, image, said):
    record = extracted(tmp_path, image)
    assert (record["outcome"], record["detected"]) == ("done", 0)
    assert record["reason"].startswith(f"no nucleus: {said}")


@pytest.mark.parametrize(
    ("level", "said"),
    [(0, "its mask marks nothing"), (255, "rays found none in 0.0225 mm² of its mask")],
)
def test_why_there_is_none_in_a_mask(tmp_path, level, said):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/s.png"), np.full((60, 60), level, np.uint8))
    record = extracted(tmp_path, stroma(), masks=str(tmp_path / "masks"))
    assert record["reason"] == f"no nucleus: {said}"


def test_a_segmentation_that_holds_none_is_named(tmp_path):
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg/s.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    record = extracted(tmp_path, stroma(), imported=Import(str(tmp_path / "seg")))
    assert record["outcome"] == "done"
    assert f"the segmentation {tmp_path}/seg/s.geojson holds none for it" in record["reason"]


def test_nuclei_of_which_none_is_kept(tmp_path):
    (tmp_path / "seg").mkdir()
    (tmp_path / "seg/s.csv").write_text("x,y\n3,3\n597,300\n300,300\n")
    record = extracted(tmp_path, flat(244, 244, 244), imported=Import(str(tmp_path / "seg")))
    assert record["reason"] == "no nucleus kept of 3 detected: 2 edge, 1 blank"


def test_extract_status_and_mix_tell_the_same(tmp_path, capsys, caplog):
    record = extracted(tmp_path, flat(244, 244, 244))
    write_slide(tmp_path / "t.tiff", paint(400, 300, 1)[0], 0.25)
    full = extract_slide(
        Entry("t", tmp_path / "t.tiff"), tmp_path, Settings("rays", "jpeg", 0, None, False)
    )
    assert summarise([record, full], tmp_path) == 0
    printed = capsys.readouterr().out
    assert f"no cells: s: {record['reason']}" in printed
    assert "2 slides done, 0 skipped, 0 failed" in printed
    assert "1 of the slides done have no cells" in printed
    assert "blank" in describe(survey(tmp_path, None))
    with caplog.at_level(logging.INFO):
        assert [slide["slide"] for slide in finished_slides(tmp_path)] == ["t"]
    assert "1 of 2 slides done have no cells: s (no nucleus: the slide is blank" in caplog.text
