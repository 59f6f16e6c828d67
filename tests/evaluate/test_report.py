"""The report: figures and tables that any command leaves, and the page made of them."""

import importlib.util
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate.maps.colouring import Column
from evaluate.maps.page import Keys, write_page
from evaluate.report.figures import headline, read_entries, read_table, save_figure, save_table
from evaluate.report.panels import command_line, plain_table
from evaluate.report.report import write_report
from evaluate.results import record, running

HOSTILE = "<script>alert('x')</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_exhibits_travel_whole(tmp_path):
    from matplotlib.figure import Figure

    facts = {"section": "Robustness", "title": "A <b>", "best": {"score": "max"}}
    rows = [["a|b", "0.7 (0.1)"], ["c\\d", 0.9]]
    save_table(tmp_path, "one", ["encoder", "score"], rows, **facts)
    figure = Figure()
    figure.subplots().plot([1, 2])
    first = save_figure(tmp_path, "two", figure, section="Robustness").read_bytes()
    assert save_figure(tmp_path, "two", figure, section="Robustness").read_bytes() == first
    (tmp_path / "figures" / "bare.png").write_bytes(b"")
    bare, two, one = read_entries(tmp_path)
    assert (bare.section, bare.title, bare.path.suffix) == ("More", "bare", ".png")
    assert two.path.suffix == ".svg" and two.path.with_suffix(".png").stat().st_size > 1000
    assert (one.title, one.best, one.path.suffix) == ("A <b>", {"score": "max"}, ".csv")
    expected = (["encoder", "score"], [["a|b", "0.7 (0.1)"], ["c\\d", "0.9"]])
    assert read_table(one.path) == expected
    assert read_table(one.path.with_suffix(".md")) == expected


def test_a_description_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "tables/x.json").write_text(json.dumps({"answer": "42", "section": "Compute"}))
    (entry,) = read_entries(tmp_path)
    assert (entry.headline, entry.section, entry.title) == ("42", "Compute", "x")


def test_a_headline_names_the_learnt_encoders_and_few():
    parts = {"pixels": "0.1", "untrained": "0.2", "run": "0.3"}
    assert headline("of x", parts) == "of x: run 0.3; pixels 0.1; untrained 0.2."
    many = parts | {f"r{i}": str(i) for i in range(5)}
    assert headline("of x", many) == "of x: run 0.3; r0 0; r1 1; r2 2; 4 more below."


def test_exhibits_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match="no field 'note'"):
        save_table(tmp_path, "one", ["a"], [], note="x")
    with pytest.raises(ValueError, match="names no file"):
        save_table(tmp_path, "../one", ["a"], [])
    save_table(tmp_path, "one", ["a"], [])
    path = tmp_path / "tables" / "one.json"
    path.write_text(json.dumps({"title": 3}))
    with pytest.raises(ValueError, match="'title' is unknown or of another type"):
        read_entries(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="no description"):
        read_entries(tmp_path)
    path.with_suffix(".csv").write_text("a,b\n1\n")
    with pytest.raises(ValueError, match="no table"):
        read_table(path.with_suffix(".csv"))


# The page


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """A results folder with a bit of everything, and strings that must not run."""
    from matplotlib.figure import Figure

    out = tmp_path_factory.mktemp("results")
    for encoder, value in (("untrained", 0.5), ("first", 0.8), (HOSTILE, 0.7)):
        rows = [
            {"split": split, "fold": f, "metric": metric, "value": value + (f - 1) / 20}
            for split in ("stratified", "grouped")
            for metric in ("balanced accuracy", "AUC", "AUPR", "F1 macro", "F1 weighted")
            for f in range(3)
        ]
        facts = {"classes": {"a": 60, HOSTILE: 40}, "nuclei": 100, "notes": [HOSTILE], "groups": 5}
        facts |= {"group_kind": "slide", "positive": None, "sha256": "0", "protocol": {}}
        pair = {"encoder": encoder, "benchmark": "mine", "facts": facts, "manifest": {}}
        path = out / "probes" / "mine" / f"{len(encoder)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(pair | {"rows": rows, "details": {}}))
    entry = {"finished": "2026-01-02T03:04:05", "seconds": 1, "commit": None, "versions": {}}
    commands = ["probe --encoder first", "compute results", f"map --shards {HOSTILE}"]
    (out / "commands").mkdir()
    for i, c in enumerate(commands):
        text = json.dumps(entry | {"command": f"python evaluate/main.py {c}"})
        (out / "commands" / f"{i}.json").write_text(text)
    figure = Figure()
    figure.subplots().set_title("drawn")
    told = {"section": "Compute", "command": "compute"}
    save_figure(out, "cost", figure, title=HOSTILE, headline=f"42 {HOSTILE}", **told)
    save_table(out, "cost", ["encoder", "score"], [[HOSTILE, "0.1 (0.2)"], ["b", "0.3 (0.1)"]],
               title="Cost", caption=HOSTILE, best={"score": "max"}, **told)  # fmt: skip
    save_table(out, "zzz", ["n"], [[str(i)] for i in range(40)], section="Another")
    rng = np.random.default_rng(0)
    xy, crops = rng.random((300, 2)), rng.integers(0, 256, (300, 40, 40, 3)).astype(np.uint8)
    keys = Keys(np.array(["s"] * 300), np.arange(300))
    columns = [Column("class", np.array(["a", HOSTILE] * 150))]
    write_page(out / "maps" / "first--mine.html", xy, crops, columns, keys, HOSTILE)
    Image.fromarray(crops[0]).save(out / "maps" / "first--mine.png")
    (out / "sheets").mkdir()
    Image.fromarray(crops[1]).save(out / "sheets" / "cells--mine.png")
    return out


