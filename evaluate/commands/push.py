"""A run's encoder and its model card, put on the Hugging Face hub in timm's layout."""

import argparse
import logging

from evaluate.commands import flags

log = logging.getLogger(__name__)


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    hub = command.add_argument_group("hub")
    hub.add_argument("run", metavar="RUN", help="a run's folder, or one that holds an encoder")
    hub.add_argument("repository", metavar="OWNER/NAME", help="of the hub; made if absent")
    hub.add_argument("--private", action="store_true", help="make it for its owner only")
    card = command.add_argument_group("model card")
    whose = "folders of `probe`, whose scores of these weights go into the card"
    flags.paths(card, "--results", "DIR", whose)
    card.add_argument(
        "--license", default="", metavar="ID", help="of the weights, as the hub writes it"
    )
    flags.path(card, "--card", "FILE.md", "take this card instead of making one")
    card.add_argument(
        "--overwrite", action="store_true", help="replace the card that is on the hub"
    )
    card.add_argument(
        "--dry-run", action="store_true", help="print the card and what would be uploaded"
    )


def run(options: argparse.Namespace) -> None:
    """Make the card, upload it with the encoder, and say how to open it."""
    from evaluate.encoders import find_folder
    from evaluate.model_card import model_card
    from evaluate.networks.hub import check_name, files_of, push_folder
    from shards.errors import size
    from shards.text import read_text

    check_name(options.repository)
    _, folder = find_folder(options.run)
    files = files_of(folder)
    if options.card:
        card = read_text(options.card)
    else:
        card = model_card(folder, options.repository, options.license, options.results)
    if options.dry_run:
        print(card)
        for path in files:
            print(f"would upload {path}, {size(path.stat().st_size)}")
        return
    page, written = push_folder(
        folder, options.repository, card, options.private, options.overwrite or bool(options.card)
    )
    if not written:
        log.warning(
            "the model card of %s stays as it is; --overwrite replaces it", options.repository
        )
    print(f"{page}\nopen it with --encoder hf-hub:{options.repository}")
