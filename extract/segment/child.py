"""Another program as a child that cannot hang, nor leave anything running behind."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

MARK = "LEMON_CHILD"  # environment variable by which a child's descendants are known
OUTPUT = "output.txt"  # in its folder: what it prints
GRACE_S = 10.0  # for which a child that has reported its failure may still run
BUSY = 0.01  # share of a CPU below which a child counts as idle
POLL_S = (0.05, 1.0)  # first and longest pause between two looks

_TICKS = os.sysconf("SC_CLK_TCK")
_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def run_child(
    command: list[str], folder: Path, limit_s: float, stall_s: float, has_failed: Callable[[], bool]
) -> str:
    """Run a program until it ends, or has to be killed, and end all that it has started.

    It is killed with all its descendants after `limit_s`; when neither its files grow nor any
    process of it uses CPU for `stall_s`; or when it has failed by its own account and does not end.
    One that is merely slow uses CPU and lives. It dies with the process that runs it, too.

    Args:
        command: with arguments.
        folder: its own, to which it writes; what it prints goes to `output.txt` there.
        limit_s: wall clock, s.
        stall_s: s.
        has_failed: tells whether it has reported a failure.

    Returns:
        Why it was killed or how it failed, in words; nothing if it ended with exit code 0.

    Raises:
        FileNotFoundError: there is no such program.
    """
    start = time.monotonic()
    with open(folder / OUTPUT, "wb") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                # Unbuffered, so that what a killed Python program said last is in its log.
                env=os.environ | {MARK: str(folder), "PYTHONUNBUFFERED": "1"},
            )
        except (FileNotFoundError, PermissionError) as error:
            raise FileNotFoundError(
                f"no program {command[0]!r} to run ({error.strerror}); --hoverfast-command names it"
            ) from error
    try:
        reason = _watch(process, folder, start + limit_s, stall_s, has_failed)
    finally:
        end_all(folder, process.pid)
        process.wait()
    if not reason and process.returncode < 0:
        return f"killed by signal {-process.returncode} (9 is often lack of memory)"
    if not reason and process.returncode:
        return f"exit code {process.returncode}"
    return reason


def end_all(folder: Path, session: int = -1) -> None:
    """Kill every process that a child with this folder has started, and see them gone."""
    for _ in range(200):
        alive = _family(folder, session)
        if not alive:
            return
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _watch(
    process: subprocess.Popen,
    folder: Path,
    end: float,
    stall_s: float,
    has_failed: Callable[[], bool],
) -> str:
    """Wait for a child's end; return why it must be killed, or nothing."""
    ticks: dict[int, int] = {}
    pause, failed_at = POLL_S[0], None
    mark = (time.monotonic(), 0, -1)  # when it was last seen to do anything; ticks and bytes then
    while True:
        try:
            process.wait(pause)
            return ""
        except subprocess.TimeoutExpired:
            pause = min(pause * 1.3, POLL_S[1], stall_s / 4)
        now = time.monotonic()
        if now > end:
            return "over its time limit"
        for pid, used in _family(folder, process.pid).items():
            ticks[pid] = max(ticks.get(pid, 0), used)  # what the dead have used still counts
        total, size = sum(ticks.values()), _bytes(folder)
        if size != mark[2] or total - mark[1] > BUSY * stall_s * _TICKS:
            mark = (now, total, size)
        elif now - mark[0] > stall_s:
            return f"neither CPU time nor output for {stall_s:g} s"
        if has_failed():
            failed_at = failed_at or now
            if now - failed_at > min(GRACE_S, stall_s):
                return "it reported a failure and did not end"


def _family(folder: Path, session: int) -> dict[int, int]:
    """Return the living processes of a child's session or with its mark, and their CPU ticks."""
    marked = f"{MARK}={folder}".encode()
    family = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            state, of_session = stat[0], int(stat[3])
            if state in (b"Z", b"X"):
                continue
            if of_session != session:
                environment = Path(f"/proc/{name}/environ").read_bytes()
                if marked not in environment.split(b"\0"):
                    continue
            family[int(name)] = int(stat[11]) + int(stat[12])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or is another user's
    return family


def _bytes(folder: Path) -> int:
    """Return how many bytes the files in a folder hold."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it is killed."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
