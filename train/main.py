r"""Train an encoder on shards of nuclei.

    torchrun --nproc-per-node=8 train/main.py --data shards/ --out runs/lemon
    torchrun --nproc-per-node=2 train/main.py --data shards/ --out runs/first \
        --encoder vit_ti8 --batch 128 --epochs 4 --warmup-epochs 1 --epoch-samples 10000
    torchrun --nproc-per-node=8 train/main.py --data shards/ --out runs/dino --method dinov2
    python train/main.py --config runs/first/config.json --out runs/second --seed 1
    python train/main.py --data shards/ --out runs/lemon --dry-run --time-limit-hours 20
    python train/main.py plot runs/first runs/second --out curves.png
    python train/main.py views --data shards/ --out views.png
    python train/main.py export runs/first --out encoders/lemon-first --float16

The same command continues a run that was stopped or killed. SIGTERM, SIGUSR2 and Ctrl-C save and
stop. Exit code 0: finished or stopped; 1: diverged, collapsed, or a disk is full; 2: the settings
or the data cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from shards.installed import say_what_is_missing

    say_what_is_missing()

import argparse
import logging
from pathlib import Path

from shards.command_line import Command, read_command
from shards.errors import report
from shards.progress import say_next
from train import flags
from train.policy import POLICIES

log = logging.getLogger(__name__)


def main(words: list[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        name, options = read_command("train/main.py", __doc__, COMMANDS, words, "train")
        return COMMANDS[name].run(options) or 0
    except (OSError, ValueError) as error:
        rank = os.environ.get("RANK", "0")
        # What cannot be used all ranks find alike; a disk may fail one of them.
        if rank != "0" and isinstance(error, FileNotFoundError | ValueError):
            return 2
        return report(error, f"rank {rank}: " if rank != "0" else "")


def train(options: argparse.Namespace) -> int:
    """Train an encoder, or say what training would take."""
    config, rest = flags.read(options)
    from train.batches import Unreadable  # torch takes seconds: not for --help
    from train.distributed import is_alone, start, stop
    from train.dry_run import describe
    from train.health import Collapsed, Diverged
    from train.loop import train as train_encoder

    world = start()
    level = logging.WARNING if world.rank else logging.INFO
    logging.basicConfig(format="%(message)s", level=level)
    try:
        if rest.dry_run:
            description = describe(config, world.size, world.device)
            if world.rank == 0:
                print(description)
        else:
            ended = train_encoder(config, world, rest.overwrite)
            if ended and world.rank == 0:
                say_where(Path(config.out))
    except (Diverged, Collapsed, Unreadable) as error:
        code = report(error, f"rank {world.rank}: ")
        return 2 if isinstance(error, Unreadable) else code
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            from train.memory import out_of_memory

            said = out_of_memory(config, world.device)
            return report(RuntimeError(said), f"rank {world.rank}: ")
        if not is_alone(error):
            raise
        log.warning("rank %d: another rank has ended; it says why", world.rank)
        return 1
    finally:
        stop()
    return 0


def say_where(out: Path) -> None:
    """Print where the encoder is, and what one does with it."""
    print(f"{out / 'encoder'}: the encoder; {out / 'log.jsonl'}: how it was trained")
    probe = ["python", "evaluate/main.py", "probe", "--encoder", "pixels", "morphology"]
    say_next(
        ["python", "train/main.py", "plot", out],
        [*probe, "untrained", out, "--benchmark", "MY-BENCHMARK/", "--out", "results/"],
    )


def plot_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `plot`."""
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--out", type=Path, help="PNG (default: the first run's curves.png)")


def plot(options: argparse.Namespace) -> None:
    """Draw the curves of runs."""
    from train.plot import plot as draw_curves

    out = options.out or options.runs[0] / "curves.png"
    draw_curves(options.runs, out)
    print(out)


def views_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `views`."""
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument(
        "--policy",
        nargs="+",
        choices=POLICIES,
        default=list(POLICIES),
        metavar="P",
        help="columns, by name",
    )
    parser.add_argument("--cells", type=int, default=8, help="rows")
    parser.add_argument("--views", type=int, default=4, help="of each cell and policy")
    parser.add_argument("--seed", type=int, default=0, help="of cells and draws")
    parser.add_argument("--out", type=Path, required=True, help="PNG")


def views(options: argparse.Namespace) -> None:
    """Draw a contact sheet of views (paper, Fig. 5)."""
    from train.view_sheet import write_sheet

    write_sheet(
        options.data, options.policy, options.cells, options.views, options.seed, options.out
    )
    print(options.out)


def export_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `export`."""
    parser.add_argument("run", help="folder of a run, or of an encoder")
    parser.add_argument("--out", type=Path, required=True, help="folder, e.g. encoders/lemon-NAME")
    parser.add_argument("--float16", action="store_true", help="half the size")
    parser.add_argument(
        "--probe",
        type=Path,
        help="folder that `evaluate/main.py prepare` wrote; its k-NN score goes into config.json",
    )


def export(options: argparse.Namespace) -> None:
    """Write a run's encoder into a folder of its own, to give away."""
    from train.export import export as write

    facts = write(options.run, options.out, options.float16, options.probe)
    size = (options.out / "model.safetensors").stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB" + (f", {facts['knn']}" if "knn" in facts else ""))


COMMANDS = {
    "train": Command("train an encoder; also without this word", flags.add_flags, train),
    "plot": Command("draw the curves of runs", plot_flags, plot),
    "views": Command("draw a contact sheet of views (paper, Fig. 5)", views_flags, views),
    "export": Command(
        "write a run's encoder into a folder of its own, to give away", export_flags, export
    ),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
