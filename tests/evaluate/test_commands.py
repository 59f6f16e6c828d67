"""The commands of evaluate/main.py: each in the table, the encoder where one will do."""

from pathlib import Path

import pytest

from evaluate import main
from evaluate.results import read_commands
from train import shipped
from train.shipped import DEFAULT

COMMANDS = Path(main.__file__).parent / "commands"


def test_every_command_is_in_the_table():
    shared = {"__init__", "flags", "inputs"}
    assert {path.stem for path in COMMANDS.glob("*.py")} - shared == set(main.COMMANDS)
    assert set(main.UNRECORDED) < set(main.COMMANDS)


NEEDS = {
    "slide": ["my.svs", "--out", "my.h5ad"],
    "fit": ["--benchmark", "mine", "--out", "out"],
    "apply": ["cells", "--classifier", "out", "--out", "results"],
    "embed": ["--shards", "shards", "--out", "results"],
    "map": ["--shards", "shards", "--out", "results"],
}


@pytest.mark.parametrize("name", NEEDS)
def test_where_one_encoder_will_do_it_is_the_clones_and_that_is_said(name, monkeypatch, caplog):
    used = []
    monkeypatch.setattr(
        f"evaluate.commands.{name}.run", lambda options: used.append(options.encoder)
    )
    monkeypatch.setattr("evaluate.results.record", lambda *_: None)
    caplog.set_level("INFO")
    assert main.main([name, *NEEDS[name]]) == 0
    assert used == [[DEFAULT] if name == "embed" else DEFAULT]
    assert f"encoder: {DEFAULT}, which comes with the clone" in caplog.text
    caplog.clear()
    assert main.main([name, *NEEDS[name], "--encoder", "pixels"]) == 0
    assert used[1] in ("pixels", ["pixels"]) and "encoder:" not in caplog.text


@pytest.mark.parametrize("name", ["probe", "robustness", "batch", "molecules"])
def test_where_encoders_are_compared_they_are_named(name, capsys):
    with pytest.raises(SystemExit):
        main.main([name, "--benchmark", "mine", "--out", "results"])
    assert "required: --encoder" in capsys.readouterr().err


def test_the_default_stands_in_the_quick_start_too():
    script = (Path(main.__file__).parents[1] / "demo/run.sh").read_text()
    assert f"\nshipped={DEFAULT} " in script


def test_a_clone_without_the_default_says_which_encoders_there_are(
    own, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert main.main(["map", "--benchmark", str(own), "--out", str(tmp_path / "out")]) == 2
    assert f"no encoder '{DEFAULT}'" in capsys.readouterr().err


def test_what_is_recorded_is_declared(own, tmp_path):
    assert main.main(["sheet", "--benchmark", str(own), "--out", str(tmp_path)]) == 0
    assert main.main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 0
    (entry,) = read_commands(tmp_path)
    assert entry["command"].startswith("python evaluate/main.py sheet ")
