"""A classifier on every nucleus of a folder of cells or shards: a class each, counts, pictures."""

import argparse
import logging
from pathlib import Path

from evaluate.commands import flags
from shards.amount import amount

log = logging.getLogger(__name__)

ENDINGS = ("geojson", "h5ad", "png", "zarr")


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    command.add_argument(
        "folder", type=Path, help="cells/ of extract/main.py, or shards/ of shards/main.py"
    )
    flags.encoder(command, several=False, needed=False)
    flags.classifier(command, required=True)
    group = command.add_argument_group("files")
    group.add_argument(
        "--formats", nargs="+", choices=ENDINGS, default=[], help="of cells: further files a slide"
    )
    group.add_argument(
        "--pictures",
        type=flags.at_least(0),
        default=6,
        metavar="N",
        help="of cells: slides drawn in class colours for the report",
    )
    group.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="of cells: nuclei whose class is known (image or slide, x, y, label): a confusion "
        "matrix",
    )
    flags.run(command, parts=True, overwrite=True)


def run(options: argparse.Namespace) -> None:
    """Classify slide by slide, then count all that is done."""
    from evaluate.encoders import open_encoders

    flags.check_part(options)
    classifier = flags.open_classifier(options)
    assert classifier  # the flag is required
    (encoder,) = open_encoders([options.encoder], options.seed, options.batch, options.precision)
    classifier.check_encoder(encoder)
    if (options.folder / "dataset.json").is_file():
        _shards(options, classifier, encoder)
    else:
        _cells(options, classifier, encoder)


def _cells(options: argparse.Namespace, classifier, encoder) -> None:
    from evaluate.classes import report, truth
    from evaluate.classes.apply import calls_of, classify, counts_so_far, slides_of
    from evaluate.classes.counts import said

    known = truth.read_truth(options.truth) if options.truth else None
    records, empty = slides_of(options.folder, classifier)
    slides = {record["slide"] for record in records}
    annotated = set(known.slides.tolist()) if known else set()
    if known is not None:
        # Here for its error alone: a truth of other slides is refused before hours of work.
        truth.remarks(known, slides, classifier.classes, {})
    formats = tuple(f".{ending}" for ending in options.formats)
    mine = records[options.part :: options.parts]
    for record in mine:
        one = classify(
            record, options.folder, classifier, encoder, options.out, options.min_probability,
            options.any_scale, formats, options.overwrite,
        )  # fmt: skip
        print(said(one))
    pairs: dict[tuple[str, str], int] = {}
    compared = []
    for place, record in enumerate(mine):
        drawn = options.part == 0 and place < options.pictures
        if not drawn and record["slide"] not in annotated:
            continue
        nuclei, calls = calls_of(
            record, options.folder, classifier, encoder, options.out, options.min_probability
        )
        if drawn:
            counted = {one.slide: one for one in counts_so_far(
                options.out, classifier, options.min_probability)}  # fmt: skip
            report.save_slide(nuclei, calls, counted[nuclei.slide], options.out, options.seed)
        if known is not None:
            own = truth.confusion(known, nuclei, calls)
            compared += [nuclei.slide] if own else []
            for pair, number in own.items():
                pairs[pair] = pairs.get(pair, 0) + number
    for line in truth.remarks(known, slides, classifier.classes, pairs) if known else ():
        log.warning("--truth %s: %s", options.truth, line)
    if known is not None and pairs:
        print(report.save_confusion(classifier, known, compared, pairs, options.out))
    counts = counts_so_far(options.out, classifier, options.min_probability) + empty
    path = report.save_counts(classifier, counts, options.min_probability, options.out)
    print(f"{path}: {sum(one.total for one in counts):,} nuclei of {amount(len(counts), 'slides')}")


def _shards(options: argparse.Namespace, classifier, encoder) -> None:
    from evaluate.classes.apply_shards import classify_shards
    from evaluate.classes.report import save_counts

    if options.truth or options.formats or options.parts > 1:
        raise ValueError("--truth, --formats and --parts are of cells: shards mix all slides")
    path, counts = classify_shards(
        options.folder, classifier, encoder, options.out, options.min_probability,
        options.overwrite,
    )  # fmt: skip
    print(f"{path}: {sum(one.total for one in counts):,} nuclei of {amount(len(counts), 'slides')}")
    name = path.stem.removeprefix("shards--")
    print(save_counts(classifier, counts, options.min_probability, options.out, name))
