"""Runs over cells, slides and projects."""

import argparse
from pathlib import Path

from evaluate.commands import flags
from shards.command_line import at_least, check_part


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    positive = at_least(1)
    command.add_argument("cells", type=Path, metavar="CELLS", help="what extract wrote")
    flags.benchmarks(command)
    group = command.add_argument_group("grid")
    group.add_argument(
        "--sizes", type=positive, nargs="+", default=[], metavar="N", help="cells of the upper row"
    )
    group.add_argument(
        "--encoders",
        nargs="+",
        default=["vit_s8"],
        metavar="E",
        help="of the upper row, as train/main.py names them; the lower row takes the first",
    )
    group.add_argument(
        "--slides", type=positive, nargs="+", default=[], metavar="N", help="along the lower row"
    )
    group.add_argument(
        "--projects", type=positive, nargs="+", default=[], metavar="N", help="its lines"
    )
    group.add_argument("--cells-fixed", type=positive, metavar="N", help="cells of the lower row")
    flags.number(group, "--repeats", 1, "seeds for each point")
    group = command.add_argument_group("jobs")
    group.add_argument(
        "--train", default="", metavar="FLAGS", help='of train/main.py, as "--epochs 10"'
    )
    group.add_argument(
        "--launch",
        default="",
        metavar="COMMAND",
        help='what starts training, as "torchrun --nproc-per-node=8"',
    )
    group.add_argument(
        "--probe", default="", metavar="FLAGS", help='of probe, as "--precision bf16"'
    )
    group.add_argument("--keep-shards", action="store_true", help="of jobs that are done")
    flags.run(command, parts=True)


def run(options: argparse.Namespace) -> None:
    """Run this part's jobs that are not done, and draw all that are."""
    from evaluate.analyses.composition import Plan, check_grid, check_settings, grid, run_jobs
    from evaluate.analyses.composition_report import write_composition

    check_part(options)
    jobs = grid(
        options.sizes, options.encoders, options.slides, options.projects, options.cells_fixed,
        options.repeats,
    )  # fmt: skip
    check_grid(jobs, options.cells)
    plan = Plan(
        options.cells, options.out, tuple(options.benchmark), options.train, options.launch,
        options.probe, options.seed, options.keep_shards,
    )  # fmt: skip
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
