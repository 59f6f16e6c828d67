"""Runs over cells, slides and projects."""

import argparse
from pathlib import Path

from evaluate.commands import flags


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    positive = flags.at_least(1)
    command.add_argument("cells", type=Path, metavar="CELLS", help="what extract wrote")
    command.add_argument("--benchmark", nargs="+", required=True, metavar="DIR")
    command.add_argument("--sizes", type=positive, nargs="+", default=[], help="cells, upper row")
    command.add_argument("--encoders", nargs="+", default=["vit_s8"], help="as train/ names them")
    command.add_argument("--slides", type=positive, nargs="+", default=[], help="lower row")
    command.add_argument("--projects", type=positive, nargs="+", default=[], help="its lines")
    command.add_argument("--cells-fixed", type=positive, help="cells of the lower row")
    command.add_argument("--repeats", type=positive, default=1, help="seeds for each point (1)")
    command.add_argument("--train", default="", help='flags of train/main.py, as "--epochs 10"')
    command.add_argument(
        "--launch", default="", help='what starts it, as "torchrun --nproc-per-node=8"'
    )
    command.add_argument("--probe", default="", help='flags of probe, as "--precision bf16"')
    command.add_argument("--keep-shards", action="store_true", help="of jobs that are done")
    command.add_argument(
        "--part", type=int, default=0, help="of --parts: run every parts-th job, then draw"
    )
    command.add_argument("--parts", type=positive, default=1)
    flags.results(command)


def run(options: argparse.Namespace) -> None:
    """Run this part's jobs that are not done, and draw all that are."""
    from evaluate.analyses.composition import Plan, check_grid, check_settings, grid, run_jobs
    from evaluate.analyses.composition_report import write_composition

    if not 0 <= options.part < options.parts:
        raise ValueError(f"--part {options.part}: 0 to {options.parts - 1}")
    jobs = grid(
        options.sizes,
        options.encoders,
        options.slides,
        options.projects,
        options.cells_fixed,
        options.repeats,
    )
    check_grid(jobs, options.cells)
    plan = Plan(
        options.cells,
        options.out,
        tuple(options.benchmark),
        options.train,
        options.launch,
        options.probe,
        options.seed,
        options.keep_shards,
    )
    check_settings(plan)
    mine = jobs[options.part :: options.parts]
    failed = run_jobs(mine, plan)
    path = write_composition(options.out, jobs)
    if path:
        print(path.with_suffix(".md").read_text(encoding="utf-8"))
        print(f"table: {path}; figure: {options.out}/figures/composition.svg")
    if failed:
        raise RuntimeError(
            f"{len(failed)} of {len(mine)} jobs failed; the same command tries them again:\n"
            + "\n".join(failed)
        )
