"""Decide whether the cells are complete enough to go on, and close the cohort.

    python slurm/admit.py OUT    # a job of the chain, after the array of extract

Reads the table of `extract/main.py status`, which has compared every slide's files with its record.
Exit code 1: more slides failed than TOLERATED_SLIDES. A closed cohort (`cohort.json`) is not
extracted further: the shards depend on which slides are in.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import csv
import json
from collections import Counter
from pathlib import Path

from shards.command_line import program_parser
from shards.errors import report
from shards.write import atomic
from slurm.campaign import FINAL, open_campaign


def main() -> int:
    """Run the command line; return 1 if the cohort is not closed."""
    parser = program_parser("slurm/admit.py", __doc__)
    parser.add_argument("out", type=Path, help="folder of the campaign")
    out = parser.parse_args().out
    try:
        return admit(out)
    except (OSError, ValueError) as error:
        return report(error)


def admit(out: Path) -> int:
    """Close the cohort in a campaign's folder; return 1 if it is not closed.

    Raises:
        FileNotFoundError: no campaign, or no table of its slides.
    """
    campaign = open_campaign(out)
    with open(out / "cells-status" / "slides.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["outcome"] == "broken":  # without its record it is neither mixed nor passed over
            (out / "cells" / f"{row['slide']}.json").unlink(missing_ok=True)
    failed = {r["slide"]: r["reason"] or r["outcome"] for r in rows if r["outcome"] not in FINAL}
    allowed = campaign.settings.tolerated(len(rows))
    for slide, reason in failed.items():
        print(f"{slide}: {reason}")
    verdict = f"{len(failed)} of {len(rows)} slides failed, TOLERATED_SLIDES allow {allowed}"
    if len(failed) > allowed:
        return report(RuntimeError(f"{verdict}; slurm/submit.sh tries them again"))
    with atomic(out / "cohort.json", "w") as file:
        counts = Counter(row["outcome"] for row in rows)
        json.dump({"slides": len(rows), "outcomes": counts, "failed": failed}, file, indent=1)
    print(f"{verdict}: the cohort is closed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
