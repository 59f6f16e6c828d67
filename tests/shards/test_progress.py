"""Progress: a bar on a terminal, lines in a log, silence where it is short or another rank's."""

import ast
import io
import sys
from pathlib import Path

import pytest

from shards import progress
from shards.progress import Bar, say_next

ROOT = Path(__file__).resolve().parents[2]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as a test says."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def lines(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_now_and_then_and_the_whole(clock, capsys):
    with Bar(None, "embed pixels", "nuclei", total=3000, done=1000) as bar:
        for _ in range(20):
            clock[0] += 5
            bar.update(100)
    assert lines(capsys) == [
        "embed pixels: 1,600 of 3,000 nuclei, 20 nuclei/s, 01:10 left",
        "embed pixels: 2,200 of 3,000 nuclei, 20 nuclei/s, 00:40 left",
        "embed pixels: 2,800 of 3,000 nuclei, 20 nuclei/s, 00:10 left",
        "embed pixels: 3,000 of 3,000 nuclei, 20 nuclei/s, after 01:40",
    ]


def test_a_log_gets_a_line_while_nothing_ends(clock, capsys):
    bar = Bar(None, "extract", "slides", total=2)
    for _ in range(7):
        clock[0] += 10
        bar.refresh()
    bar.update()
    clock[0] += 30
    bar.set_postfix(loss="1.5")
    bar.close()
    assert lines(capsys) == [
        "extract: 0 of 2 slides, after 00:30",
        "extract: 0 of 2 slides, after 01:00",
        "extract: 1 of 2 slides, 100 s each, 01:40 left, loss=1.5",
    ]


def test_what_is_short_leaves_a_log_alone(clock, capsys):
    for _ in Bar(range(5), "verify", "shards"):
        clock[0] += 1.9
    assert lines(capsys) == []


@pytest.mark.parametrize("options", [{"shown": False}, {"inner": True}])
def test_other_ranks_and_inner_bars_leave_a_log_alone(clock, capsys, options):
    with Bar(None, "train", "steps", total=9, **options) as bar:
        clock[0] += 100
        bar.update()
        bar.refresh()
    assert lines(capsys) == []


def test_an_inner_bar_speaks_in_a_log_where_it_is_asked_to(clock, capsys, monkeypatch):
    monkeypatch.setattr(Bar, "inner_in_logs", True)  # as in the process of a slide that is alone
    with Bar(None, "segment", "tiles", total=9, inner=True) as bar:
        clock[0] += 60
        bar.update(3)
    assert lines(capsys) == ["segment: 3 of 9 tiles, 20 s each, 02:00 left"]


def test_a_terminal_gets_a_bar(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    for _ in Bar(range(5), "verify", "shards"):
        clock[0] += 2
    shown = sys.stderr.getvalue()
    assert "verify:  40%|" in shown and "2/5 [00:04<00:06" in shown and "5/5" in shown


def test_next_commands_can_be_pasted(capsys):
    say_next(["python", "shards/main.py", "mix", Path("my cells"), "--out", "shards/"])
    assert capsys.readouterr().out == "next: python shards/main.py mix 'my cells' --out shards/\n"


def test_there_is_one_bar():
    for stage in ("extract", "shards", "train", "evaluate", "demo"):
        for path in sorted((ROOT / stage).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "tqdm":
                    assert path == ROOT / "shards/progress.py", path
