"""Words that not everybody knows, explained where they stand: a tooltip without a script."""

from html import escape

KEPT_WHOLE = "kept whole"
TERMS = {
    "balanced accuracy": (
        "Of each kind of nuclei the share that is named rightly, averaged over the kinds, so "
        "that a rare kind counts as much as a common one. 1 is perfect; guessing gives one over "
        "the number of kinds."
    ),
    "AUC": (
        "How often a nucleus of a kind scores higher for it than one of another kind. 1 is "
        "perfect, 0.5 is guessing."
    ),
    "AUPR": (
        "Area under precision and recall: how pure the nuclei called a kind are, from the most "
        "certain one downwards until all of the kind are found. 1 is perfect; guessing gives "
        "the kind's share of all nuclei, so it is the sternest judge of rare kinds."
    ),
    "F1 macro": (
        "Precision and recall of each kind in one figure (their harmonic mean), averaged over "
        "the kinds. 1 is perfect."
    ),
    "F1 weighted": ("As F1 macro, but a kind counts as much as it has nuclei."),
    "Pearson": (
        "Correlation of what is predicted with what was measured. 1 is perfect, 0 is none."
    ),
    "folds": (
        "The nuclei are cut into parts. Each part in turn is held back, a linear model is "
        "fitted on the others and asked about it; so every nucleus is asked about once, by a "
        "model that has not seen it."
    ),
    KEPT_WHOLE: (
        "All nuclei of one slide (or image, or patient) are held back together, so the model is "
        "asked about slides that it has never seen. With nuclei shuffled a slide stands on both "
        "sides, and its stain helps to guess: such scores are higher, and say less of a new "
        "slide."
    ),
    "95 % interval": (
        "How far the score could be off by chance: nuclei (whole slides or images where they "
        "are known) were drawn again at random 1,000 times, and 95 % of the scores fell in "
        "between. Where two intervals overlap, call neither the better."
    ),
    "spread over folds": (
        "The score was taken in each part of the data; this is one standard deviation of those "
        "scores to each side."
    ),
    "baselines": (
        "What needs no training on nuclei: the raw pixels, 76 measures of shape, colour and "
        "texture, a network with random weights. An encoder that does not beat them has learnt "
        "little of use."
    ),
    "ECE": (
        "Expected calibration error: how far stated probabilities are from how often they are "
        "right. 0 is perfect."
    ),
}


def explained(text: str, term: str | None = None) -> str:
    """Return a text as HTML, explained where it is a term: pointed at, tapped or tabbed to.

    Args:
        text: to show.
        term: of TERMS; None: the text itself, which need not be one.
    """
    said = TERMS.get(term or text)
    if not said:
        return escape(text)
    return (
        f'<span class="term" tabindex="0">{escape(text)}'
        f'<span class="tooltip" role="tooltip"><b>{escape(term or text)}</b> {escape(said)}</span>'
        "</span>"
    )
