"""The results folder: a file per encoder and benchmark; `probe.csv`, `probe.json`; commands run."""

import contextlib
import csv
import io
import json
import secrets
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evaluate.benchmark import Benchmark
from shards.json_file import read_json
from shards.write import write_text

COLUMNS = ("encoder", "benchmark", "split", "fold", "metric", "value")
PAIR = ("encoder", "benchmark", "facts", "manifest", "rows", "details")
DECISIVE = ("sha256", "protocol")  # of a benchmark's facts: what a table must have in common
FIRST = ("pixels", "morphology", "untrained")  # baselines lead each table, as in the paper
PACKAGES = ("numpy", "scikit-learn", "torch", "timm", "openTSNE", "opencv-python-headless")

_running: ContextVar[tuple[str, ...]] = ContextVar("_running", default=())


def read_rows(out: Path) -> list[dict]:
    """Return all rows of `probe.csv`, fold an int and value a float; none if nothing was probed.

    Raises:
        ValueError: a file is not of this shape.
    """
    pairs = read_pairs(out)
    rows = [
        {"encoder": pair["encoder"], "benchmark": pair["benchmark"], **row}
        for pair in pairs
        for row in pair["rows"]
    ]
    return sorted(rows, key=lambda row: (row["benchmark"], rank(row["encoder"])))


def read_facts(out: Path) -> dict:
    """Return `probe.json`.

    Returns:
        {"benchmarks": {name: facts}, "encoders": {benchmark: {name: manifest}},
        "details": {benchmark: {encoder: {split: …}}}}.

    Raises:
        ValueError: a file is not of this shape.
    """
    facts: dict[str, dict] = {"benchmarks": {}, "encoders": {}, "details": {}}
    for pair in read_pairs(out):
        name, encoder = pair["benchmark"], pair["encoder"]
        facts["benchmarks"][name] = pair["facts"]
        facts["encoders"].setdefault(name, {})[encoder] = pair["manifest"]
        facts["details"].setdefault(name, {})[encoder] = pair["details"]
    return facts


def read_pairs(out: Path) -> list[dict]:
    """Return what is known of each encoder on each benchmark, sorted.

    Each lies in a file of its own, `probes/<benchmark>/<encoder>.json`, so that any number of
    tasks write into one folder, on any file system, without a lock. `probe.csv` and `probe.json`
    are made of them, for reading.

    Raises:
        ValueError: a file is not of this shape.
    """
    paths, pairs = sorted((Path(out) / "probes").glob("*/*.json")), []
    if not paths and (Path(out) / "probe.csv").is_file():
        raise ValueError(f"{out} holds probe.csv without the probes/ it is made of; name another")
    for path in paths:
        try:
            pair = read_json(path, "move it away")
        except FileNotFoundError:  # dropped by another task since it was listed
            continue
        if missing := [key for key in PAIR if key not in pair]:
            raise ValueError(f"{path} holds no probe: it lacks {missing[0]!r}; move it away")
        pairs.append(pair)
    return sorted(pairs, key=lambda pair: (pair["benchmark"], rank(pair["encoder"])))


def benchmark_facts(benchmark: Benchmark, path: str, protocol: dict) -> dict:
    """Return what a row of `probe.csv` depends on besides the encoder, as JSON."""
    positive = benchmark.positive
    if len(benchmark.classes) == 2 and not positive:
        positive = benchmark.classes[1]
    facts = {
        "path": str(path),
        "sha256": benchmark.sha256,
        "nuclei": len(benchmark),
        "classes": benchmark.counts(),
        "positive": positive,
        "groups": len(set(benchmark.groups.tolist())),
        "group_kind": benchmark.group_kind,
        "notes": list(benchmark.notes),
        "used": benchmark.used(),
        "protocol": protocol,
    }
    if benchmark.targets is not None:
        facts["targets"] = list(benchmark.target_names)
        facts["origins"] = {k: len(set(v.tolist())) for k, v in benchmark.batch_variables.items()}
    return json.loads(json.dumps(facts))  # as it is read back


def is_done(out: Path, name: str, facts: dict, encoder: str, manifest: dict) -> bool:
    """Tell whether this encoder was probed on these nuclei by this protocol before."""
    path = _pair_path(out, name, encoder)
    if not path.is_file():
        return False
    pair = read_json(path, "move it away")
    same = all(pair["facts"].get(key) == facts[key] for key in DECISIVE)
    return same and pair["manifest"] == json.loads(json.dumps(manifest))


