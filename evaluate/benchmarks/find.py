"""The benchmarks a folder holds, recognised by what lies in it."""

from pathlib import Path

from evaluate.benchmark import Benchmark
from evaluate.benchmarks import (
    ami_br,
    consep,
    folder,
    hest,
    lizard,
    midog25,
    monusac,
    nucls,
    ocelot,
    pannuke,
    prepared,
    puma,
    xenium,
)
from shards.folder import visible


def find_benchmarks(path: str | Path, view_px: int | None = None) -> list[Benchmark]:
    """Load the benchmark in a folder: one, or one per task.

    Args:
        path: one of the layouts in BENCHMARKS, as the publishers give them or prepared;
            `PATH:TASK` for one of several tasks, as in benchmarks/nucls:super.
        view_px: side of a window, px at 0.25 µm/px; None: 40, or as it was prepared.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no folder, an empty one, no benchmark that is known, or no such task.
    """
    whole, _, task = str(path).rpartition(":")
    if whole and not Path(path).exists() and Path(whole).exists():
        found = find_benchmarks(whole, view_px)
        chosen = [benchmark for benchmark in found if benchmark.name.endswith(f"-{task}")]
        if not chosen:
            raise ValueError(f"{whole} has no task {task!r}; {_named(found)}")
        return chosen
    module = BENCHMARKS[find_name(path)]
    return module.load(Path(path), **({"view_px": view_px} if view_px else {}))


def find_benchmark(path: str | Path, view_px: int | None = None) -> Benchmark:
    """Load the one benchmark in a folder; arguments and errors as of `find_benchmarks`.

    Raises:
        ValueError: there are several tasks.
    """
    found = find_benchmarks(path, view_px)
    if len(found) > 1:
        task = found[0].name.rpartition("-")[2]
        raise ValueError(
            f"{path} has {len(found)} tasks, {_named(found)}; give one, as in {path}:{task}"
        )
    return found[0]


def find_name(path: str | Path) -> str:
    """Return the name in BENCHMARKS of what lies in a folder; errors as of `find_benchmarks`."""
    path = Path(path)
    known = "\n".join(f"  {name}: {module.LAYOUT}" for name, module in BENCHMARKS.items())
    if not path.exists():
        raise FileNotFoundError(f"no benchmark at {path}: no such folder")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a benchmark is a folder, one of\n{known}")
    held = [entry.name for entry in visible(path.iterdir())]
    if not held:
        raise ValueError(f"{path} is empty; a benchmark is a folder, one of\n{known}")
    for name, module in BENCHMARKS.items():
        if module.matches(path):
            return name
    raise ValueError(
        f"{path} is no benchmark that is known: it holds {', '.join(held[:5])}"
        f"{' …' if len(held) > 5 else ''}; looked for\n{known}"
    )


def _named(found: list[Benchmark]) -> str:
    return "there are " + ", ".join(benchmark.name for benchmark in found)


BENCHMARKS = {
    "consep": consep,
    "ami-br": ami_br,
    "nucls": nucls,
    "pannuke": pannuke,
    "midog25": midog25,
    **hest.BENCHMARKS,
    "xenium": xenium,
    "puma": puma,
    "folder": folder,  # before those that go by the kinds of files alone
    "lizard": lizard,
    "monusac": monusac,
    "ocelot": ocelot,
    "prepared": prepared,
}
