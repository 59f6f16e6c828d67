"""What is installed for a stage is what its code imports; requirements.lock holds all of it."""

import ast
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from shards.installed import missing
from tests.docs.pages import setup
from tests.test_house import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("shards", "extract", "train", "evaluate")
OPTIONAL = (
    "imagenet",
    "s3",
    "gs",
    "xenium",
    "dicom",
    "hub",
    "spatialdata",
)  # asked for where they are needed
LENT = "shards/weights.py"  # only extract, train and evaluate call it, which bring torch
DISTRIBUTIONS = packages_distributions()


def declared(*extras: str) -> list[Requirement]:
    """Return the base's requirements and those of some extras."""
    parser, found = setup(), []
    texts = [parser["options"]["install_requires"]]
    texts += [parser["options.extras_require"][extra] for extra in extras]
    for line in "\n".join(texts).strip().splitlines():
        if line.strip() and not line.strip().startswith("#"):
            requirement = Requirement(line.strip())
            if requirement.name == "lemon-nuclei":
                found += declared(*requirement.extras)
            else:
                found.append(requirement)
    return found


def closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of all distributions that requirements bring, as far as installed here."""
    seen, names = set(), set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = distribution(requirement.name).requires or []
        except PackageNotFoundError:  # s3fs and the like
            continue
        names.add(key[0])
        for need in map(Requirement, needs):
            extras = ("", *requirement.extras)
            if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return names


def distributions_of(module: str) -> set[str]:
    return {canonicalize_name(name) for name in DISTRIBUTIONS.get(module, [])}


def imports(stage: str) -> dict[str, str]:
    """Return the foreign modules that a stage's files import, anywhere in them, and one file."""
    found = {}
    for path in sorted((ROOT / stage).rglob("*.py")):
        if str(path.relative_to(ROOT)) == LENT:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in FOLDERS:
                    found[name] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_what_its_extra_brings(stage):
    own = () if stage == "shards" else (stage,)
    requirements = declared(*own, *OPTIONAL)
    allowed = closure(requirements)
    named = {requirement.name for requirement in requirements}  # of extras that are not installed
    found = imports(stage)
    assert "numpy" in found
    for module, path in found.items():
        assert module in named or distributions_of(module) & allowed, f"{path} imports {module}"


def test_an_extraction_node_need_not_have_what_others_use():
    others = {"timm", "anndata", "h5py", "opentsne", "matplotlib", "tensorboard", "torchvision"}
    assert others <= closure(declared("all"))
    assert not others & closure(declared("extract"))
    assert "torch" not in closure(declared())
    assert not {"anndata", "opentsne", "scikit-image"} & closure(declared("train"))


BLOCKED = """
import sys
from importlib import import_module

blocked = set(sys.argv[1].split(","))

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
for name in sys.argv[2:]:
    import_module(name)
"""


@pytest.mark.parametrize(
    ("stage", "modules"),
    [
        ("shards", ["shards.main", "shards.mix.mix", "shards.verify", "shards.contents"]),
        ("extract", ["extract.main", "extract.job", "extract.contact_sheet"]),
        ("train", ["train.main", "train.view_sheet"]),
        ("evaluate", ["evaluate.main", "evaluate.probes.probe", "evaluate.report.report"]),
    ],
)
def test_a_stage_opens_with_its_packages_alone(stage, modules):
    allowed = closure(declared(*(() if stage == "shards" else (stage,))))
    blocked = {
        module
        for module in DISTRIBUTIONS
        if not distributions_of(module) & allowed
        and module not in FOLDERS
        and module.isidentifier()
    }
    assert "pytest" in blocked
    assert ("openTSNE" in blocked) == (stage != "evaluate")
    assert ("timm" in blocked) == (stage in ("shards", "extract"))
    assert ("torch" in blocked) == (stage == "shards")
    command = [sys.executable, "-c", BLOCKED, ",".join(sorted(blocked)), *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stage", ["extract", "shards", "train", "evaluate", "demo"])
def test_a_package_that_is_missing_is_a_sentence(stage, tmp_path):
    """A Python that has nothing, as where the environment was not activated."""
    words = {"shards": ["mix", "a"], "train": ["--data", "a"]}.get(stage, [])
    command = [sys.executable, "-I", "-S", ROOT / stage / "main.py", *words, "--out", "b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert re.fullmatch(r"error: \w+ is not installed for this Python .+\n", done.stderr)


@pytest.mark.parametrize(
    ("program", "extra"),
    [
        ("extract/main.py", "extract"),
        ("shards/main.py", "extract"),
        ("train/main.py", "train"),
        ("evaluate/main.py", "evaluate"),
        ("slurm/status.py", "all"),
        ("bench/mix.py", "test"),
    ],
)
def test_the_cure_names_the_extra(program, extra, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.installed.ROOT", tmp_path)
    (tmp_path / program).parent.mkdir()
    assert f"[{extra}]'" in missing("torch", str(tmp_path / program), "/usr")
    assert extra in setup()["options.extras_require"]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    said = missing("torch", str(tmp_path / program), "/usr")
    assert said.endswith(f"run first  . {tmp_path}/.venv/bin/activate")
    assert "pip install" in missing("torch", str(tmp_path / program), str(tmp_path / ".venv"))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pins}


def test_the_lock_holds_all_that_is_installed_for_the_tests():
    pins = locked()
    wanted = declared("all", "imagenet", "dicom", "xenium", "test")
    for requirement in wanted:
        number = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(number), f"{requirement}, locked {number}"
    assert closure(wanted) - {"setuptools"} <= set(pins)  # pip freeze leaves its own tools out


def test_the_locked_versions_suit_each_other():
    """A venv that was added to by hand may hold what pip would refuse to install together."""
    pins = locked()
    for name in sorted(closure(declared("all", "imagenet", "dicom", "xenium", "test"))):
        for need in map(Requirement, distribution(name).requires or []):
            pin = pins.get(canonicalize_name(need.name))
            if pin and (not need.marker or need.marker.evaluate({"extra": ""})):
                said = f"{name} needs {need}, but {pin} is locked"
                assert need.specifier.contains(pin, prereleases=True), said


def test_the_lock_holds_versions_and_nothing_of_a_machine():
    for name, number in locked().items():
        assert re.fullmatch(r"[\w.-]+", name)
        assert re.fullmatch(r"[\w.!]+", number), f"{name}: a local version, {number}"
