"""The results folder: `probe.csv` and what its rows depend on, `probe.json`; the commands run."""

import csv
import io
import json
import shlex
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from evaluate.benchmark import Benchmark
from evaluate.embed import write_text

COLUMNS = ("encoder", "benchmark", "split", "fold", "metric", "value")
FIRST = ("pixels", "morphology", "untrained")  # baselines lead each table, as in the paper
PACKAGES = ("numpy", "scikit-learn", "torch", "timm", "openTSNE", "opencv-python-headless")


def read_rows(out: Path) -> list[dict]:
    """Return the rows of `probe.csv`, fold an int and value a float; none if there is no file.

    Raises:
        ValueError: the file is not of this shape.
    """
    path = Path(out) / "probe.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            {k: row[k] for k in COLUMNS} | {"fold": int(row["fold"]), "value": float(row["value"])}
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no table of probes ({error!r}); move it away") from error


def read_facts(out: Path) -> dict:
    """Return `probe.json`: {"benchmarks": {name: facts}, "encoders": {benchmark: {name: facts}}}.

    Raises:
        ValueError: the file is no JSON.
    """
    path = Path(out) / "probe.json"
    if not path.is_file():
        return {"benchmarks": {}, "encoders": {}}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); move it and probe.csv away") from error


def benchmark_facts(benchmark: Benchmark, path: str, protocol: dict) -> dict:
    """Return what a row of `probe.csv` depends on besides the encoder, as JSON."""
    return {
        "path": str(path),
        "sha256": benchmark.sha256,
        "nuclei": len(benchmark),
        "classes": benchmark.counts(),
        "positive": benchmark.positive,
        "groups": len(set(benchmark.groups.tolist())),
        "group_kind": benchmark.group_kind,
        "notes": list(benchmark.notes),
        "protocol": protocol,
    }


def check_comparable(out: Path, name: str, facts: dict, encoders: list[str]) -> None:
    """See that other encoders' rows of this benchmark stem from the same nuclei and folds.

    Raises:
        ValueError: they do not, so that one table would hold two protocols.
    """
    old = read_facts(out)
    others = set(old["encoders"].get(name, {})) - set(encoders)
    before = old["benchmarks"].get(name)
    if not before or not others:
        return
    for key in ("sha256", "protocol"):
        if before[key] != facts[key]:
            what = "other nuclei" if key == "sha256" else "another protocol"
            raise ValueError(
                f"{out}/probe.csv holds {name} of {what} for {', '.join(sorted(others))}: "
                f"{before[key]}, now {facts[key]}; use another --out, or --overwrite to drop it"
            )


def store(
    out: Path, name: str, facts: dict, encoder: str, manifest: dict, rows: list[dict], drop: bool
) -> None:
    """Replace one encoder's rows of one benchmark; the same input gives the same bytes.

    Args:
        out: the results folder.
        name: of the benchmark.
        facts: of `benchmark_facts`.
        encoder: its name.
        manifest: its identity.
        rows: dicts of COLUMNS.
        drop: drop the benchmark's other encoders too.
    """
    saved = read_facts(out)
    kept = [
        row
        for row in read_rows(out)
        if row["benchmark"] != name or (row["encoder"] != encoder and not drop)
    ]
    rows = sorted(kept + rows, key=lambda row: (row["benchmark"], rank(row["encoder"])))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {"value": f"{row['value']:.6f}"} for row in rows)
    encoders = {} if drop else saved["encoders"].get(name, {})
    saved["encoders"][name] = encoders | {encoder: manifest}
    saved["benchmarks"][name] = facts
    write_text(Path(out) / "probe.csv", text.getvalue())
    write_text(Path(out) / "probe.json", json.dumps(saved, indent=1) + "\n")


def rank(encoder: str) -> tuple[int, str]:
    """Return a sorting key: baselines first, then by name."""
    return (FIRST.index(encoder) if encoder in FIRST else len(FIRST), encoder)


def record(out: Path, argv: list[str], seconds: float) -> None:
    """Add a finished command to `commands.jsonl`, with versions and the commit it ran at."""
    git = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,  # a copy without .git runs as well
    )
    entry = {
        "command": shlex.join(["python", "evaluate/main.py", *argv]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "commit": git.stdout.strip() or None,
        "versions": {package: version(package) for package in PACKAGES},
    }
    with open(Path(out) / "commands.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def read_commands(out: Path) -> list[dict]:
    """Return the commands run into this folder, the last of those that are alike, oldest first."""
    path = Path(out) / "commands.jsonl"
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
            entries.pop(entry["command"], None)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds a line that is no command: {line[:60]!r}") from error
        entries[entry["command"]] = entry
    return list(entries.values())
