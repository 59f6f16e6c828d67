"""Batch effects: how well an embedding tells where a cell comes from, beside what it is.

The question that the paper leaves for later (section 4). Within each class, so that slides do not
differ merely by what grows on them, two measures of each kind of origin (slide, tissue source site,
scanner, …), both safe from one origin being recognised by another:

- a probe: the balanced accuracy of the logistic regression of evaluate/probes/probe.py that tells
  the origins apart. Where an origin has several slides, train and test hold different slides of
  every origin, so that a site is not told by knowing its slides;
- k-NN purity: the share of a cell's k nearest of the same origin; where origins have several
  slides, cells of the cell's own slide are no neighbours. Chance is the origin's share of the cells
  that may be neighbours.

Both are also given as the part of the way from chance (0) to perfect (1), in which origins of any
number and classes compare.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from evaluate.analyses.neighbours import nearest, standardise
from evaluate.benchmark import Benchmark
from evaluate.probes.probe import folds, probe

NEIGHBOURS = 20
CELLS = 100  # of an origin and class, drawn at random: all origins weigh alike
LEAST = 10  # cells of a class that an origin needs to count
LEAST_OF_SLIDE = 5  # that each of its slides needs, where it has several
FOLDS = 5
BARCODE = re.compile(r"TCGA-(\w\w)-\w{4}")  # the tissue source site is its second field
METRIC = "balanced accuracy"


@dataclass(frozen=True)
class Effect:
    """How well one kind of origin is told within one class."""

    kind: str  # of origin
    stratum: str  # the class; '' where there are none
    origins: int
    cells: int
    folds: int
    probe: float  # balanced accuracy
    purity: float
    purity_chance: float

    @property
    def probe_chance(self) -> float:
        """What guessing gives."""
        return 1 / self.origins

    @property
    def told(self) -> float:
        """The probe's part of the way from chance to perfect."""
        return (self.probe - self.probe_chance) / (1 - self.probe_chance)

    @property
    def gathered(self) -> float:
        """The purity's part of the way from chance to perfect."""
        return (self.purity - self.purity_chance) / (1 - self.purity_chance)


