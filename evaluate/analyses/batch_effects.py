"""Batch effects: how well embeddings predict where a cell comes from, beside what it is.

The question that the paper leaves for later (section 4). Within each class, so that slides do not
differ merely by what grows on them, two measures of each batch variable (slide, tissue source site,
scanner, …), neither of which recognises a site by its slides:

- a probe: the balanced accuracy of the logistic regression of evaluate/probes/probe.py that
  predicts the variable. Where a level (a site) has several slides, train and test hold different
  slides of it, so that a site is not predicted by knowing its slides;
- k-NN purity: the share of a cell's k nearest of the same level; where levels have several slides,
  cells of the cell's own slide are no neighbours. Chance is the level's share of the cells that may
  be neighbours.

Both are also given adjusted for chance, from chance (0) to perfect (1), so that variables of any
number of levels, and classes, compare.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from evaluate.analyses.neighbours import nearest, standardise
from evaluate.benchmark import Benchmark
from evaluate.probes.probe import Model, folds, probe

NEIGHBOURS = 20
CELLS = 100  # of a level and class, drawn at random: all levels weigh alike
LEAST = 10  # cells of a class that a level needs to count
LEAST_OF_SLIDE = 5  # that each of its slides needs, where it has several
FOLDS = 5
BARCODE = re.compile(r"TCGA-(\w\w)-\w{4}")  # the tissue source site is its second field
METRIC = "balanced accuracy"


@dataclass(frozen=True)
class Effect:
    """How well one batch variable is predicted within one class."""

    variable: str
    stratum: str  # the class; '' where there are none
    levels: int
    cells: int
    folds: int
    probe: float  # balanced accuracy
    purity: float
    purity_chance: float

    @property
    def probe_chance(self) -> float:
        """What guessing gives."""
        return 1 / self.levels

    @property
    def accuracy_adjusted(self) -> float:
        """The balanced accuracy, adjusted for chance."""
        return (self.probe - self.probe_chance) / (1 - self.probe_chance)

    @property
    def purity_adjusted(self) -> float:
        """The purity, adjusted for chance."""
        return (self.purity - self.purity_chance) / (1 - self.purity_chance)


def batch_variables(
    samples: Benchmark, more: dict[str, dict[str, str]] | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return every batch variable of the samples, name -> (N,) str, and their slides.

    The finest that is known counts as the slides. Tissue source sites are read from TCGA
    barcodes.

    Args:
        more: name -> {slide: level}, such as {"scanner": {"a": "GT450", …}}.

    Raises:
        ValueError: nothing is known of where the nuclei come from, or `more` names no slide of
            theirs.
    """
    variables = dict(samples.batch_variables)
    if samples.group_kind:
        variables.setdefault(samples.group_kind, samples.groups)
    # An image that is a slide of its own is not listed twice.
    parts = {
        tuple(np.unique(values, return_inverse=True)[1].tolist()): kind
        for kind, values in reversed(variables.items())
        if len(set(values.tolist())) > 1
    }
    variables = {kind: values for kind, values in variables.items() if kind in parts.values()}
    if not variables:
        raise ValueError(
            f"{samples.name}: its nuclei are of no two slides, images or sites that are known"
        )
    slides = max(variables.values(), key=lambda values: len(set(values.tolist())))
    sites = [BARCODE.match(slide) for slide in slides.tolist()]
    if any(sites):
        variables["site"] = np.array([found[1] if found else "" for found in sites])
    for kind, table in (more or {}).items():
        if not set(table) & set(slides.tolist()):
            raise ValueError(
                f"{kind}: none of {', '.join(list(table)[:3])} … is a slide of {samples.name}, "
                f"such as {slides[0]}"
            )
        variables[kind] = np.array([table.get(slide, "") for slide in slides.tolist()])
    return variables, slides


