"""The report's first screen: is the encoder any good, against what, on which nuclei, how surely."""

import io
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from evaluate.report.terms import KEPT_WHOLE, explained
from evaluate.results import is_baseline
from evaluate.tables.table import CLASSIFICATION, Table

BARS = 7  # encoders drawn
NEXT = 3  # trained ones named after the best
WIDTH_PX, ROW_PX = 460, 30
LONGEST, LETTER_PX = 18, 9.5  # of an encoder's name: letters shown, width of a bold one
PICTURE_PX = 560  # width of the nuclei's picture


@dataclass(frozen=True)
class Score:
    """An encoder's score on a benchmark, and how surely it is that."""

    name: str
    value: float
    low: float
    high: float
    own: bool  # trained by this pipeline


@dataclass(frozen=True)
class Verdict:
    """What a benchmark says of the encoders, best first."""

    table: Table
    facts: dict  # of the benchmark
    scores: list[Score]
    bootstrapped: bool  # low and high are a 95 % interval; else a s.d. over folds

    @property
    def best(self) -> Score:
        """Return the best of one's own, or where there is none the best."""
        return next((score for score in self.scores if score.own), self.scores[0])

    @property
    def rival(self) -> Score | None:
        """Return the best of the others."""
        return next((score for score in self.scores if not score.own), None)

    @property
    def answer(self) -> str:
        """Return `yes`, `no`, `open`, or '' where there is nothing to compare."""
        if not self.best.own or not self.rival:
            return ""
        if self.best.low > self.rival.high:
            return "yes"
        return "no" if self.best.high < self.rival.low else "open"


def judge(tables: list[Table], facts: dict) -> list[Verdict]:
    """Return a verdict for each benchmark, by the folds that keep slides whole where there are any.

    Args:
        tables: of `read_tables`, a benchmark's in the order of its splits.
        facts: of `read_facts`.
    """
    last = {table.benchmark: table for table in tables}
    found = []
    for name, table in last.items():
        metric, manifests = table.metrics[0], facts["encoders"].get(name, {})
        details = facts.get("details", {}).get(name, {})
        own = {e for e in table.encoders if manifests.get(e, {}).get("kind") == "run"}
        own = own or {e for e in table.encoders if not is_baseline(e) and not manifests.get(e)}
        known = [details.get(e, {}).get(table.split, {}) for e in table.encoders]
        bootstrapped = all("interval" in one for one in known)
        scores = []
        for i, encoder in enumerate(table.encoders):
            value, spread = float(table.mean[i, 0]), float(table.sd[i, 0])
            low, high = value - spread, value + spread
            if bootstrapped:
                value = known[i]["pooled"][metric]
                low, high = known[i]["interval"][metric]
            scores.append(Score(encoder, value, low, high, encoder in own))
        scores.sort(key=lambda score: -score.value)
        found.append(Verdict(table, facts["benchmarks"].get(name, {}), scores, bootstrapped))
    return found


def first_screen(verdicts: list[Verdict], results: Path) -> str:
    """Return the answer on the first benchmark at length, on others in a tile each."""
    if not verdicts:
        return ""
    first, *others = verdicts
    picture = _picture(results / "sheets" / f"benchmark--{first.table.benchmark}.png")
    tiles = "".join(map(_tile, others))
    return (
        f'<div class="verdict {first.answer or "none"}"><h2>Is the encoder any good?</h2>'
        f'<p class="answer">{_answer(first)}</p><p>{_grounds(first)}</p>'
        f'<div class="shown">{_bars(first)}{picture}</div></div>'
        + (f'<div class="tiles">{tiles}</div>' if tiles else "")
    )


def _answer(verdict: Verdict) -> str:
    """Return one sentence that can be understood without knowing what a probe is."""
    best, rival, where = verdict.best, verdict.rival, _strong(verdict.table.benchmark)
    does = "predicts genes" if not verdict.facts.get("classes") else "tells nuclei apart"
    name = _strong(best.name)
    if verdict.answer == "yes" and rival:
        others = [_strong(score.name) for score in verdict.scores if not score.own]
        return f"<b>Yes.</b> On {where}, {name} {does} better than {_listed(others)}."
    if verdict.answer == "no" and rival:
        return f"<b>Not yet.</b> On {where}, {_strong(rival.name)} {does} better than {name}."
    if verdict.answer == "open" and rival:
        ahead = "a little ahead of" if best.value > rival.value else "no better than"
        return (
            f"<b>Not shown.</b> On {where}, {name} is {ahead} {_strong(rival.name)}: the two "
            "differ by less than chance could explain."
        )
    if best.own:
        return f"{name} was asked about {where}, and nothing beside it: probe the baselines, too."
    return f"No encoder of your own was asked about {where}; {name} is the best of those that were."


