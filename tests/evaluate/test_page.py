"""The interactive map: what it packs, and what a reader can do with it in a real browser."""

import base64
import importlib.util
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate.analyses.molecules import Molecules
from evaluate.maps.colouring import Column, columns_of, expression, hues
from evaluate.maps.page import GRID, LEVELS, Keys, by_level, write_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browsers = pytest.mark.skipif(not CHROMIUM, reason="no chromium here (apt-get install chromium)")
CELLS = 3000
KINDS = ("red", "green", "</script><script>hostile()</script>")


def of_colours(rng) -> tuple[np.ndarray, np.ndarray]:
    """Return 3,000 crops, each of one of 3,000 flat colours, and the colours."""
    colours = rng.integers(40, 216, (CELLS, 3)).astype(np.uint8)
    return np.broadcast_to(colours[:, None, None], (CELLS, 40, 40, 3)).copy(), colours


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict:
    """A page of 3,000 cells whose class is the third of the map they lie in."""
    rng = np.random.default_rng(0)
    xy = rng.random((CELLS, 2)) * 0.98 + 0.01
    crops, colours = of_colours(rng)
    labels = np.array(KINDS)[np.minimum(xy[:, 0] * 3, 2).astype(int)]
    size = np.where(xy[:, 1] > 0.9, np.nan, 100 * xy[:, 1])
    columns = [Column("class", labels, names=KINDS), Column("height", size, "µm")]
    owners = np.array([f"slide <{i % 7}>" for i in range(CELLS)])
    path = tmp_path_factory.mktemp("page") / "map.html"
    keys = Keys(owners, np.arange(CELLS))
    write_page(path, xy, crops, columns, keys, "<b>title</b>", "sub & title")
    return {"path": path, "xy": xy, "colours": colours, "labels": labels}


