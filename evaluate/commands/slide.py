"""A slide's nuclei with their embeddings: AnnData, SpatialData, Parquet, QuPath."""

import argparse
from pathlib import Path

from evaluate.commands import flags
from shards.command_line import positive

FORMATS = (".h5ad", ".zarr", ".parquet", ".geojson", ".png")


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    data = command.add_argument_group("data")
    data.add_argument("slide", nargs="?", type=Path, help="a slide's file, or an image's")
    data.add_argument(
        "--mpp",
        type=positive,
        help="µm/px of a slide that does not say it, such as a PNG; 0.25 at 40X",
    )
    flags.path(data, "--cells", "DIR", "take what is extracted already")
    data.add_argument("--slide", dest="slide_id", metavar="ID", help="which one of --cells")
    flags.encoder(command, several=False, needed=False)
    flags.classifier(command)
    group = command.add_argument_group("run")
    group.add_argument(
        "--out",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help=f"files to write, by their endings: {', '.join(FORMATS)}",
    )
    flags.path(group, "--work", "DIR", "cells and embeddings (default: <out>.work)")
    flags.number(group, "--components", 10, "principal ones among QuPath's measurements", low=0)
    group.add_argument(
        "--whole-image",
        action="store_true",
        help="in a .zarr: every pixel of the slide and a pyramid, not a picture of 2,000 px",
    )
    group.add_argument("--seed", type=int, default=0, help="of the weights of `untrained`")
    group.add_argument("--overwrite", action="store_true", help="embed anew whatever is there")
    group.add_argument(
        "--extract",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="FLAG",
        help="all that follows goes to extract/main.py: --segmenter import --from my.json",
    )


def run(options: argparse.Namespace) -> None:
    """Extract a slide unless that is done, embed its nuclei, and write every file asked for."""
    from evaluate.slides.outputs import Detail, check_writable, write_file

    for path in options.out:  # before the hours that segmenting may take
        check_writable(path, calls=options.classifier is not None)
    if options.whole_image and ".zarr" not in {path.suffix for path in options.out}:
        raise ValueError("--whole-image is of a .zarr, and --out names none")
    if (options.slide is None) == (options.cells is None):
        raise ValueError("give a slide, or --cells with a folder that extract/main.py wrote")
    if options.cells and options.mpp:
        raise ValueError("--mpp is of a slide to extract, and --cells are extracted already")
    from evaluate.commands.inputs import open_encoders
    from evaluate.encoders import check_encoders
    from evaluate.slides.extraction import extract, find, open_nuclei
    from evaluate.slides.nuclei_embeddings import embed_slide

    check_encoders([options.encoder])
    classifier = flags.open_classifier(options)
    work = options.work or options.out[0].with_suffix(".work")
    cells = options.cells or work / "cells"
    if options.cells:
        record = find(cells, options.slide_id)
    else:
        scale = ["--any-scale"] if options.any_scale else []  # of slides: extract skips them, too
        scale += ["--mpp", str(options.mpp)] if options.mpp else []
        record = extract(options.slide, cells, scale + options.extract)
    nuclei = open_nuclei(cells, record)
    (encoder,) = open_encoders(options)
    side = None
    if classifier:
        from evaluate.classes.apply import check

        check(classifier, encoder, nuclei, options.any_scale)
        side = classifier.window_px
    embeddings = embed_slide(encoder, nuclei, work, options.overwrite, side)
    calls = None
    if classifier:
        from evaluate.classes.calls import call
        from evaluate.classes.counts import count, in_words

        calls = call(classifier, embeddings, options.min_probability)
        print(in_words(count(nuclei, calls)))
    detail = Detail(options.components, options.whole_image)
    for path in options.out:
        write_file(path, encoder, nuclei, embeddings, calls, detail)
        print(f"{path}: {len(embeddings):,} nuclei of {nuclei.slide} x {embeddings.shape[1]}")