def _grounds(verdict: Verdict) -> str:
    """Return the figures behind the answer: the score, its interval, the rival, the nuclei."""
    best, rival, known = verdict.best, verdict.rival, verdict.facts
    classes, metric = known.get("classes") or {}, verdict.table.metrics[0]
    sure = explained("95 % interval" if verdict.bootstrapped else "spread over folds")
    interval = f"{sure} {best.low:.2f} to {best.high:.2f}"
    rated = f"{explained(metric)} {best.value:.3f}, {interval}"
    said = [f"Its {rated}."]
    if classes:
        guess = f"guessing would {100 / len(classes):.0f}"
        said = [
            f"Of 100 nuclei, each kind as often as any other, {_strong(best.name)} gets "
            f"{100 * best.value:.0f} right ({rated}); {guess}."
        ]
    if best.own and rival:
        trained = [score for score in verdict.scores if score.own and score is not best]
        if trained:
            next_best = [f"{_strong(score.name)} ({score.value:.3f})" for score in trained[:NEXT]]
            said.append(
                f"It is the best of {1 + len(trained)} trained encoders, before "
                f"{_listed(next_best)}."
            )
        what = "The best of the others"
        if all(is_baseline(score.name) for score in verdict.scores if not score.own):
            what = f"The best of the {explained('baselines')}"
        said.append(f"{what}, {_strong(rival.name)}, gets {rival.value:.3f}.")
    asked = escape(known.get("used") or f"{known.get('nuclei', 0):,} nuclei")
    kinds = ", ".join(f"{escape(kind)} {count:,}" for kind, count in classes.items())
    said.append(f"Asked about {asked}{f' ({kinds})' if kinds else ''}, in {explained('folds')}")
    if verdict.table.split == CLASSIFICATION[0]:
        said[-1] += ", nuclei shuffled."
    else:
        kind = escape(known.get("group_kind") or "group")
        kind = kind if verdict.table.split in CLASSIFICATION else verdict.table.split
        said[-1] += f" with each {kind} {explained(KEPT_WHOLE)}."
    return " ".join(filter(None, said))


def _tile(verdict: Verdict) -> str:
    best, rival = verdict.best, verdict.rival
    words = {"yes": "better than", "no": "behind", "open": "not told apart from"}
    said = (
        f"{words[verdict.answer]} {rival.name} {rival.value:.3f}"
        if verdict.answer and rival
        else ""
    )
    behind = "" if verdict.answer in ("yes", "") else " behind"
    return (
        f'<a class="tile{behind}" href="#probes"><b>{best.value:.3f}</b>'
        f"<span>{escape(verdict.table.metrics[0])} of {_strong(best.name)} on "
        f"{_strong(verdict.table.benchmark)}</span><small>{escape(said)}</small></a>"
    )


def _bars(verdict: Verdict) -> str:
    """Draw the scores as bars with their intervals, chance as a line."""
    shown = verdict.scores[:BARS]
    shown += [score for score in (verdict.best, verdict.rival) if score and score not in shown]
    top = max(1e-9, *(score.high for score in shown))
    high = min(1.0, top * 1.05)
    names = [n if len(n) <= LONGEST else n[: LONGEST - 1] + "…" for n in (s.name for s in shown)]
    left, right = 10 + LETTER_PX * max(map(len, names), default=0), WIDTH_PX - 56

    def x(value: float) -> float:
        return round(left + max(0.0, min(value / high, 1.0)) * (right - left), 1)

    classes, bottom = verdict.facts.get("classes"), ROW_PX * len(shown) + 6
    title = f"{verdict.table.metrics[0]} of each encoder"
    parts = [
        f'<svg class="bars" viewBox="0 0 {WIDTH_PX} {bottom + 24}" role="img" '
        f'aria-label="{escape(title)}">'
    ]
    for i, (score, short) in enumerate(zip(shown, names, strict=True)):
        y = ROW_PX * i + ROW_PX / 2 + 4
        parts.append(
            f'<g class="{"own" if score.own else "other"}"><title>{escape(score.name)}</title>'
            f'<text class="name" x="{left - 10}" y="{y + 5}">{escape(short)}</text>'
            f'<rect x="{left}" y="{y - 9}" width="{x(score.value) - left:.1f}" height="18" '
            f'rx="2"/><line x1="{x(score.low)}" x2="{x(score.high)}" y1="{y}" y2="{y}"/>'
            f'<text class="value" x="{right + 12}" y="{y + 5}">{score.value:.3f}</text></g>'
        )
    if classes:
        at = x(1 / len(classes))
        parts.append(
            f'<line class="chance" x1="{at}" x2="{at}" y1="2" y2="{bottom}"/>'
            f'<text class="axis" x="{at}" y="{bottom + 16}">guessing</text>'
        )
    return "".join([*parts, "</svg>"])


def _picture(sheet: Path) -> str:
    """Return the benchmark's contact sheet in small, or nothing where there is none."""
    if not sheet.is_file():
        return ""
    with Image.open(sheet) as image:
        small = image.convert("RGB")
    small.thumbnail((PICTURE_PX, 4 * PICTURE_PX))
    data = io.BytesIO()
    small.save(data, "WEBP", quality=85, method=3)
    text = b64encode(data.getvalue()).decode()
    return f'<img alt="Nuclei of each kind" src="data:image/webp;base64,{text}">'


def _strong(text: str) -> str:
    return f"<em>{escape(text)}</em>"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
