"""What became of a run's slides, printed at its end."""

from collections import Counter
from pathlib import Path

from shards.amount import amount
from shards.progress import say_next


def summarise(records: list[dict], out: Path) -> int:
    """Print what became of the slides; return the exit code."""
    outcomes = {"done": [], "skipped": [], "failed": []}
    for record in records:
        outcomes[record["outcome"]].append(record)
    for outcome in ("skipped", "failed"):
        for record in outcomes[outcome]:
            print(f"{outcome}: {record['slide']}: {record['reason']}")
    done = outcomes["done"]
    empty = [record for record in done if not record["fates"]["kept"]]
    for record in empty:
        print(f"no cells: {record['slide']}: {record['reason'] or 'no nucleus was kept'}")
    fates = Counter[str]()
    for record in done:
        fates.update(record["fates"])
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.items() if count)
    passed_over, where = Counter(), 0
    for record in done:
        left_out = record.get("segmentation", {}).get("left_out", {})
        passed_over.update(left_out)
        where += bool(left_out)
    if passed_over:
        said = ", ".join(f"{count} {reason}" for reason, count in passed_over.items())
        print(f"passed over in the segmentations of {amount(where, 'slides')}: {said}")
    marked = [r["segmentation"]["marked"] for r in done if "marked" in r.get("segmentation", {})]
    if marked:
        slide, tissue = ([shares[of] for shares in marked] for of in ("slide", "tissue"))
        print(
            f"masks mark {min(slide):.0%} to {max(slide):.0%} of a slide, {min(tissue):.0%} to "
            f"{max(tissue):.0%} of its tissue, {sorted(tissue)[len(tissue) // 2]:.0%} at the median"
        )
    print(
        f"{out}: {amount(len(done), 'slides')} done, {len(outcomes['skipped'])} skipped, "
        f"{len(outcomes['failed'])} failed; {sum(fates.values())} nuclei detected"
        + (f" = {counts}" if counts else "")
        + (f"; {len(empty)} of the slides done have no cells" if empty else "")
    )
    if outcomes["failed"]:
        print("once the causes are removed, the same command tries the failed ones again")
    elif sum(fates.values()):
        say_next(
            ["python", "extract/main.py", "sheet", out, "--out", f"{out}-sheet"],
            ["python", "shards/main.py", "mix", out, "--out", "shards/"],
        )
    return 1 if outcomes["failed"] else 0
