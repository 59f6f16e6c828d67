"""The page to look at: what is on it, that it refers to nothing outside, and in a real browser."""

import json
import re
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.paint import write_slide
from extract.cohort import extract_cohort
from extract.contact_sheet import POLICY, write_sheet
from extract.drawing import COLOURS
from extract.ledger import Settings
from extract.slides import list_slides
from shards.schema import FATES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--enable-logging=stderr"
).split()
# What the browser found, written into the page for --dump-dom to print.
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(i => i.complete && i.naturalWidth > 0);
  document.title = JSON.stringify({images, width: document.documentElement.scrollWidth,
    window: innerWidth, sections: document.querySelectorAll("section").length});
});</script>"""


@pytest.fixture(scope="module")
def page(cells, tmp_path_factory):
    """The sheet of the painted slides, one of them with a failure's hostile reason beside it."""
    folder = tmp_path_factory.mktemp("sheet")
    shutil.copytree(cells, folder / "cells")
    record = json.loads((folder / "cells/PAINTED-0001.json").read_text())
    bad = {"slide": "bad", "outcome": "failed", "reason": "<script>alert(1)</script> & more"}
    (folder / "cells/bad.json").write_text(json.dumps(record | bad))
    return write_sheet(folder / "cells", folder / "out", slides=40)


def test_the_page_shows_every_slide_and_count(page, cells):
    text = page.read_text()
    for name in ("PAINTED-0001", "PAINTED-0002"):
        record = json.loads((cells / f"{name}.json").read_text())
        assert f"<h2>{name}</h2>" in text
        assert f" · {record['versions']['segmenter']}</p>" in text
        for fate, count in record["fates"].items():
            assert not count or f"{count:,} {fate}" in text
    assert text.count(">field 2:") == 2
    assert text.count("<h3>kept") == 2 and text.count("<h3>edge") == 2
    assert set(COLOURS) == set(FATES)
    assert len(text) < 2_000_000


def test_the_page_refers_to_nothing_outside_and_runs_nothing(page):
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert not re.search(r"(src|href)=\"(?!data:image/webp;base64,|#)", text)
    assert "url(" not in text and "@import" not in text


def test_a_slide_that_has_gone_leaves_its_kept_crops(cells, tmp_path):
    folder = tmp_path / "cells"
    shutil.copytree(cells, folder)
    record = json.loads((folder / "PAINTED-0001.json").read_text())
    (folder / "PAINTED-0001.json").write_text(json.dumps(record | {"path": "/gone.svs"}))
    text = write_sheet(folder, tmp_path / "out", slides=2).read_text()
    assert "there is no slide /gone.svs (any more); only what is in the cells folder" in text
    assert text.count("<h3>kept") == 2 and text.count("<h3>edge") == 1


def test_nuclei_without_outlines_are_drawn_as_rings(cells, tmp_path):
    shutil.copytree(cells, tmp_path / "cells")
    path = tmp_path / "cells/PAINTED-0001.parquet"
    table = pq.read_table(path)
    column = table.schema.get_field_index("polygon")
    none = pa.nulls(len(table), pa.binary())
    pq.write_table(table.set_column(column, "polygon", none), path)
    assert "field 2:" in write_sheet(tmp_path / "cells", tmp_path / "out", slides=2).read_text()


def test_a_slide_without_nuclei_is_shown(tmp_path):
    write_slide(tmp_path / "blank.tiff", np.full((300, 400, 3), 244, np.uint8), 0.25)
    settings = Settings("rays", "jpeg", seed=0, cells_per_slide=None, any_scale=False)
    extract_cohort(list_slides(tmp_path), tmp_path / "cells", settings, workers=1)
    text = write_sheet(tmp_path / "cells", tmp_path / "out", slides=1).read_text()
    assert "0 nuclei" in text and text.count("<img") == 2


def test_of_many_slides_some_are_drawn(run_stage, cells, tmp_path):
    done = run_stage("extract/main.py", "sheet", cells, "--out", tmp_path, "--slides", 1)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "index.html").read_text()
    assert "Shown below: 1 of them, drawn at random." in text and text.count("<section") == 1
    empty = run_stage("extract/main.py", "sheet", tmp_path, "--out", tmp_path)
    assert empty.returncode == 2 and "holds no outcome of extract" in empty.stderr


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")
@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_the_page_renders_in_a_browser(page, tmp_path, size):
    text = page.read_text()
    assert POLICY in text
    open_policy = POLICY + "; script-src 'unsafe-inline'"
    probed = text.replace(POLICY, open_policy).replace("</body>", f"{PROBE}</body>")
    (tmp_path / "page.html").write_text(probed)
    done = subprocess.run(
        [  # the profile is new: no one's extensions, no first run
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={size}",
            "--dump-dom",
            f"file://{tmp_path / 'page.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1]
    found = json.loads(title)
    assert len(found["images"]) == text.count("<img") >= 12
    assert all(found["images"])
    assert found["sections"] == 2
    assert found["width"] <= found["window"]
