"""A benchmark that needs real fields says so where there are none."""

import pytest

from bench.fields import add_fields, add_nuclei
from shards.command_line import program_parser


@pytest.mark.parametrize(("add", "flag"), [(add_fields, "--data"), (add_nuclei, "--benchmark")])
def test_a_folder_that_is_not_there_is_named_with_its_cure(add, flag, tmp_path, capsys):
    parser = program_parser("bench/x.py", "It measures.")
    add(parser)
    name = flag.strip("-")
    assert getattr(parser.parse_args([flag, str(tmp_path)]), name) == tmp_path
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([flag, str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert f"argument {flag}: no folder {tmp_path / 'none'}; LEMON_TEST_DATA names" in error
