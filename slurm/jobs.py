"""What SLURM says of a campaign's jobs, and what their logs say when SLURM has forgotten them."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ARRAYS = ("extract", "sort", "write", "embed")
FORMAT = "%j|%F|%K|%T|%r"  # of squeue: name, array's id, place in the array, state, reason
WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")
HELD = "launch failed requeued held"  # for good, unless released; e.g. after slurmctld has died
BEGIN, END = "== job ", "== end "  # of an attempt, in its log (slurm/job.sh)
ERRORS = (  # what a stage or a recipe says comes before what Python, srun and bash say of it
    re.compile(r"^(== )?error: "),
    re.compile(r"\b(error|\w+Error|\w+Exception|Killed)\b|DUE TO|: (command )?not found"),
)


@dataclass(frozen=True)
class Task:
    """A task that is queued or running."""

    stage: str
    unit: int  # its place in the array; 0 outside arrays
    job: str  # id of the array or job
    state: str
    reason: str

    @property
    def name(self) -> str:
        """What scontrol calls it."""
        return f"{self.job}_{self.unit}" if self.stage in ARRAYS else self.job

    @property
    def waits(self) -> bool:
        """Whether it has not begun."""
        return self.state in WAITING


def read_queue(text: str, campaign: str) -> list[Task]:
    """Return a campaign's tasks out of `squeue -h -r -o FORMAT`.

    Jobs are recognised by name, `lemon-<campaign>-<stage>`, which is there as soon as the job is.

    Args:
        text: what squeue printed; array tasks one a line (-r).
        campaign: its id.
    """
    tasks = []
    for line in text.splitlines():
        if line.count("|") < 4:
            continue  # what squeue or a site says besides, such as `CLUSTER: name`
        name, job, unit, state, reason = line.strip().split("|", 4)
        start = f"lemon-{campaign}-"
        if name.startswith(start):
            number = int(unit) if unit.isdigit() else 0
            tasks.append(Task(name.removeprefix(start), number, job, state, reason))
    return tasks


def ask_queue() -> str | None:
    """Return what squeue prints, or None where there is no SLURM."""
    if not shutil.which("squeue"):
        return None
    command = ["squeue", "-h", "-r", "--me", "-o", FORMAT]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"squeue does not answer: {done.stderr.strip()}")
    return done.stdout


def ask_accounting(campaign: str, stages: Iterable[str]) -> dict[tuple[str, int], str]:
    """Return the last state of each ended task by (stage, unit); empty where sacct has none.

    Many clusters keep no accounts, or not for long: what is known without stands in the ledgers
    and the logs.
    """
    if not shutil.which("sacct"):
        return {}
    names = ",".join(f"lemon-{campaign}-{stage}" for stage in stages)
    command = ["sacct", "-n", "-X", "-P", "-S", "now-90days", f"--name={names}"]
    done = subprocess.run([*command, "-o", "JobName,JobID,State"], capture_output=True, text=True)
    return read_accounting(done.stdout) if done.returncode == 0 else {}


def read_accounting(text: str) -> dict[tuple[str, int], str]:
    """Read `sacct -n -X -P -o JobName,JobID,State`, oldest first."""
    states = {}
    for line in text.splitlines():
        name, job, state = line.split("|")
        unit = job.partition("_")[2]
        number = int(unit) if unit.isdigit() else 0
        states[name.split("-", 2)[2], number] = state.split()[0]
    return states


def log_path(logs: Path, stage: str, unit: int) -> Path:
    """Return the log that all attempts of a unit share."""
    return logs / f"{stage}-{unit}.log"


def first_error(path: Path) -> str | None:
    """Return the line of the last attempt that tells what went wrong; None: none has begun.

    An attempt whose log has no end was killed from outside, and says so where no line does.
    """
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    attempt = text.rpartition(BEGIN)[2].splitlines()[1:]
    for kind in ERRORS:
        if said := next((line.strip() for line in attempt if kind.search(line)), None):
            return said
    ends = [line for line in attempt if line.startswith(END)]
    if not ends:
        return "it was killed: its log has no end"
    code = ends[-1].removeprefix(END).split(",")[0]
    return None if code == "0" else f"it ended with exit code {code}"


def array(units: Iterable[int]) -> str:
    """Return numbers as sbatch --array takes them: 0-3,7."""
    spans: list[list[int]] = []
    for unit in sorted(units):
        if spans and unit == spans[-1][1] + 1:
            spans[-1][1] = unit
        else:
            spans.append([unit, unit])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
