"""What a classifier found, for the report: counts, densities, pictures, a confusion matrix."""

from pathlib import Path

from evaluate.classes.calls import NONE, Calls
from evaluate.classes.classifier import Classifier
from evaluate.classes.counts import Count
from evaluate.classes.picture import GREY, LONGEST_PX, grid, overview
from evaluate.classes.scores import SECTION, save_scores
from evaluate.classes.tissue import view
from evaluate.classes.truth import ABSENT, RADIUS_UM, agreement
from evaluate.report.figures import save_picture, save_table
from evaluate.slides.extraction import Nuclei
from shards.schema import MPP, VIEW_PX


def save_counts(
    classifier: Classifier, counts: list[Count], least: float, out: Path, shards: str = ""
) -> Path:
    """Write the tables of counts and densities by slide and class, and the classifier's scores.

    Args:
        least: probability below which a nucleus stays without a class.
        shards: name of the data set that they are of, whose table stands beside the cells'; '':
            of cells.

    Returns:
        The CSV of the counts.
    """
    name, kinds = classifier.name, [*classifier.classes, NONE]
    total = sum(one.total for one in counts)
    sums = {kind: sum(one.nuclei[kind] for one in counts) for kind in kinds}
    shares = ", ".join(f"{kind} {n / max(total, 1):.0%}" for kind, n in sums.items() if n)
    rows = [
        [one.slide, one.project, one.total, *(one.nuclei[kind] for kind in kinds)] for one in counts
    ]
    below = f" Below a probability of {least:g} a nucleus stays unclassified." if least else ""
    where = f" in {shards}" if shards else ""
    path = save_table(
        out,
        f"classes--{name}--counts" + (f"--{shards}" if shards else ""),
        ["slide", "project", "nuclei", *kinds],
        rows,
        section=SECTION,
        title=f"Nuclei of each class{where}",
        caption=f"Classifier {name}, fitted on {classifier.facts['training']['benchmark']}.{below}",
        headline=f"{total:,} nuclei of {len(counts)} slides{where} by {name}: {shares}.",
        command="apply",
    )
    known = [one for one in counts if one.tissue_mm2]
    if known:
        cells = [[one.density(kind) for kind in kinds] for one in known]
        save_table(
            out,
            f"classes--{name}--densities",
            ["slide", "tissue, mm²", *kinds],
            [
                [one.slide, f"{one.tissue_mm2:.4g}", *(f"{value:.1f}" for value in row)]
                for one, row in zip(known, cells, strict=True)
            ],
            section=SECTION,
            title="Nuclei a mm² of tissue",
            caption=f"Tissue as it is found on each slide's thumbnail; {len(counts) - len(known)} "
            "slides without (no nuclei, a mask, or the file is gone). Where extract drew some of "
            "a slide's nuclei, these stand for all.",
            command="apply",
        )
    save_scores(name, classifier.facts, out)
    return path


def save_slide(nuclei: Nuclei, calls: Calls, one: Count, out: Path, seed: int = 0) -> None:
    """Write a slide's picture in class colours and a grid of each class."""
    classifier = calls.classifier
    legend = {}
    for kind, number in one.nuclei.items():
        if number:
            density = one.density(kind)
            each = "" if density is None else f" · {density:,.0f}/mm²"
            words = f"{kind} {number:,} · {number / one.total:.0%}{each}"
            legend[words] = classifier.colours.get(kind, GREY)
    stem = f"classes--{classifier.name}--{nuclei.slide}"
    picture = overview(nuclei, calls, view(nuclei.record, LONGEST_PX))
    save_picture(
        out, stem, picture, title=nuclei.slide, colours=legend,
        caption=f"Each of {len(nuclei):,} nuclei in the colour of its class, by {classifier.name}.",
        section=SECTION, command="apply",
    )  # fmt: skip
    save_picture(
        out, f"{stem}--cells", grid(nuclei, calls, seed), title="",
        caption=f"{nuclei.slide}: nuclei of each class, drawn at random, "
        f"{VIEW_PX * MPP:.0f} µm a side.",
        section=SECTION,
    )  # fmt: skip


def save_confusion(
    classifier: Classifier, slides: list[str], pairs: dict[tuple[str, str], int], out: Path
) -> str:
    """Write the confusion matrix of some slides' annotated nuclei; return it in a sentence."""
    true = [*classifier.classes, *sorted({t for t, _ in pairs} - set(classifier.classes))]
    said = [*classifier.classes, NONE, ABSENT]
    rows = [
        [f"{t}", *(pairs.get((t, s), 0) for s in said)]
        for t in true
        if any(k[0] == t for k in pairs)
    ]
    accuracy, called, total = agreement(pairs)
    training = classifier.facts["training"]
    own = {Path(name).name.partition(".")[0] for name in training["named"]}
    seen = [slide for slide in slides if slide in own]
    where = f"{len(slides)} slide{'s' * (len(slides) > 1)}"
    unseen = f"{where} that it was not fitted on"
    if seen:
        unseen = f"{where}, {len(seen)} of which it was fitted on"
    elif training["groups"] > len(training["named"]):
        unseen = f"{where}; whether it was fitted on them is not recorded"
    sentence = (
        f"{classifier.name} on {total:,} annotated nuclei of {unseen}: "
        f"balanced accuracy {accuracy:.3f} of {called:,} that were found and called."
    )
    save_table(
        out,
        f"classes--{classifier.name}--confusion",
        ["annotated as", *said],
        rows,
        section=SECTION,
        title="What annotated nuclei are called",
        caption=f"Rows: the annotated class; columns: what {classifier.name} says. {ABSENT}: no "
        f"kept nucleus within {RADIUS_UM:g} µm.",
        headline=sentence,
        command="apply",
    )
    return sentence
