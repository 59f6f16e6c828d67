"""Mix the cells that extract wrote into training shards.

python shards/main.py mix cells/ --out shards/
python shards/main.py mix cells/ --out shards/ --samples-per-shard 10000 --seed 0
"""

import os
import sys

if __name__ == "__main__":  # import from the clone's root, not from this folder
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import logging
from pathlib import Path

from shards.mix import mix


def main() -> int:
    """Run the command line; return 0, or 2 where the input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("mix", help="one global shuffle of all slides' cells")
    command.add_argument("cells", type=Path, help="folder that extract wrote")
    command.add_argument("--out", type=Path, required=True, help="folder of the shards")
    command.add_argument("--samples-per-shard", type=int, default=10_000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--overwrite", action="store_true", help="replace other shards in --out")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        info = mix(
            arguments.cells,
            arguments.out,
            arguments.samples_per_shard,
            arguments.seed,
            arguments.overwrite,
        )
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{arguments.out}: {info['samples']} cells of {info['slides']} slides "
        f"in {len(info['shards'])} shards"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
