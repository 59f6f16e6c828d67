"""Say how a campaign stands: what of each job is done, running, waiting, failed and missing.

    python slurm/status.py OUT

From the files on disk, squeue, the logs and, where the cluster keeps accounts, sacct. Of each
failed task the first error; and the --array to submit again, which slurm/submit.sh does. Exit code
1: some tasks are neither done nor queued.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from shards.command_line import program_parser
from shards.errors import report
from slurm.campaign import FINAL, Campaign, open_campaign, outcomes, survey
from slurm.jobs import (
    ARRAYS,
    Task,
    array,
    ask_accounting,
    ask_queue,
    first_error,
    log_path,
    read_queue,
)

SHOWN = 20  # failed tasks of a job

log = logging.getLogger(__name__)


@dataclass
class JobState:
    """The state of a job of the chain; each unit is in one of these.

    Attributes:
        done: units whose files are there.
        running: by a job that runs.
        waiting: in the queue; why, as squeue says it.
        failed: tried, and not in the queue; why, as slide, log or sacct says it.
        missing: never tried.
    """

    done: set[int]
    running: set[int] = field(default_factory=set)
    waiting: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)


def main() -> int:
    """Run the command line and return its exit code."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = program_parser("slurm/status.py", __doc__)
    parser.add_argument("out", type=Path, help="folder of the campaign")
    out = parser.parse_args().out
    try:
        campaign = open_campaign(out)
        queue = ask_queue()
        if queue is None:
            log.warning("no squeue here: what is queued or running counts as failed or missing")
        accounts = ask_accounting(campaign.id, campaign.chain)
        found = outcomes(campaign)
        states = job_states(campaign, found, read_queue(queue or "", campaign.id), accounts)
        print(describe(campaign, found, states))
    except (OSError, ValueError) as error:
        return report(error)
    return 1 if any(s.failed or s.missing for s in states.values()) else 0


def job_states(
    campaign: Campaign,
    found: dict[str, dict],
    tasks: list[Task],
    accounts: dict[tuple[str, int], str],
) -> dict[str, JobState]:
    """Sort the units of every job by their state.

    Args:
        campaign: to look at.
        found: of `outcomes`.
        tasks: of `read_queue`.
        accounts: of `ask_accounting`.
    """
    states = {}
    for job, units in survey(campaign, found).items():
        state = states[job] = JobState(units["done"])
        live = {t.unit: t for t in tasks if t.stage == job}
        for unit in sorted(units["missing"]):
            error = first_error(log_path(campaign.out / "logs", job, unit))
            if unit in live and live[unit].waits:
                state.waiting[unit] = live[unit].reason
            elif unit in live:
                state.running.add(unit)
            elif job == "extract" and (bad := _bad_slide(campaign, found, unit)):
                state.failed[unit] = bad
            elif error or accounts.get((job, unit)):
                account = accounts.get((job, unit), "")
                state.failed[unit] = ": ".join(filter(None, (account, error)))
            else:
                state.missing.add(unit)
    return states


def _bad_slide(campaign: Campaign, found: dict[str, dict], part: int) -> str | None:
    """Return the first failed slide of a part, and how many there are."""
    slides = campaign.slides[part :: campaign.parts]
    bad = [s for s in slides if found[s]["outcome"] == "failed" or found[s]["reason"]]
    bad = [s for s in bad if found[s]["outcome"] not in FINAL]
    if not bad:
        return None
    more = f" (and {len(bad) - 1} more of {len(slides)} slides)" if len(bad) > 1 else ""
    return f"{bad[0]}: {found[bad[0]]['reason']}{more}"


def describe(campaign: Campaign, found: dict[str, dict], states: dict[str, JobState]) -> str:
    """Return the table, the failed tasks, and what to submit again."""
    names = ("done", "running", "waiting", "failed", "missing")
    lines = [
        f"{campaign.out}, campaign {campaign.id}",
        f"{'':8}" + "".join(f"{n:>9}" for n in names),
    ]
    for job, state in states.items():
        counts = "".join(f"{len(getattr(state, name)):9,}" for name in names)
        lines.append(f"{job:8}{counts}   {_progress(campaign, found, job)}".rstrip())
    again = []
    for job, state in states.items():
        log = f"{campaign.out}/logs/{job}-N.log"
        if state.failed:
            lines.append(f"{job}, failed (logs: {log})")
            shown = list(state.failed.items())[:SHOWN]
            lines += [f"  {unit}: {why}" for unit, why in shown]
            if len(state.failed) > SHOWN:
                lines.append(f"  and {len(state.failed) - SHOWN:,} more")
        if state.waiting:
            reasons = Counter(state.waiting.values())
            lines.append(f"{job} waits: " + ", ".join(f"{n:,} {r}" for r, n in reasons.items()))
        if left := {*state.failed, *state.missing}:
            again.append(f"  {job} --array={array(left)}" if job in ARRAYS else f"  {job}")
    if again:
        lines += ["to submit again, with slurm/submit.sh and the campaign's settings:", *again]
    return "\n".join(lines)


def _progress(campaign: Campaign, found: dict[str, dict], job: str) -> str:
    """Say how far a job is within its units."""
    if job == "extract":
        counts = Counter(record["outcome"] for record in found.values())
        return f"slides: {', '.join(f'{n:,} {outcome}' for outcome, n in counts.items())}"
    if job == "train":
        steps = sorted(campaign.settings.run.glob("step-*.pt"))
        step = int(steps[-1].stem.removeprefix("step-")) if steps else 0
        return f"step {step:,} of {campaign.settings.train.steps:,}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
