"""How far a command is: a bar on a terminal, in a log a line now and then; and what comes next."""

import io
import shlex
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS = 30.0  # between two lines in a log
NEXT = "next: "  # begins the lines that `say_next` prints
SHORT = 10.0  # seconds below which a log says nothing


class Bar(tqdm):
    """tqdm's bar, which in a log is a line of the same figures now and then."""

    monitor_interval = 0  # no thread beside: processes are forked
    inner_in_logs = False  # of a process whose inner bars say more than the one around them

    def __init__(
        self,
        iterable: Iterable | None = None,
        what: str = "",
        unit: str = "",
        total: int | None = None,
        done: int = 0,
        shown: bool = True,
        inner: bool = False,
    ):
        """Begin.

        Args:
            iterable: what is gone through; None: `update` is called.
            what: is done, such as `embed pixels`.
            unit: of the work, in the plural.
            total: how much there is, where the iterable does not say.
            done: of it before.
            shown: where not, nothing is: of ranks one speaks.
            inner: within another bar, so that it goes when it ends, and a log does without, unless
                inner_in_logs.
        """
        self.terminal = sys.stderr.isatty()
        self.written_at = self.began = time.monotonic()
        self.written: float | None = None  # how much was done when the last line was written
        options: dict[str, Any] = {"desc": what, "unit": f" {unit}", "total": total}
        if not self.terminal:
            options["file"] = io.StringIO()  # its own writing goes nowhere
        super().__init__(
            iterable,
            initial=done,
            leave=not inner,
            miniters=1,
            mininterval=0.1 if self.terminal else 1.0,
            disable=not shown or (inner and not self.terminal and not self.inner_in_logs),
            dynamic_ncols=True,
            **options,
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or write a line where it is time for one."""
        if self.terminal:
            return bool(super().display(msg, pos))
        now = time.monotonic()
        if now - self.written_at >= SECONDS:
            self.written_at = now
            self._write(now - self.began)
        return True

    def close(self) -> None:
        """End; a log gets the whole of what took a while."""
        seconds = time.monotonic() - self.began
        if not self.disable and not self.terminal and seconds >= SHORT and self.written != self.n:
            self._write(seconds)
        super().close()

    def _write(self, seconds: float) -> None:
        self.written = self.n
        done, unit = self.n - self.initial, self.unit.strip()
        parts = [f"{self.n:,} of {self.total:,} {unit}" if self.total else f"{self.n:,} {unit}"]
        if done:
            rate = done / seconds
            parts.append(f"{rate:,.3g} {unit}/s" if rate >= 1 else f"{1 / rate:,.3g} s each")
        if done and self.total and self.n < self.total:
            left = self.format_interval((self.total - self.n) * seconds / done)
            parts.append(f"{left} left")
        else:
            parts.append(f"after {self.format_interval(seconds)}")
        parts += [self.postfix] if self.postfix else []
        print(f"{self.desc.removesuffix(': ')}: {', '.join(parts)}", file=sys.stderr, flush=True)


def say_next(*commands: list[object]) -> None:
    """Print the commands that a user would give next, as the last lines of one."""
    for words in commands:
        print(f"{NEXT}{shlex.join(map(str, words))}")
