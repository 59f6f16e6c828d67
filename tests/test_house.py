"""The rules of the house: who imports whom, and what files may be called."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("extract", "shards", "train", "evaluate", "demo")
FOLDERS = (*STAGES, "slurm")
MAY_IMPORT = {
    "shards": set(),
    "extract": {"shards"},
    "train": {"shards"},
    "evaluate": {"shards", "train"},
    "demo": {"shards"},
    "slurm": {"extract", "shards", "train"},
}
# What a campaign has done stands in the stages' own files; a second reader of them would drift from
# the first. So slurm reads them by the stages' code: the ledger, the list, the settings of a run.
READERS = ("extract.inputs", "extract.ledger", "extract.slides", "train.config", "train.flags")
FILES = [p for stage in FOLDERS for p in sorted((ROOT / stage).rglob("*.py"))]
PREAMBLE = """\
import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()
"""


def imported(path: Path) -> set[str]:
    """Return the modules of the house that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {n for n in names if n.split(".")[0] in FOLDERS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    stage = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        other = name.split(".")[0]
        assert other == stage or other in MAY_IMPORT[stage], f"{path} imports {name}"
        assert name.split(".")[1:2] != ["main"], f"{path} imports {name}"
        if stage == "slurm" and other in ("extract", "train"):
            assert name.startswith(READERS), f"{path} imports {name}"
        if stage == "evaluate" and other == "train":
            shared = {"encoder", "measures", "network", "shipped", "stain_transform"}
            assert {*name.split(".")[1:2]} <= shared, f"{path} imports {name}"


def test_no_file_bears_a_standard_librarys_name():
    shadowed = {p.stem for p in FILES} & set(sys.stdlib_module_names)
    assert not shadowed


@pytest.mark.parametrize("stage", STAGES)
def test_every_main_starts_from_any_directory(stage, tmp_path):
    main = ROOT / stage / "main.py"
    assert PREAMBLE in main.read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", main, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("torch", *(["scipy"] if stage != "demo" else [])):
        assert not re.search(rf"\| +{name}\n", done.stderr), f"{main} --help imports {name}"


def test_init_files_hold_one_docstring():
    for path in [p for p in FILES if p.name == "__init__.py"]:
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, path
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_file_is_past_400_lines():
    for path in [*FILES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("bench/*.py")]:
        assert len(path.read_text().splitlines()) <= 400, path