class Scripts(HTMLParser):
    """Collects script elements by id, and the tags."""

    def __init__(self, html: str):
        super().__init__()
        self.scripts, self.tags, self._id = {}, [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._id = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._id:
            self.scripts[self._id] = self.scripts.get(self._id, "") + data


def test_levels_are_grids_of_one_cell_a_square():
    rng = np.random.default_rng(1)
    xy = np.concatenate([rng.random((4000, 2)), rng.normal(0.5, 0.02, (4000, 2)), [[0, 0], [1, 1]]])
    order, levels = by_level(xy)
    assert sorted(order) == list(range(len(xy)))
    assert levels == sorted(levels) and len(levels) == LEVELS
    for step, count in enumerate(levels):
        squares = GRID * 2**step
        place = np.minimum(xy * squares, squares - 1e-6).astype(int)
        place[:, 1] = np.minimum((1 - xy[:, 1]) * squares, squares - 1e-6).astype(int)
        occupied = np.unique(place, axis=0)
        shown = np.unique(place[order[:count]], axis=0)
        assert len(shown) == count  # never two in a square
        assert (shown == occupied).all()  # and none without
    place = xy[order[: levels[0]]] * GRID  # the nearest to the centre, by a plain loop
    for x, y in place[:40]:
        here = (np.floor(xy * GRID) == np.floor([x, y])).all(axis=1)
        middle = np.floor([x, y]) + 0.5
        assert np.isclose(
            np.hypot(*(np.array([x, y]) - middle)),
            np.hypot(*(xy[here] * GRID - middle).T).min(),
        )


def test_what_is_packed_is_what_was_given(made):
    page = Scripts(made["path"].read_text())
    facts = json.loads(page.scripts["facts"])
    order, _ = by_level(made["xy"])
    kinds = {"xy": "<u2", "numbers": "<u4", "column-0": "u1", "column-1": "u1"}
    stored = {
        name: np.frombuffer(base64.b64decode(page.scripts[name]), kind)
        for name, kind in kinds.items()
    }
    expected = np.stack([made["xy"][order, 0], 1 - made["xy"][order, 1]], 1)
    assert np.abs(stored["xy"].reshape(-1, 2) / 65535 - expected).max() < 1e-5
    assert (stored["numbers"] == order).all()
    classes, height = facts["columns"]
    assert (np.array(classes["names"])[stored["column-0"]] == made["labels"][order]).all()
    assert classes["counts"] == [int((made["labels"] == kind).sum()) for kind in KINDS]
    known = made["xy"][order, 1] <= 0.9
    assert ((stored["column-1"] == 255) == ~known).all()
    value = height["low"] + stored["column-1"] / 254 * (height["high"] - height["low"])
    assert np.abs(value - 100 * made["xy"][order, 1])[known].max() < 1.4  # 1 % clipped
    tile = facts["tile"]
    for i in (0, 255, 256, CELLS - 1):
        data = base64.b64decode(page.scripts[f"sheet-{i // 256}"])
        sheet = np.asarray(Image.open(io.BytesIO(data)))
        y, x = (tile["px"] * place for place in divmod(i % 256, tile["side"]))
        crop = sheet[y : y + tile["px"], x : x + tile["px"]].astype(int)
        assert np.abs(crop - made["colours"][order[i]]).max() < 8


def test_nothing_hostile_and_nothing_outside(made):
    html = made["path"].read_text()
    page = Scripts(html)
    assert page.tags.count("b") == html.count("<b>") - html.count("'<b>'") == 2  # the help's own
    assert "<script>hostile" not in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert {"link", "iframe", "img"}.isdisjoint(page.tags)


def test_columns_of_a_benchmark(benchmark):
    vectors = benchmark.crops.reshape(len(benchmark), -1)[:, ::50].astype(float)
    columns = {column.name: column for column in columns_of(benchmark, vectors)}
    assert list(columns)[:2] == ["class", "cluster"]
    area = columns["nuclear area"].values
    by_class = {kind: area[benchmark.labels == kind].mean() for kind in benchmark.classes}
    assert 12 < by_class["round"] < 22  # painted: a radius of 9 px is 15.9 µm²
    assert columns["eccentricity"].values[benchmark.labels == "round"].mean() < 0.6
    counts = [(columns["cluster"].values == name).sum() for name in columns["cluster"].names]
    assert sum(counts) == len(benchmark) and counts == sorted(counts, reverse=True)
    assert len(set(hues([str(i) for i in range(40)]))) == 40


def test_genes_are_columns_and_unknown_where_they_were_not_measured():
    values = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    genes = Molecules("genes", ("A", "B", "C"), values, np.array([0, 3]))
    columns = expression(genes, 4, ["C", "A"])
    assert [column.name for column in columns] == ["C", "A"]
    np.testing.assert_array_equal(columns[0].values, [3, np.nan, np.nan, 6])
    np.testing.assert_array_equal(columns[1].values, [1, np.nan, np.nan, 4])
    many = Molecules("genes", tuple(map(str, range(300))), np.zeros((1, 300)), np.array([0]))
    with pytest.raises(ValueError, match=r"300 genes are more than a map holds \(200\)"):
        expression(many, 1)
    assert len(expression(many, 1, ["7"])) == 1


def test_columns_of_another_length_are_refused(tmp_path):
    keys = Keys(np.array(["a"] * 9), np.arange(9))
    crops = np.zeros((9, 40, 40, 3), np.uint8)
    for columns in ([], [Column("x", np.zeros(8))]):
        with pytest.raises(ValueError, match="a map of 9 cells needs columns"):
            write_page(tmp_path / "x.html", np.zeros((9, 2)), crops, columns, keys, "")


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    one = module.Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


def at(browser, i: int) -> list[float]:
    """Return where in the window cell i of the page's order is."""
    return browser.run(
        f"(() => {{ const [x, y] = toView(X[{i}], Y[{i}]), r = map.getBoundingClientRect(); "
        "return [x + r.left, y + r.top]; })()"
    )


def share(picture: np.ndarray, colour: str) -> float:
    """Return the share of pixels in a class's colour, as dots have it: a little see-through."""
    wanted = [int(colour[i : i + 2], 16) * 54 / 64 + 255 * 10 / 64 for i in (1, 3, 5)]
    return float((np.abs(picture - np.array(wanted)).max(axis=2) < 12).mean())


@browsers
def test_a_reader_hovers_selects_and_recolours(browser, made):
    order, _ = by_level(made["xy"])
    browser.open(made["path"])
    assert browser.run("document.title") == "<b>title</b>"
    first = browser.picture()
    colours = browser.run("columns[0].colours")
    assert all(share(first, colour) > 0.005 for colour in colours)
    names = browser.run("[...document.querySelectorAll('#legend .name')].map(e => e.textContent)")
    assert names == list(KINDS)

    # Hover: the cell's own image, its class and its number
    browser.mouse("moved", *at(browser, 300))
    browser.wait("!document.querySelector('#tip').hidden")
    shown = int(browser.run("map.dataset.hovered"))
    browser.wait(f"Boolean(sheet({shown // 256}))")
    middle = browser.run(
        "(tell(), [...document.querySelector('#tip canvas').getContext('2d')"
        ".getImageData(120, 120, 1, 1).data.slice(0, 3)])"
    )
    assert np.abs(np.array(middle) - made["colours"][order[shown]]).max() < 8
    text = browser.run("document.querySelector('#tip').textContent")
    assert made["labels"][order[shown]] in text and f"nucleus {order[shown]}" in text

    # Lasso: what lies inside the polygon, as numpy finds it
    browser.click("#lasso")
    box = browser.run("(() => { const r = map.getBoundingClientRect(); return [r.x, r.y]; })()")
    corners = [(200, 150), (500, 180), (560, 420), (240, 400)]
    browser.mouse("pressed", *np.add(box, corners[0]))
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        for step in np.linspace(0, 1, 5)[1:]:
            browser.mouse("moved", *np.add(box, np.add(a, step * np.subtract(b, a))), buttons=1)
    browser.mouse("released", *np.add(box, corners[0]))
    browser.wait("Number(map.dataset.selected) > 0")
    from matplotlib.path import Path as Outline

    places = np.array(browser.run("Array.from(X, (x, i) => toView(x, Y[i]))"))
    inside = Outline(corners).contains_points(places, radius=0)
    unsure = Outline(corners).contains_points(places, radius=2) != Outline(corners).contains_points(
        places, radius=-2
    )
    chosen = np.zeros(CELLS, bool)
    chosen[browser.run("chosen")] = True
    assert (chosen == inside)[~unsure].all() and 300 < chosen.sum() < 1500
    browser.wait("document.querySelector('#gallery').dataset.missing === '0'")
    assert f"{chosen.sum():,} cells selected" in browser.run("document.body.textContent")
    bars = browser.run("[...document.querySelectorAll('.share span')].map(e => e.textContent)")
    tally = max(100 * (made["labels"][order][chosen] == kind).mean() for kind in KINDS)
    assert bars[0].startswith(f"{tally:.0f} %")
    browser.click("#clear")
    browser.wait("map.dataset.selected === '0'")

    # Colour by another column, hide a class
    browser.run("$('colour').value = 1; $('colour').dispatchEvent(new Event('change'))")
    second = browser.picture()
    assert share(second, colours[0]) < 0.005
    assert browser.run("document.querySelector('.ramp') !== null")
    browser.run("$('colour').value = 0; $('colour').dispatchEvent(new Event('change'))")
    browser.click("#legend li:nth-child(1) button")
    third = browser.picture()
    assert share(third, colours[0]) < 0.003 < share(third, colours[1])
    assert not browser.errors


@browsers
def test_images_keys_themes_and_speed(browser, made):
    order, levels = by_level(made["xy"])
    browser.open(made["path"])
    browser.click("#cells")
    browser.wait("[...sheets.values()].every(s => s.complete)")
    picture = browser.picture()
    at_level = browser.run("level()")
    drawn = browser.run("[...squares.values()]")
    assert sorted(drawn) == list(range(levels[at_level]))
    found = 0
    for i in drawn[:50]:  # each in its own square, in its own colour
        side = browser.run("unit * view.zoom") / (GRID * 2**at_level)
        x, y = (np.array([made["xy"][order[i], 0], 1 - made["xy"][order[i], 1]]) * GRID
                * 2**at_level).astype(int) * side + side / 2  # fmt: skip
        origin = browser.run("(() => { const r = map.getBoundingClientRect(), t = toView(0, 0); "
                             "return [r.x + t[0], r.y + t[1]]; })()")  # fmt: skip
        pixel = picture[int(origin[1] + y), int(origin[0] + x)].astype(int)
        found += np.abs(pixel - made["colours"][order[i]]).max() < 12
    assert found == 50
    browser.click("#cells")

    browser.run("map.focus()")
    browser.key("+", 187)
    browser.key("ArrowRight", 39)
    assert browser.run("view.zoom") > 1.3 and browser.run("view.x") > 0.5
    browser.key("Enter", 13)
    assert browser.run("Number(map.dataset.selected)") > 5
    assert "cells selected" in browser.run("$('selection').textContent")
    browser.key("Escape", 27)
    assert browser.run("map.dataset.selected") == "0"
    browser.key("0", 48)
    assert browser.run("view.zoom") == 1

    light = browser.picture().mean()
    browser.click("#theme")
    assert browser.picture().mean() < light - 100
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)
    browser.open(made["path"])
    assert browser.picture().mean() < light - 100
    browser.call("Emulation.setEmulatedMedia", features=[])

    browser.run("$('measure').click()")
    browser.wait("$('speed').textContent")
    assert re.match(
        r"3,000 points on \d+ × \d+ px: drawn in [\d.]+ ms", browser.run("$('speed').textContent")
    )
    assert not browser.errors


@browsers
def test_on_a_phone_with_fingers(browser, made):
    browser.open(made["path"], 390, 800, phone=True)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    smallest = browser.run(
        "Math.min(...[...document.querySelectorAll('header button')].map(b => b.offsetHeight))"
    )
    assert smallest >= 40
    x, y = at(browser, 20)
    touch = {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]}
    browser.call("Input.dispatchTouchEvent", **touch)
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.wait("!document.querySelector('#tip').hidden")
    for spread in (40, 60, 90):
        points = [{"x": 195 - spread, "y": 400, "id": 0}, {"x": 195 + spread, "y": 400, "id": 1}]
        kind = "touchStart" if spread == 40 else "touchMove"
        browser.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    assert browser.run("view.zoom") > 1.8
    assert not browser.errors
