"""Check a campaign's settings, look at what is done and queued, and say what to submit.

    bash slurm/submit.sh my-settings.sh    # runs this, with the settings in the environment

Prints a line for each job of the chain that is not done: its name, the --array to submit (`-`: no
array; `none`: nothing), the ids of its live jobs; before them `cancel ID`, for waiting jobs that
something new has to come before, and `release ID`, for tasks that SLURM failed to start and holds.
Exit code 2: the settings or the files cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import logging
import shlex
import tempfile
from dataclasses import asdict
from pathlib import Path

from shards.command_line import program_parser
from shards.errors import report
from shards.write import atomic
from slurm.campaign import Campaign, begin, check_flags, check_probe, survey
from slurm.jobs import ARRAYS, HELD, Task, array, read_queue
from slurm.settings import WORDS, Settings, check_settings, read_settings

log = logging.getLogger(__name__)


def main() -> int:
    """Run the command line; return 0, or 2 for settings that cannot be used."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = program_parser("slurm/plan.py", __doc__)
    parser.add_argument("--queue", type=Path, required=True, help="what squeue printed")
    parser.add_argument("--partitions", type=Path, help="what sinfo printed: one a line")
    parser.add_argument("--max-array", type=int, help="MaxArraySize of the cluster")
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    try:
        settings = read_settings(os.environ)
        errors = check_settings(settings)
        if errors:
            raise ValueError("\n".join(errors))
        known = arguments.partitions.read_text().split() if arguments.partitions else None
        for remark in unchecked(settings, known):
            log.warning("warning: %s", remark)
        queue = arguments.queue.read_text()
        campaign = prepare(settings, arguments.max_array, arguments.dry_run, queue)
        tasks = read_queue(queue, campaign.id)
        lines, remarks = plan(campaign, survey(campaign), tasks)
    except ValueError as error:  # one a line
        return max(report(ValueError(line)) for line in str(error).splitlines())
    except OSError as error:
        return report(error)
    for remark in remarks:
        log.warning("%s", remark)
    print("\n".join([f"campaign {campaign.id} - -", *lines]))
    return 0


def unchecked(s: Settings, known: list[str] | None) -> list[str]:
    """Return a line for each setting that only sbatch can judge, and that looks wrong from here.

    Args:
        s: settings; a partition may be several, separated by commas.
        known: partitions that sinfo shows; sites hide some. None: it did not say.
    """
    remarks = [
        f"{name}={getattr(s, name)}: sinfo shows no partition {partition!r} (it shows "
        f"{', '.join(sorted(set(known))) or 'none'}); sbatch decides"
        for name in ("GPU_PARTITION", "CPU_PARTITION")
        for partition in filter(None, map(str.strip, getattr(s, name).split(",")))
        if known is not None and partition not in known
    ]
    flags = shlex.split(s.SBATCH_FLAGS)
    if any(w.split("=")[0] in ("-M", "--cluster", "--clusters") for w in flags):
        remarks.append(
            "SBATCH_FLAGS names another cluster, whose queue is not looked at: export "
            "SLURM_CLUSTERS instead"
        )
    return remarks


def prepare(settings: Settings, max_array: int | None, dry_run: bool, queue: str) -> Campaign:
    """Open the campaign, or begin it; check what needs its slides; write it down unless dry.

    Raises:
        ValueError: a stage's flags are wrong, an array too large, or the campaign is another.
    """
    campaign = begin(settings, write=False, queue=queue)
    sizes = {"SLIDES_PER_TASK": campaign.parts, "MIX_PARTS": settings.MIX_PARTS}
    sizes["BENCHMARKS and EVALUATE_EVERY"] = len(settings.tasks)
    errors = [
        f"{name} make an array of {size:,} tasks, and this cluster's MaxArraySize is {max_array:,}"
        for name, size in sizes.items()
        if max_array and size > max_array
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            check_flags(campaign, Path(folder))
        except ValueError as error:
            errors.append(str(error))
        try:
            if "evaluate" in settings.STAGES.split() and settings.BENCHMARKS.split():
                check_probe(settings, Path(folder))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    if not dry_run:
        campaign = begin(settings, write=True, queue=queue)
        with atomic(campaign.out / "settings.sh", "w") as file:
            file.write(shell_settings(campaign))
        with atomic(campaign.out / "embed.tsv", "w") as file:
            file.writelines("\t".join(task) + "\n" for task in settings.tasks)
    return campaign


def shell_settings(campaign: Campaign) -> str:
    """Return a campaign's settings as the recipes read them; flags as arrays of words, too."""
    settings = campaign.settings
    values = asdict(settings) | {"PARTS": campaign.parts, "STEPS": settings.train.steps}
    values["LEMON"] = Path(__file__).resolve().parents[1]
    lines = [f"{k}={shlex.quote(str(v))}" for k, v in values.items()]
    lines += [f"{k}_WORDS=({shlex.join(shlex.split(str(values[k])))})" for k in WORDS]
    return "\n".join(["# Written by slurm/submit.sh for the jobs; edit your own file", *lines, ""])


def plan(
    campaign: Campaign, units: dict[str, dict[str, set[int]]], tasks: list[Task]
) -> tuple[list[str], list[str]]:
    """Return the lines that `slurm/submit.sh` carries out, and remarks for the user.

    What is missing and not queued is submitted. Jobs further down that wait already would not wait
    for it: they are cancelled and submitted anew behind it. Where one of them runs already, it
    ends first.

    Args:
        campaign: of `begin`.
        units: of `survey`.
        tasks: of `read_queue`.
    """
    lines, remarks, cancelled, upstream_new = [], [], set(), False
    for place, job in enumerate(campaign.chain):
        live = [t for t in tasks if t.stage == job and t.job not in cancelled]
        missing = units[job]["missing"] - {t.unit for t in live}
        if not units[job]["missing"]:
            continue
        later = [t for t in tasks if t.stage in campaign.chain[place + 1 :]]
        if missing and not upstream_new:
            running = [t for t in later if not t.waits]
            if running:
                remarks.append(
                    f"{job}: {len(missing)} missing, but {running[0].stage} ({running[0].job}) is "
                    "running: run this again when it has ended"
                )
                break
            cancelled |= {t.job for t in later}
            upstream_new = True
        what = "none" if not missing else array(missing) if job in ARRAYS else "-"
        ids = ":".join(sorted({t.job for t in live})) or "-"
        lines.append(f"{job} {what} {ids} {len(missing)}")
    held = [t.name for t in tasks if t.reason == HELD and t.job not in cancelled]
    first = [f"cancel {job} - -" for job in sorted(cancelled)] + [f"release {t} - -" for t in held]
    return first + lines, remarks


if __name__ == "__main__":
    sys.exit(main())
