"""The commands of shards/main.py."""

import pytest

from shards.main import COMMANDS, _parser, main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mxi"], "did you mean mix? There are mix, select, verify, info"),
        (["x"], "no command 'x'."),
    ],
)
def test_a_mistyped_command_is_named(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_every_command_and_flag_has_help(command):
    parser = _parser()
    assert set(COMMANDS) <= set(parser.format_help().split())
    if command:
        parser = parser._subparsers._group_actions[0].choices[command[0]]
    assert parser.prog.startswith("shards/main.py")
    assert all(action.help for action in parser._actions if action.option_strings)