def origins_of(
    samples: Benchmark, more: dict[str, dict[str, str]] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return every kind of origin of the samples, kind -> (N,) str, and their slides.

    The finest kind that is known counts as the slides. Tissue source sites are read from TCGA
    barcodes.

    Args:
        samples: N nuclei.
        more: kind -> {slide: origin}, such as {"scanner": {"a": "GT450", …}}.

    Raises:
        ValueError: nothing is known of where the nuclei come from, or `more` names no slide of
            theirs.
    """
    kinds = dict(samples.origins)
    if samples.group_kind:
        kinds.setdefault(samples.group_kind, samples.groups)
    # An image that is a slide of its own is not told twice.
    parts = {
        tuple(np.unique(values, return_inverse=True)[1].tolist()): kind
        for kind, values in reversed(kinds.items())
        if len(set(values.tolist())) > 1
    }
    kinds = {kind: values for kind, values in kinds.items() if kind in parts.values()}
    if not kinds:
        raise ValueError(f"{samples.name}: no two slides, images or sites are told of its nuclei")
    slides = max(kinds.values(), key=lambda values: len(set(values.tolist())))
    sites = [BARCODE.match(slide) for slide in slides.tolist()]
    if any(sites):
        kinds["site"] = np.array([found[1] if found else "" for found in sites])
    for kind, table in (more or {}).items():
        if not set(table) & set(slides.tolist()):
            raise ValueError(
                f"{kind}: none of {', '.join(list(table)[:3])} … is a slide of {samples.name}, "
                f"such as {slides[0]}"
            )
        kinds[kind] = np.array([table.get(slide, "") for slide in slides.tolist()])
    return kinds, slides


def effects(
    vectors: np.ndarray,
    samples: Benchmark,
    kind: str,
    origins: np.ndarray,
    slides: np.ndarray,
    strata: np.ndarray,
    components: int | None = None,
    seed: int = 0,
    cells: int = CELLS,
) -> list[Effect]:
    """Measure how well one kind of origin is told within each class, or finer stratum.

    Those in which fewer than two origins have enough cells (and, where slides make up origins,
    enough slides) are left out.

    Args:
        vectors: (N, D) float.
        samples: the N nuclei, with labels or without.
        kind: of the origins, in a word.
        origins: (N,) str, '' unknown.
        slides: (N,) str.
        strata: (N,) str, what is looked at one by one: `samples.labels`, or finer.
        components: of the probe's PCA, or None.
        seed: of draws, folds and PCA.
        cells: at most, of an origin and class.
    """
    found = []
    for label in sorted(set(strata.tolist())):
        here = np.flatnonzero((strata == label) & (origins != ""))
        rows = _draw(here, origins, slides, cells, seed)
        if not len(rows):
            continue
        names = tuple(sorted(set(origins[rows].tolist())))
        asked = Benchmark(
            samples.name, samples.crops[rows], origins[rows], names, slides[rows], "slide"
        )
        tests = _origin_folds(asked, seed)
        title = f"{kind} within {label or 'all'}"
        scored = probe(vectors[rows], asked, tests, components, seed, title)
        purity, chance = knn_purity(standardise(vectors[rows]), origins[rows], slides[rows])
        score = float(np.mean([scores[METRIC] for scores in scored]))
        found.append(Effect(kind, label, len(names), len(rows), len(tests), score, purity, chance))
    return found


def knn_purity(
    vectors: np.ndarray, origins: np.ndarray, slides: np.ndarray, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Return the mean share of same-origin cells among the k nearest, and what chance gives.

    Every origin weighs alike; k is cut to what the rarest origin can give. Where each origin is
    one slide, any cell but the cell itself may be a neighbour; else only cells of other slides.

    Args:
        vectors: (N, D) float.
        origins: (N,) str.
        slides: (N,) str, within origins.
        k: neighbours.
    """
    _, code, size = np.unique(origins, return_inverse=True, return_counts=True)
    _, slide, cells = np.unique(slides, return_inverse=True, return_counts=True)
    single = len(size) == len(cells)
    own = 1 if single else cells[slide]  # cells that may be no neighbour
    k = int(min(k, (size[code] - own).min()))  # so that all may be of the same origin
    near = nearest(vectors, k, None if single else slide)  # (N, k)
    share = (code[near] == code[:, None]).mean(axis=1)
    chance = (size[code] - own) / (len(code) - own)
    return tuple(float((np.bincount(code, v) / size).mean()) for v in (share, chance))


def class_score(
    vectors: np.ndarray,
    samples: Benchmark,
    slides: np.ndarray,
    components: int | None = None,
    seed: int = 0,
) -> tuple[float, str]:
    """Return the class probe's balanced accuracy, and its folds in words.

    Slides are kept whole where the classes allow it, else nuclei are shuffled.
    """
    labelled = np.flatnonzero(samples.labels != "")
    asked = replace(samples.take(labelled), groups=slides[labelled])
    try:
        tests, words = folds(asked, "grouped", FOLDS, seed), "slides kept whole"
    except ValueError:
        tests, words = folds(asked, "stratified", FOLDS, seed), "nuclei shuffled"
    scored = probe(vectors[labelled], asked, tests, components, seed, f"class of {samples.name}")
    return float(np.mean([scores[METRIC] for scores in scored])), words


def _draw(
    rows: np.ndarray, origins: np.ndarray, slides: np.ndarray, cells: int, seed: int
) -> np.ndarray:
    """Choose cells of each origin that has enough, of its slides alike; none if too few have.

    Where origins are made of slides, each needs two.
    """
    rng = np.random.default_rng(seed)
    pairs = set(zip(origins[rows].tolist(), slides[rows].tolist(), strict=True))
    single = len(pairs) == len(set(origins[rows].tolist()))
    chosen = []
    for name in sorted(set(origins[rows].tolist())):
        mine = rows[origins[rows] == name]
        parts = [mine[slides[mine] == slide] for slide in sorted(set(slides[mine].tolist()))]
        parts = [part for part in parts if len(part) >= (LEAST if single else LEAST_OF_SLIDE)]
        if len(parts) < (1 if single else 2) or sum(map(len, parts)) < LEAST:
            continue
        share = max(LEAST_OF_SLIDE, cells // len(parts))
        chosen += [np.sort(rng.permutation(part)[:share]) for part in parts]
    found = np.concatenate(chosen) if chosen else np.empty(0, int)
    return found if len(set(origins[found].tolist())) > 1 else np.empty(0, int)


def _origin_folds(asked: Benchmark, seed: int) -> list[np.ndarray]:
    """Return test rows such that every origin is learnt and tested, on different slides."""
    slides = {
        name: sorted(set(asked.groups[asked.labels == name].tolist())) for name in asked.classes
    }
    fewest = min(map(len, slides.values()))
    if fewest == 1:
        return folds(asked, "stratified", FOLDS, seed)
    rng = np.random.default_rng(seed)
    count = min(FOLDS, fewest)
    fold = {
        slide: i % count
        for own in slides.values()
        for i, slide in enumerate(rng.permutation(own).tolist())
    }
    of = np.array([fold[slide] for slide in asked.groups.tolist()])
    return [np.flatnonzero(of == i) for i in range(count)]
