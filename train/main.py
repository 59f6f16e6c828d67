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

from shards.errors import no_command, report
from shards.progress import say_next
from train.flags import parse
from train.policy import POLICIES


def main(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    name = "train"  # also where flags come at once
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    try:
        if name not in COMMANDS:
            raise no_command(name, COMMANDS)
        return COMMANDS[name][0](arguments)
    except (OSError, ValueError) as error:
        rank = os.environ.get("RANK", "0")
        # What cannot be used all ranks find alike; a disk may fail one of them.
        if rank != "0" and isinstance(error, FileNotFoundError | ValueError):
            return 2
        return report(error, f"rank {rank}: " if rank != "0" else "")


def train(arguments: list[str]) -> int:
    """Train an encoder, or say what training would take; the default."""
    about = "commands:\n" + "".join(f"  {n:8}{purpose}\n" for n, (_, purpose) in COMMANDS.items())
    config, flags = parse(arguments, f"{__doc__}\n{about}")
    from train.batches import Unreadable  # torch takes seconds: not for --help
    from train.distributed import is_alone, start, stop
    from train.dry_run import describe
    from train.health import Collapsed, Diverged
    from train.loop import train as train_encoder

    world = start()
    level = logging.WARNING if world.rank else logging.INFO
    logging.basicConfig(format="%(message)s", level=level)
    try:
        if flags.dry_run:
            description = describe(config, world.size, world.device)
            if world.rank == 0:
                print(description)
        else:
            ended = train_encoder(config, world, flags.overwrite)
            if ended and world.rank == 0:
                say_where(Path(config.out))
    except (Diverged, Collapsed, Unreadable) as error:
        print(f"error: rank {world.rank}: {error}", file=sys.stderr)
        return 2 if isinstance(error, Unreadable) else 1
    except RuntimeError as error:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            from train.memory import out_of_memory

            said = out_of_memory(config, world.device)
            print(f"error: rank {world.rank}: {said}", file=sys.stderr)
            return 1
        if not is_alone(error):
            raise
        print(f"rank {world.rank}: another rank has ended; it says why", file=sys.stderr)
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


def plot(arguments: list[str]) -> int:
    """Draw the curves of runs."""
    parser = argparse.ArgumentParser(prog="train/main.py plot", description=plot.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--out", type=Path, help="PNG; the first run's curves.png by default")
    options = parser.parse_args(arguments)
    from train.plot import plot as draw_curves

    out = options.out or options.runs[0] / "curves.png"
    draw_curves(options.runs, out)
    print(out)
    return 0


def views(arguments: list[str]) -> int:
    """Draw a contact sheet of views (paper, Fig. 5)."""
    parser = argparse.ArgumentParser(prog="train/main.py views", description=views.__doc__)
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument(
        "--policy",
        nargs="+",
        default=list(POLICIES),
        metavar="P",
        help=f"some of {', '.join(POLICIES)}; all by default",
    )
    parser.add_argument("--cells", type=int, default=8, help="rows; default %(default)s")
    parser.add_argument(
        "--views", type=int, default=4, help="of each cell and policy; default %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of cells and draws; default %(default)s"
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG")
    options = parser.parse_args(arguments)
    from train.view_sheet import write_sheet

    write_sheet(
        options.data, options.policy, options.cells, options.views, options.seed, options.out
    )
    print(options.out)
    return 0


def export(arguments: list[str]) -> int:
    """Write a run's encoder into a folder of its own, to give away."""
    parser = argparse.ArgumentParser(prog="train/main.py export", description=export.__doc__)
    parser.add_argument("run", help="folder of a run, or of an encoder")
    parser.add_argument("--out", type=Path, required=True, help="folder, e.g. encoders/lemon-NAME")
    parser.add_argument("--float16", action="store_true", help="half the size")
    parser.add_argument(
        "--probe",
        type=Path,
        help="folder that `evaluate/main.py prepare` wrote; its k-NN score goes into config.json",
    )
    options = parser.parse_args(arguments)
    from train.export import export as write

    facts = write(options.run, options.out, options.float16, options.probe)
    size = (options.out / "model.safetensors").stat().st_size / 1e6
    print(f"{options.out}: {size:.1f} MB" + (f", {facts['knn']}" if "knn" in facts else ""))
    return 0


COMMANDS = {
    "train": (train, "train an encoder; also without this word"),
    "plot": (plot, "draw the curves of runs"),
    "views": (views, "draw a contact sheet of views (paper, Fig. 5)"),
    "export": (export, "write a run's encoder into a folder of its own, to give away"),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
