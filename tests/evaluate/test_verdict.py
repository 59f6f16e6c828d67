"""The report's first screen: what it answers, on which grounds, and the words it explains."""

import re
from html import unescape

import numpy as np
import pytest

from evaluate.probes.metrics import METRICS
from evaluate.report.terms import KEPT_WHOLE, TERMS, explained
from evaluate.report.verdict import first_screen, judge
from evaluate.tables.table import Table

FACTS = {"nuclei": 90, "classes": {"a": 60, "b": 30}, "used": "90 nuclei", "group_kind": "slide"}


def tables(values: dict[str, float], splits=("stratified", "grouped"), name="mine") -> list[Table]:
    """Return tables in which the shuffled folds are 0.1 better."""
    found = []
    for split in splits:
        mean = np.array([[v + 0.1 * (split == "stratified")] * 5 for v in values.values()])
        found.append(Table(name, split, "", tuple(values), mean, np.full(mean.shape, 0.02)))
    return found


def facts(kinds: dict[str, str], intervals: dict[str, tuple] | None = None, name="mine") -> dict:
    details = {
        encoder: {
            "grouped": {
                "pooled": {METRICS[0]: sum(pair) / 2},
                "interval": {METRICS[0]: list(pair)},
            }
        }
        for encoder, pair in (intervals or {}).items()
    }
    manifests = {encoder: {"kind": kind} for encoder, kind in kinds.items()}
    return {"benchmarks": {name: FACTS}, "encoders": {name: manifests}, "details": {name: details}}


def text(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", re.sub(r'<span class="tooltip".*?</span>', "", html)))


@pytest.mark.parametrize(
    ("values", "said", "words"),
    [
        (
            {"run": 0.8, "pixels": 0.7},
            "yes",
            "Yes. On mine, run tells nuclei apart better than pix",
        ),
        (
            {"run": 0.72, "pixels": 0.7},
            "open",
            "run is a little ahead of pixels: the two differ by",
        ),
        ({"run": 0.7, "pixels": 0.7}, "open", "run is no better than pixels"),
        ({"run": 0.6, "pixels": 0.7}, "no", "Not yet. On mine, pixels tells nuclei apart better"),
        ({"run": 0.6}, "", "run was asked about mine, and nothing beside it"),
        (
            {"pixels": 0.6, "uni": 0.7},
            "",
            "No encoder of your own was asked about mine; uni is the",
        ),
    ],
)
def test_the_answer(values, said, words, tmp_path):
    kinds = {e: {"run": "run", "uni": "uni"}.get(e, "") for e in values}
    (verdict,) = judge(tables(values), facts(kinds))
    assert verdict.answer == said
    assert words in text(first_screen([verdict], tmp_path))


def test_folds_that_keep_slides_whole_decide_and_the_interval_is_said(tmp_path):
    kinds = {"run": "run", "other": "run", "resnet50": "resnet50", "untrained": "random"}
    intervals = {"run": (0.7, 0.8), "other": (0.3, 0.4), "resnet50": (0.6, 0.69)}
    intervals["untrained"] = (0.2, 0.3)
    values = dict.fromkeys(kinds, 0.5)
    (verdict,) = judge(tables(values), facts(kinds, intervals))
    assert verdict.bootstrapped and verdict.table.split == "grouped" and verdict.answer == "yes"
    said = text(first_screen([verdict], tmp_path))
    assert "run gets 75 right (balanced accuracy 0.750, 95 % interval 0.70 to 0.80)" in said
    assert "guessing would 50" in said
    assert "It is the best of 2 trained encoders, before other (0.350)." in said
    assert "The best of the others, resnet50, gets 0.645" in said
    assert "Asked about 90 nuclei (a 60, b 30), in folds with each slide kept whole." in said


def test_without_resamples_the_spread_is_said_and_without_groups_the_shuffle(tmp_path):
    (verdict,) = judge(tables({"run": 0.6, "pixels": 0.5}, ["stratified"]), facts({"run": "run"}))
    said = text(first_screen([verdict], tmp_path))
    assert "spread over folds 0.68 to 0.72" in said and "nuclei shuffled." in said
    assert "The best of the baselines, pixels, gets 0.600" in said


def test_other_benchmarks_are_tiles(tmp_path):
    known = facts({"run": "run"})
    for part in known.values():
        part["second"] = part["mine"]
    found = judge([*tables({"run": 0.8, "pixels": 0.5}),
                   *tables({"run": 0.4, "pixels": 0.5}, name="second")], known)  # fmt: skip
    html = first_screen(found, tmp_path)
    assert html.count('class="verdict yes"') == 1 and html.count('class="tile behind"') == 1
    assert "balanced accuracy of run on secondbehind pixels 0.500" in text(html)


def test_every_metric_is_explained_and_what_is_not_is_escaped():
    assert {*METRICS, "Pearson", KEPT_WHOLE} <= set(TERMS)
    assert 'tabindex="0"' in explained("AUPR") and TERMS["AUPR"][:40] in unescape(explained("AUPR"))
    assert explained("<b>") == "&lt;b&gt;"
    assert explained("<i>", "folds").startswith('<span class="term" tabindex="0">&lt;i&gt;<')
