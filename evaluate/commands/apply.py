"""A classifier on every nucleus of a folder of cells or shards: a class each, counts, pictures."""

import argparse
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from evaluate.commands import flags
from shards.amount import amount
from shards.command_line import check_part

if TYPE_CHECKING:
    from evaluate.classes.apply import Task

log = logging.getLogger(__name__)

ENDINGS = ("geojson", "h5ad", "png", "zarr")


def add_flags(command: argparse.ArgumentParser) -> None:
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
    flags.number(group, "--pictures", 6, "of cells: slides drawn for the report", low=0)
    what = "of cells: nuclei of known class (image or slide, x, y, label): a confusion matrix"
    flags.path(group, "--truth", "CSV", what)
    flags.run(command, parts=True, overwrite=True)


def run(options: argparse.Namespace) -> None:
    """Classify slide by slide, then count all that is done."""
    from evaluate.classes.apply import Task
    from evaluate.commands.inputs import open_encoders

    check_part(options)
    classifier = flags.open_classifier(options)
    assert classifier  # the flag is required
    (encoder,) = open_encoders(options)
    classifier.check_encoder(encoder)
    formats = tuple(f".{ending}" for ending in options.formats)
    task = Task(
        classifier, encoder, options.out, options.min_probability, options.any_scale, formats,
        options.overwrite,
    )  # fmt: skip
    if (options.folder / "dataset.json").is_file():
        _shards(options, task)
    else:
        _cells(options, task)


def _cells(options: argparse.Namespace, task: "Task") -> None:
    from evaluate.classes import report, truth
    from evaluate.classes.apply import calls_of, classify, counts_so_far, slides_of
    from evaluate.classes.counts import in_words

    classifier = task.classifier
    known = truth.read_truth(options.truth) if options.truth else None
    records, empty = slides_of(options.folder, classifier)
    slides = {record["slide"] for record in records}
    annotated = set(known.slides.tolist()) if known else set()
    if known is not None:
        # Here for its error alone: a truth of other slides is refused before hours of work.
        truth.remarks(known, slides, classifier.classes, {})
    mine = records[options.part :: options.parts]
    for record in mine:
        print(in_words(classify(record, options.folder, task)))
    pairs: Counter[tuple[str, str]] = Counter()
    compared = []
    for place, record in enumerate(mine):
        drawn = options.part == 0 and place < options.pictures
        if not drawn and record["slide"] not in annotated:
            continue
        nuclei, calls = calls_of(record, options.folder, task)
        if drawn:
            (counted,) = (one for one in counts_so_far(task) if one.slide == nuclei.slide)
            report.save_slide(nuclei, calls, counted, options.out, options.seed)
        if known is not None and (found := truth.confusion(known, nuclei, calls)):
            compared.append(nuclei.slide)
            pairs.update(found)
    for line in truth.remarks(known, slides, classifier.classes, pairs) if known else ():
        log.warning("--truth %s: %s", options.truth, line)
    if pairs:
        print(report.save_confusion(classifier, compared, pairs, options.out))
    counts = counts_so_far(task) + empty
    path = report.save_counts(classifier, counts, task.least, options.out)
    print(f"{path}: {sum(one.total for one in counts):,} nuclei of {amount(len(counts), 'slides')}")


def _shards(options: argparse.Namespace, task: "Task") -> None:
    from evaluate.classes.apply_shards import classify_shards
    from evaluate.classes.report import save_counts

    if options.truth or options.formats or options.parts > 1:
        raise ValueError("--truth, --formats and --parts are of cells: shards mix all slides")
    path, counts = classify_shards(options.folder, task)
    print(f"{path}: {sum(one.total for one in counts):,} nuclei of {amount(len(counts), 'slides')}")
    name = path.stem.removeprefix("shards--")
    print(save_counts(task.classifier, counts, task.least, options.out, name))
