"""The flags with which slides that were lost are extracted like the others."""

import argparse
import io
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stderr

# Flags of `extract` that say which slides, where to, or how on this machine.
NOT_REPEATED = {
    "slides", "slides_root", "sample_sheet", "frozen", "verify_md5", "mpp", "out", "part", "parts",
    "overwrite", "workers",
}  # fmt: skip


def flags_before(commands: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Return the flags that most slides were extracted with, but NOT_REPEATED.

    Without them the same slides would be segmented otherwise, or not at all.

    Args:
        commands: of the slides' records; '' where there is none.
        parser: of `extract`.
    """
    found = Counter[tuple[str, ...]]()
    for command, slides in Counter(commands).items():  # the tasks of an array differ in --part
        try:
            found[_flags(command, parser)] += slides
        except (ValueError, SystemExit):  # an earlier version's, which did not quote, or had others
            continue
    return list(found.most_common(1)[0][0]) if found else []


def _flags(command: str, parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """Return the flags of a command that are repeated; errors as of shlex and argparse."""
    words = shlex.split(command)[1:]
    if words[:1] == ["extract"]:
        words = words[1:]
    with redirect_stderr(io.StringIO()):
        options = vars(parser.parse_args(words))
    kept = []
    for action in parser._actions:
        value = options.get(action.dest)
        given = value is not None and value != action.default
        if action.option_strings and action.dest not in NOT_REPEATED and given:
            kept += [action.option_strings[-1], *([] if action.nargs == 0 else [str(value)])]
    return tuple(kept)
