"""The benchmark a folder holds, recognised by what lies in it."""

from pathlib import Path

from evaluate.benchmark import Benchmark
from evaluate.benchmarks import ami_br, consep, folder, prepared


def find_benchmark(path: str | Path, view_px: int = 40) -> Benchmark:
    """Load the benchmark in a folder.

    Args:
        path: one of the layouts in BENCHMARKS.
        view_px: side of a window, px at 0.25 µm/px.

    Raises:
        FileNotFoundError: no such path.
        ValueError: no folder, an empty one, or no benchmark that is known.
    """
    path = Path(path)
    known = "\n".join(f"  {name}: {module.LAYOUT}" for name, module in BENCHMARKS.items())
    if not path.exists():
        raise FileNotFoundError(f"no benchmark at {path}: no such folder")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a benchmark is a folder, one of\n{known}")
    held = sorted(entry.name for entry in path.iterdir())
    if not held:
        raise ValueError(f"{path} is empty; a benchmark is a folder, one of\n{known}")
    for module in BENCHMARKS.values():
        if module.matches(path):
            return module.load(path, view_px)
    raise ValueError(
        f"{path} is no benchmark that is known: it holds {', '.join(held[:5])}"
        f"{' …' if len(held) > 5 else ''}; looked for\n{known}"
    )


BENCHMARKS = {"consep": consep, "ami-br": ami_br, "folder": folder, "prepared": prepared}
