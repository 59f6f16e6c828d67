r"""Train an encoder on shards of nuclei.

    torchrun --nproc-per-node=8 train/main.py --data shards/ --out runs/lemon
    torchrun --nproc-per-node=2 train/main.py --data shards/ --out runs/first \
        --encoder vit_ti8 --batch 128 --epochs 4 --warmup-epochs 1 --epoch-samples 10000
    python train/main.py --config runs/first/config.json --out runs/second --seed 1

The same command continues a run that was stopped or killed. SIGTERM, SIGUSR2 and Ctrl-C save and
stop. Exit code 0: finished or stopped; 1: diverged; 2: the settings or the data cannot be used.
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import logging

from train.config import parse


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        config, flags = parse(sys.argv[1:], __doc__)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    from train.distributed import start, stop  # torch takes seconds: not for --help
    from train.loop import train
    from train.record import Diverged

    world = start()
    level = logging.WARNING if world.rank else logging.INFO
    logging.basicConfig(format="%(message)s", level=level)
    try:
        train(config, world, flags.overwrite)
    except (FileNotFoundError, ValueError) as error:
        if world.rank == 0:
            print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        if world.rank == 0:
            print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
