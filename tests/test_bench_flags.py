"""A benchmark that needs real fields says so where there are none."""

import pytest

from bench.flags import bench_parser


@pytest.mark.parametrize("flag", ["--data", "--benchmark"])
def test_a_folder_that_is_not_there_is_named_with_its_cure(flag, tmp_path, capsys):
    parser = bench_parser("x", "It measures.", "less", flag)
    name = flag.strip("-")
    assert getattr(parser.parse_args([flag, str(tmp_path)]), name) == tmp_path
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([flag, str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert f"argument {flag}: no folder {tmp_path / 'none'}; LEMON_TEST_DATA names" in error
