"""How good a classifier is, as its folder says: on the screen, and as tables of the report."""

from pathlib import Path

from evaluate.probes.metrics import METRICS
from evaluate.report.figures import save_table

SECTION = "Slides"


def lines(facts: dict) -> list[str]:
    """Return a classifier's scores for a screen, and what they are of."""
    found = []
    for split, own in facts["scores"].items():
        pooled = own["pooled"][METRICS[0]]
        each = ", ".join(f"{name} {row['F1']:.2f}" for name, row in own["classes"].items())
        found.append(f"{_split(split, facts)}: {METRICS[0]} {pooled:.3f}; F1 of {each}")
    if facts["no_grouped"]:
        found.append(f"not said: how it does on groups it has not seen ({facts['no_grouped']})")
    before, after = facts["calibration_error"].values()
    return [
        *found,
        f"C {facts['C']:g}; probabilities tempered by {facts['temperature']:.2f}: calibration "
        f"error {before:.3f} before, {after:.3f} after",
    ]


def save_scores(name: str, facts: dict, out: Path) -> None:
    """Write a classifier's cross-validated scores by class as a table of the report."""
    split = list(facts["scores"])[-1]
    own = facts["scores"][split]
    header = ["class", *next(iter(own["classes"].values()))]
    rows = [
        [kind, *(f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in row.values())]
        for kind, row in own["classes"].items()
    ]
    training = facts["training"]
    save_table(
        out,
        f"classes--{name}--scores",
        header,
        rows,
        section=SECTION,
        title=f"How good {name} is on nuclei that it has not seen",
        caption=f"{_split(split, facts)} of {sum(training['nuclei'].values()):,} nuclei of "
        f"{training['benchmark']}: {METRICS[0]} {own['pooled'][METRICS[0]]:.3f}, calibration error "
        f"{facts['calibration_error']['tempered']:.3f}; each fold by a model that had not seen it.",
        command="fit",
    )


def _split(split: str, facts: dict) -> str:
    kind = facts["training"]["group_kind"] or "group"
    said = "nuclei shuffled" if split == "stratified" else f"each {kind} kept whole"
    return f"cross-validated, {said}"
