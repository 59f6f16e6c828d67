"""The pages' links, pictures and paths lead to what a clone has."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, name, prose, setup

FOLDERS = "extract shards train evaluate slurm demo bench tests docs encoders".split()
# What commands write into folders that bear a stage's name, and what may come with a later clone.
MADE = ("shards/train-", "shards/.mix", "shards/contact.png", "demo/out", "encoders/lemon-NAME")
LARGEST = 300_000  # bytes of a picture
WIDEST = 97  # characters of a code line that GitHub shows without scrolling


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind #, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_pictures_are_there(page):
    text = prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        assert found.is_relative_to(ROOT), f"{page.name} links out of the clone: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links to {target}"


def test_pictures_are_small_and_shown():
    shown = "".join(page.read_text() for page in PAGES)
    for picture in (ROOT / "docs" / "images").iterdir():
        if picture.suffix != ".md":
            assert picture.stat().st_size < LARGEST, picture
            assert picture.name in shown, f"{picture} is on no page"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_name_what_a_clone_has(page):
    text = page.read_text()
    assert "../shared" not in text, "no clone has ../shared"
    assert not re.search(r"(?<![\w/])/(work|home|root|tmp)/", text), "a path of one machine"
    for word in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", prose(page)):
        if not word.startswith(MADE):
            assert (ROOT / word).exists(), f"{page.name} names {word}"


def faults_of_setting(text: str) -> list[str]:
    """Return the lines of a page that GitHub would show badly."""
    lines, code, faults = ["", *text.splitlines(), ""], False, []
    for before, line, behind in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("```"):
            faults += [f"no empty line at {line}: {n}" for n in [behind if code else before] if n]
            code = not code
        elif code and len(line) > WIDEST:
            faults.append(f"wider than {WIDEST}: {line}")
        elif not code and re.match(r" \w", line):
            faults.append(f"begins with a blank: {line}")
    return faults


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_are_set_well(page):
    assert faults_of_setting(page.read_text()) == []


def test_bad_setting_is_seen():
    wide = "x" * (WIDEST + 1)
    page = f"a\n```\n{wide}\n```\n b\n\n```bash\nmake demo\n```\n"
    assert [fault.split(":")[0] for fault in faults_of_setting(page)] == [
        "no empty line at ```",
        f"wider than {WIDEST}",
        "no empty line at ```",
        "begins with a blank",
    ]


def test_the_tree_names_what_is_there():
    tree = (ROOT / "docs" / "architecture.md").read_text().split("## The tree")[1]
    stage, folder, seen = ROOT, "", 0
    for line in re.search(r"^```\n(.*?)^```", tree, re.M | re.S)[1].splitlines():
        for word in re.split(r"\s{3,}", line.strip())[0].split():
            if line[0] != " ":
                stage = ROOT / word if word.endswith("/") else ROOT
                assert (ROOT / word).exists(), line
                continue
            if "/" in word.rstrip("/"):  # its folder is that of the names that follow, too
                folder, _, word = word.rstrip("/").rpartition("/")
            seen += 1
            assert (stage / word).exists() or (stage / folder / word).exists(), f"{line}: {word}"
    assert seen > 150


def test_the_citation_can_be_read():
    text = (ROOT / "CITATION.cff").read_text()
    for line in ("cff-version: 1.2.0", "license: MIT", "doi:", "given-names:", "title:"):
        assert line in text
    version = re.search(r"^version: (.+)$", text, re.M)[1]
    metadata = setup()["metadata"]
    assert version == metadata["version"]
    assert metadata["license"] in (ROOT / "LICENSE").read_text()