def effects(
    embeddings: np.ndarray,
    samples: Benchmark,
    variable: str,
    levels: np.ndarray,
    slides: np.ndarray,
    strata: np.ndarray,
    components: int | None = None,
    seed: int = 0,
    cells: int = CELLS,
) -> list[Effect]:
    """Measure how well one batch variable is predicted within each class, or finer stratum.

    Those in which fewer than two levels have enough cells (and, where levels have several slides,
    enough slides) are left out.

    Args:
        embeddings: (N, D) float.
        levels: (N,) str, '' unknown.
        slides: (N,) str.
        strata: (N,) str, what is looked at one by one: `samples.labels`, or finer.
        components: of the probe's PCA, or None.
        cells: at most, of a level and class.
    """
    found = []
    for label in sorted(set(strata.tolist())):
        here = np.flatnonzero((strata == label) & (levels != ""))
        rows = _draw(here, levels, slides, cells, seed)
        if not len(rows):
            continue
        names = tuple(sorted(set(levels[rows].tolist())))
        asked = Benchmark(
            samples.name, samples.crops[rows], levels[rows], names, slides[rows], "slide"
        )
        tests = _slide_folds(asked, seed)
        title = f"{variable} within {label or 'all'}"
        model = Model(components=components, seed=seed)
        scored = probe(embeddings[rows], asked, tests, model, title)
        purity, chance = knn_purity(standardise(embeddings[rows]), levels[rows], slides[rows])
        score = float(np.mean([scores[METRIC] for scores in scored]))
        found.append(
            Effect(variable, label, len(names), len(rows), len(tests), score, purity, chance)
        )
    return found


def knn_purity(
    embeddings: np.ndarray, levels: np.ndarray, slides: np.ndarray, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Return the mean share of same-level cells among the k nearest, and what chance gives.

    Every level weighs alike; k is cut to what the rarest level can give. Where each level is
    one slide, any cell but the cell itself may be a neighbour; else only cells of other slides.

    Args:
        embeddings: (N, D) float.
        levels: (N,) str.
        slides: (N,) str, within levels.
    """
    _, code, size = np.unique(levels, return_inverse=True, return_counts=True)
    _, slide, cells = np.unique(slides, return_inverse=True, return_counts=True)
    single = len(size) == len(cells)
    own = 1 if single else cells[slide]  # cells that may be no neighbour
    k = int(min(k, (size[code] - own).min()))  # so that all may be of the same level
    near = nearest(embeddings, k, None if single else slide)  # (N, k)
    share = (code[near] == code[:, None]).mean(axis=1)
    chance = (size[code] - own) / (len(code) - own)
    found, expected = ((np.bincount(code, v) / size).mean() for v in (share, chance))
    return float(found), float(expected)


def class_score(
    embeddings: np.ndarray,
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
    model = Model(components=components, seed=seed)
    scored = probe(embeddings[labelled], asked, tests, model, f"class of {samples.name}")
    return float(np.mean([scores[METRIC] for scores in scored])), words


def _draw(
    rows: np.ndarray, levels: np.ndarray, slides: np.ndarray, cells: int, seed: int
) -> np.ndarray:
    """Choose cells of each level that has enough, of its slides alike; none if too few have.

    Where levels are made of slides, each needs two.
    """
    rng = np.random.default_rng(seed)
    pairs = set(zip(levels[rows].tolist(), slides[rows].tolist(), strict=True))
    single = len(pairs) == len(set(levels[rows].tolist()))
    chosen = []
    for name in sorted(set(levels[rows].tolist())):
        mine = rows[levels[rows] == name]
        parts = [mine[slides[mine] == slide] for slide in sorted(set(slides[mine].tolist()))]
        parts = [part for part in parts if len(part) >= (LEAST if single else LEAST_OF_SLIDE)]
        if len(parts) < (1 if single else 2) or sum(map(len, parts)) < LEAST:
            continue
        share = max(LEAST_OF_SLIDE, cells // len(parts))
        chosen += [np.sort(rng.permutation(part)[:share]) for part in parts]
    found = np.concatenate(chosen) if chosen else np.empty(0, int)
    return found if len(set(levels[found].tolist())) > 1 else np.empty(0, int)


def _slide_folds(asked: Benchmark, seed: int) -> list[np.ndarray]:
    """Return test rows such that every level is learnt and tested, on different slides."""
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