def check_comparable(out: Path, name: str, facts: dict, encoders: list[str]) -> None:
    """See that other encoders' rows of this benchmark stem from the same nuclei and folds.

    Raises:
        ValueError: they do not, so that one table would hold two protocols.
    """
    foreign = [p for p in _foreign(out, name, facts) if p["encoder"] not in encoders]
    if not foreign:
        return
    names = ", ".join(pair["encoder"] for pair in foreign)
    before = foreign[0]["facts"]
    for key, what in zip(DECISIVE, ("other nuclei", "another protocol"), strict=True):
        if before.get(key) != facts[key]:
            raise ValueError(
                f"{out}/probe.csv holds {name} of {what} for {names}: "
                f"{before.get(key)}, now {facts[key]}; use another --out, or --overwrite to drop it"
            )


def store(
    out: Path,
    name: str,
    facts: dict,
    encoder: str,
    manifest: dict,
    rows: list[dict],
    drop: bool = False,
    details: dict | None = None,
) -> None:
    """Write one encoder's results on one benchmark; the same input gives the same bytes.

    Args:
        facts: of `benchmark_facts`.
        manifest: its identity.
        rows: dicts of split, fold, metric and value.
        drop: drop other encoders' results on this benchmark by other nuclei or another protocol.
        details: what else was found, by split.
    """
    keys = ("split", "fold", "metric", "value")
    kept = [{k: row[k] for k in keys} | {"value": round(row["value"], 6)} for row in rows]
    pair = {"encoder": encoder, "benchmark": name, "facts": facts, "manifest": manifest}
    _write_pair(out, pair | {"rows": kept, "details": details or {}})
    for pair in _foreign(out, name, facts) if drop else ():
        _pair_path(out, name, pair["encoder"]).unlink(missing_ok=True)
    write_views(out)


def write_views(out: Path) -> None:
    """Write `probe.csv` and `probe.json` from the pairs.

    Of several tasks the last to write sees all pairs: it looks again after writing.
    """
    seen = None
    while seen != (seen := _listing(out)):
        text = io.StringIO()
        writer = csv.DictWriter(text, list[str](COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row | {"value": f"{row['value']:.6f}"} for row in read_rows(out))
        write_text(Path(out) / "probe.csv", text.getvalue())
        write_text(Path(out) / "probe.json", json.dumps(read_facts(out), indent=1) + "\n")


def _listing(out: Path) -> list[tuple]:
    found = []
    for path in sorted((Path(out) / "probes").glob("*/*.json")):
        with contextlib.suppress(FileNotFoundError):
            found.append((path, path.stat().st_mtime_ns))
    return found


def _foreign(out: Path, name: str, facts: dict) -> list[dict]:
    """Return the pairs of a benchmark that are of other nuclei or another protocol."""
    return [
        pair
        for pair in read_pairs(out)
        if pair["benchmark"] == name
        and any(pair["facts"].get(key) != facts[key] for key in DECISIVE)
    ]


def _write_pair(out: Path, pair: dict) -> None:
    path = _pair_path(out, pair["benchmark"], pair["encoder"])
    write_text(path, json.dumps(pair, indent=1) + "\n")


def _pair_path(out: Path, name: str, encoder: str) -> Path:
    return Path(out) / "probes" / name / f"{encoder}.json"


def rank(encoder: str) -> tuple[int, str]:
    """Return a sorting key: baselines first, then by name."""
    base = encoder.partition("+")[0]
    return (FIRST.index(base) if base in FIRST else len(FIRST), encoder)


def is_baseline(encoder: str) -> bool:
    """Tell whether an encoder, by its name, has learnt nothing."""
    return encoder.partition("+")[0] in FIRST


@contextlib.contextmanager
def running(argv: list[str]) -> Iterator[None]:
    """Name the command that runs, so that what it leaves in a results folder can say it."""
    token = _running.set(tuple(argv))
    try:
        yield
    finally:
        _running.reset(token)


def running_line(command: str) -> str:
    """Return the line of the command that runs, '' if that is another one, or none."""
    argv = _running.get()
    return _line(argv) if argv[:1] == (command,) else ""


def _line(argv: Iterable[str]) -> str:
    return shlex.join(["python", "evaluate/main.py", *argv])


def record(out: Path, argv: list[str], seconds: float) -> None:
    """Add a finished command to `commands/`, with versions and the commit it ran at."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,  # a copy without .git runs as well
    )
    entry = {
        "command": _line(argv),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "commit": git.stdout.strip() or None,
        "versions": {package: version(package) for package in PACKAGES},
    }
    # a file a command, so that tasks of an array never write into one another's line
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    write_text(Path(out) / "commands" / f"{stamp}-{secrets.token_hex(3)}.json", json.dumps(entry))


def read_commands(out: Path) -> list[dict]:
    """Return the commands run into this folder, the last of those that are alike, oldest first."""
    entries = {}
    for path in sorted((Path(out) / "commands").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        try:
            entry = json.loads(text)
            entries.pop(entry["command"], None)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no command: {text[:60]!r}") from error
        entries[entry["command"]] = entry
    return list(entries.values())
