"""How many nuclei of each class a slide has, and how many in a mm² of its tissue."""

from dataclasses import dataclass

from evaluate.classes.calls import Calls
from evaluate.classes.tissue import view
from evaluate.slides.extraction import Nuclei

THUMBNAIL_PX = 400  # of a picture that only tissue is sought in


@dataclass(frozen=True)
class Count:
    """What was counted on one slide."""

    slide: str
    project: str
    nuclei: dict[str, int]  # class -> nuclei; the last is of none
    tissue_mm2: float | None  # None: not known
    share: float = 1.0  # of the slide's nuclei that were cut out, where extract drew some

    @property
    def total(self) -> int:
        """Nuclei that were looked at."""
        return sum(self.nuclei.values())

    def density(self, name: str) -> float | None:
        """Return nuclei of a class a mm² of tissue, those not drawn counted like those drawn."""
        if not self.tissue_mm2:
            return None
        return self.nuclei[name] / self.share / self.tissue_mm2


def count(nuclei: Nuclei, calls: Calls, tissue_mm2: float | None = None) -> Count:
    """Count a slide's nuclei.

    Args:
        tissue_mm2: where it is known already; else it is sought on the slide, unless a mask said
            where nuclei were to be found.
    """
    record = nuclei.record
    if record["settings"].get("masks"):
        tissue_mm2 = None
    elif tissue_mm2 is None:
        tissue_mm2 = view(record, THUMBNAIL_PX).tissue_mm2
    fates = record["fates"]
    share = fates["kept"] / (fates["kept"] + fates.get("not sampled", 0))
    return Count(nuclei.slide, record["project"] or "", calls.counts(), tissue_mm2, share)


def in_words(one: Count) -> str:
    """Say a slide's counts in a line."""
    parts = []
    for name, number in one.nuclei.items():
        density = one.density(name)
        each = "" if density is None else f", {density:,.0f}/mm²"
        parts.append(f"{name} {number:,} ({number / max(one.total, 1):.0%}{each})")
    area = "tissue not known" if one.tissue_mm2 is None else f"{one.tissue_mm2:.3g} mm² of tissue"
    return f"{one.slide}: {'; '.join(parts)}; {area}"
