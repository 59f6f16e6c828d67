r"""Train the network segmenter on fields with outlined nuclei.

    python extract/main.py train-segmenter fields/ --out segmenter/ --leave-out 'test_*'
    python extract/main.py slides.csv --out cells/ --hoverfast-model segmenter/nuclei.safetensors

A folder of fields holds images/ or slides/ at 0.25 µm/px, labels/NAME_inst.png (uint16 ids of the
nuclei) and, for fields whose nuclei are marked but not told apart, masks/NAME_mask.png. A rerun
goes on where it was stopped. What is left out of training is scored at the end.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path

import numpy as np

from extract.network.fields import Field, read_fields
from extract.network.inference import Predictor
from extract.network.instances import nuclei
from extract.network.scores import rates, scores
from extract.network.training import Training, train
from extract.network.weights import load_network, save_checkpoint, save_network
from shards.write import atomic

log = logging.getLogger(__name__)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.description = __doc__
    data = parser.add_argument_group("data")
    data.add_argument(
        "fields",
        nargs="+",
        help="folders of fields; FOLDER=0.4 draws four tenths of the patches from it (default: as "
        "many from each)",
    )
    data.add_argument(
        "--leave-out", nargs="*", default=[], help="patterns of fields' names, scored, not seen"
    )
    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, required=True, help="folder of weights, log and scores")
    run.add_argument("--init", type=Path, help="checkpoint.pt of another run to start from")
    run.add_argument("--save-every", type=int, default=100, help="steps a checkpoint")
    run.add_argument("--compile", action="store_true", help="torch.compile: a tenth faster")
    training = parser.add_argument_group("training")
    for one in dataclasses.fields(Training):
        training.add_argument(
            "--" + one.name.replace("_", "-"),
            type=type(one.default),
            default=one.default,
            help=one.metadata["help"],
        )


def run(arguments: argparse.Namespace) -> None:
    """Train the network segmenter, write its weights, and score what was left out."""
    names = [one.name for one in dataclasses.fields(Training)]
    settings = Training(**{name: getattr(arguments, name) for name in names})
    folders = [_weighted(word) for word in arguments.fields]
    seen, weights, unseen = [], [], {}
    for folder, weight in folders:
        everything = read_fields(folder)
        fields = read_fields(folder, arguments.leave_out)
        names = {field.name for field in fields}
        left_out = [
            field for field in everything if field.name not in names and field.has_instances
        ]
        if left_out:
            unseen[folder.resolve().name] = left_out
        seen += fields
        weights.append(np.full(len(fields), weight / len(fields)))
    chances = np.concatenate(weights)
    log.info("%d fields to train on, %d left out", len(seen), sum(map(len, unseen.values())))
    network = train(
        seen,
        chances / chances.sum(),
        arguments.out,
        settings,
        arguments.init,
        arguments.save_every,
        arguments.compile,
    )
    names = [f"{folder.resolve().name}={weight:g}" for folder, weight in folders]
    about = {"training": dataclasses.asdict(settings), "fields": names}
    weights_file = arguments.out / "nuclei.safetensors"
    save_network(network, weights_file, **about, leave_out=arguments.leave_out)
    save_checkpoint(network, arguments.out / "hoverfast.pth")
    predictor = Predictor(load_network(weights_file))
    result = {name: score(predictor, fields) for name, fields in unseen.items()}
    with atomic(arguments.out / "scores.json", "w") as file:
        json.dump(result, file, indent=1)
    for name, values in result.items():
        print(name, ", ".join(f"{key} {value:.3f}" for key, value in values["pooled"].items()))
    print(f"{weights_file}: give it to extract with --hoverfast-model")


def score(predictor: Predictor, fields: list[Field]) -> dict:
    """Score a network on fields: by field, and pooled."""
    counts = {field.name: scores(nuclei(*predictor(field.image)), field.labels) for field in fields}
    by_field = {name: rates([count]) for name, count in counts.items()}
    return {"pooled": rates(list(counts.values())), "fields": by_field}


def _weighted(word: str) -> tuple[Path, float]:
    """Read FOLDER or FOLDER=WEIGHT."""
    folder, _, weight = word.partition("=")
    try:
        value = float(weight or 1)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ValueError(f"{word}: FOLDER=WEIGHT, a number above 0")
    return Path(folder), value