class Page(HTMLParser):
    """Collects tags, text and headings."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self.sections = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sections += [dict(attrs)["id"]] if tag == "section" else []

    def handle_data(self, data):
        self.text.append(data)


def test_everything_is_in_the_page_in_order_and_escaped(results, tmp_path):
    path = tmp_path / "report.html"
    write_report(results, path)
    html = path.read_text()
    page = Page(html)
    assert page.sections == [
        "probes", "compute", "another", "maps", "cells", "provenance"
    ]  # fmt: skip
    assert "script" not in page.tags and page.tags.count("iframe") == 1
    assert page.tags.count("img") == 3 and page.tags.count("table") == 4
    assert HOSTILE not in html
    text = " ".join(page.text)
    assert text.count(HOSTILE) > 10
    assert text.index("42") < text.index("A linear model")  # the headline first
    assert "Yes." in text and "tells nuclei apart better than" in text
    assert "0.800" in text and "the best of 2 trained encoders" in text
    assert "python evaluate/main.py compute results" in text
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    before = html
    write_report(results, path)
    assert path.read_text() == before


def test_figures_and_tables_of_other_folders(results, tmp_path):
    other = tmp_path / "composition"
    save_table(other, "composition", ["cells", "mean"], [["1,000", "0.6"]], section="Composition",
               title="Of a grid", command="composition")  # fmt: skip
    save_table(other, "classes--x", ["class"], [["a"]], section="Probes in detail", title="Hidden")
    record(other, ["composition", "cells/", "--out", "composition/"], 3)
    write_report(results, tmp_path / "r.html", beside=[other])
    html = (tmp_path / "r.html").read_text()
    assert "Of a grid" in html and "Hidden" not in html
    assert html.count("composition cells/ --out composition/") == 2  # below it, and of its source
    with pytest.raises(FileNotFoundError, match=r"no results folder .*none"):
        write_report(results, tmp_path / "r.html", beside=[tmp_path / "none"])


def test_a_large_map_is_linked(results, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.report.panels.EMBEDDED", 1000)
    write_report(results, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "<iframe" not in html and "script-src" not in html
    (link,) = re.findall(r'href="([^"#]+)"', html)
    assert (tmp_path / link).resolve() == (results / "maps" / "first--mine.html").resolve()


def test_the_best_values_are_bold():
    rows = [["a", "0.70 (0.1)", "3"], ["b", "1,200", "-4e-1"], ["c", "", "2"]]
    html = plain_table(["x", "up", "down"], rows, {"up": "max", "down": "min"})
    assert re.findall("<b>(.*?)</b>", html) == ["1,200", "-4e-1"]


def test_the_command_that_names_what_it_made():
    ran = [
        {"command": f"python evaluate/main.py {c}"} for c in ("map a/one", "map b/two", "map c/six")
    ]
    assert "b/two" in command_line(ran, "map", "first--two")
    assert "c/six" in command_line(ran, "map", "first--none")
    assert command_line(ran, "probe") == ""


def test_a_table_says_the_command_that_made_it_not_the_last_one(tmp_path):
    """A classifier applied to cells, then to shards: the slides' pictures are of the first."""
    with running(["apply", "cells/", "--out", "r/"]):
        save_table(tmp_path, "slides", ["a"], [["1"]], section="Slides", command="apply")
        save_table(tmp_path, "scores", ["a"], [["1"]], section="Slides", command="fit")
    record(tmp_path, ["apply", "cells/", "--out", "r/"], 1)
    record(tmp_path, ["apply", "shards/", "--out", "r/"], 1)
    scores, slides = read_entries(tmp_path)
    assert slides.line == "python evaluate/main.py apply cells/ --out r/" and scores.line == ""
    write_report(tmp_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    html, _, provenance = html.partition(">Provenance</h2>")
    assert html.count("apply cells/") == 1 and "apply shards/" not in html
    assert "apply shards/" in provenance


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")
def test_in_a_browser_it_renders_hovers_and_opens_the_map(results, tmp_path):
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path / "report.html"
    write_report(results, path)
    browser = module.Browser(tmp_path / "profile")
    try:
        browser.open(path)
        loaded = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        browser.wait(loaded)
        box = browser.run(
            "(() => { const e = document.querySelector('.dot .at'); e.scrollIntoView("
            "{block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        seen = "getComputedStyle(document.querySelector('.dot .tip')).visibility"
        assert browser.run(seen) == "hidden"
        browser.mouse("moved", *box)
        assert browser.run(seen) == "visible"
        said = browser.run("document.querySelector('.dot .tip').textContent")
        assert said == "untrained, stratified: 0.500 ± 0.050"

        frame = "document.querySelector('iframe')"
        browser.click(".interactive summary")
        browser.wait(f"{frame}.checkVisibility() && {frame}.offsetHeight > 300")
        browser.run(f"{frame}.scrollIntoView({{block: 'center'}})")
        box = browser.run(f"(() => {{ const b = {frame}.getBoundingClientRect(); "
                          "return [b.x, b.y, b.right, b.bottom].map(Math.round); })()")  # fmt: skip
        blue = 0
        while not blue > 200:  # dots of the map's first class
            part = browser.picture()[max(0, box[1]) : box[3], box[0] : box[2]].astype(int)
            blue = int((np.abs(part - [40, 136, 190]).max(axis=2) < 14).sum())
        assert not browser.errors

        browser.open(path, 390, 800, phone=True)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
        browser.call("Emulation.setEmulatedMedia", features=scheme)
        assert browser.picture().mean() < 90
        assert not browser.errors
    finally:
        browser.close()
