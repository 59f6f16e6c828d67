"""What a stage needs and this Python has not, said in a sentence instead of a traceback."""

import sys
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = {"shards": "extract", "demo": "extract", "slurm": "all", "bench": "test"}


def say_what_is_missing() -> None:
    """Let a program end in a sentence where a package is not installed."""
    sys.excepthook = _report_missing


def missing(name: str, program: str, prefix: str) -> str:
    """Return the sentence for a package that is not installed.

    Args:
        name: of the module that was looked for.
        program: that was started, such as `extract/main.py`.
        prefix: of the Python that runs it.
    """
    said = f"error: {name} is not installed for this Python ({prefix}): "
    venv = ROOT / ".venv"
    if (venv / "bin/activate").is_file() and Path(prefix).resolve() != venv.resolve():
        return f"{said}this clone has one of its own, so run first  . {venv}/bin/activate"
    stage = Path(program).resolve().parent.name
    extra = EXTRAS.get(stage, stage) if (ROOT / stage).is_dir() else "all"
    return f"{said}pip install -e '{ROOT}[{extra}]', or [all] for every stage"


def _report_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name and not (ROOT / name).is_dir():
        print(missing(name, sys.argv[0], sys.prefix), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
