"""Cells folders that an earlier version wrote: read, and passed over by a rerun."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from extract.ledger import Settings, is_finished
from extract.segment.options import Import, Network
from extract.slides import Entry, list_slides
from extract.status import survey
from shards.cells import finished_slides, kept_cells

# What a record held when runs were first published: these facts, of these settings.
FACTS = (
    *("slide", "project", "case", "path", "size", "given_mpp", "outcome", "reason", "settings"),
    *("mpp", "mpp_source", "width", "height", "detected", "fates", "damaged", "sha256", "bytes"),
    *("segmentation", "seconds", "versions", "command"),
)
SETTINGS = ("segmenter", "codec", "seed", "cells_per_slide", "any_scale", "masks", "hoverfast")
RAYS = Settings("rays", "jpeg", 0, None, False)


@pytest.fixture
def earlier(cells, tmp_path) -> Path:
    """The painted slides' cells, with records of the first version."""
    folder = Path(shutil.copytree(cells, tmp_path / "cells"))
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        record = {fact: record[fact] for fact in FACTS}
        given = {name: record["settings"][name] for name in SETTINGS}
        record["settings"] = given | {"segmenter": "rays", "imported": None}
        record["segmentation"] = {"version": "closed rays 1"}
        path.write_text(json.dumps(record))
    return folder


def entries(painted: Path) -> list[Entry]:
    return list_slides(painted / "slides.csv")


def test_a_rerun_passes_over_and_status_finds_nothing_wrong(earlier, painted):
    listed = entries(painted)
    assert [is_finished(earlier, entry, RAYS) for entry in listed] == [True, True]
    rows = survey(earlier, listed, digests=True)
    assert {row["outcome"] for row in rows} == {"done"}


def test_its_cells_are_those_that_are_mixed(earlier, cells):
    names = [slide["slide"] for slide in finished_slides(earlier)]
    assert names == [slide["slide"] for slide in finished_slides(cells)]
    assert kept_cells(earlier)[1] == kept_cells(cells)[1]


def test_nuclei_told_apart_by_an_earlier_rule_are_not_mixed_with_others(earlier, painted):
    first = entries(painted)[0]
    now = Settings("hoverfast", "jpeg", 0, None, False, network=Network("0"))
    path = earlier / f"{first.slide}.json"
    record = json.loads(path.read_text())
    record["settings"] |= {"segmenter": "hoverfast", "network": asdict(Network("0"))}
    path.write_text(json.dumps(record))
    assert is_finished(earlier, first, now)
    del record["settings"]["network"]["rule"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"'weights': '0'\} is now .*'rule': 2.* --overwrite"):
        is_finished(earlier, first, now)


def test_other_settings_are_told_apart_still(earlier, painted):
    first = entries(painted)[0]
    with pytest.raises(ValueError, match=r"other settings \(seed 0 is now 1\)"):
        is_finished(earlier, first, Settings("rays", "jpeg", 1, None, False))
    with pytest.raises(ValueError, match=r"segmenter rays is now import"):
        is_finished(
            earlier, first, Settings("import", "jpeg", 0, None, False, imported=Import("nuclei"))
        )
