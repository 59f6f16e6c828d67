"""The regression probe: genes from morphology, slides or patients left out (paper, A.1, HEST)."""

from dataclasses import dataclass

import numpy as np

from evaluate.benchmark import Benchmark

ALPHA = 1.0  # strength of the L2 penalty, on standardised features
GRID = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)  # of alpha, where an inner split chooses
SPLITS = ("slide", "patient")
METRIC = "Pearson"


@dataclass(frozen=True)
class Correlations:
    """Pearson correlations of predicted and true expression on slides that were left out."""

    folds: list[str]  # the slide or patient left out
    values: np.ndarray  # (folds, T) float64; NaN where a gene is constant on every slide of a fold
    strengths: list[float]  # alpha of each fold


def slides_and_owners(benchmark: Benchmark, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return each nucleus' slide and what is left out with it, (N,) str each.

    A slide whose patient is unknown counts as a patient of its own.

    Raises:
        ValueError: the slides are not given, there are too few of them or of patients, a slide has
            two patients, or each patient has but one slide, so that nothing new is left out.
    """
    slides = benchmark.batch_variables.get("slide", benchmark.groups)
    if (slides == "").any() or len(set(slides.tolist())) < 2:
        raise ValueError(f"{benchmark.name}: slides are unknown, or there is only one")
    if split == "slide":
        return slides, slides
    if "patient" not in benchmark.batch_variables:
        raise ValueError(f"{benchmark.name}: patients are not given")
    patients = benchmark.batch_variables["patient"]
    owners = np.where(patients == "", np.char.add("slide ", slides), patients)
    pairs = len(set(zip(slides.tolist(), owners.tolist(), strict=True)))
    if pairs > len(set(slides.tolist())):
        raise ValueError(f"{benchmark.name}: a slide has two patients")
    distinct = len(set(owners.tolist()))
    if distinct < 2:
        raise ValueError(f"{benchmark.name}: all slides are of one patient")
    if distinct == pairs:
        raise ValueError(f"{benchmark.name}: each patient has one slide, as in the split by slide")
    return slides, owners


def regress(
    embeddings: np.ndarray, benchmark: Benchmark, splits: list[str], strength: float | None = ALPHA
) -> dict[str, Correlations]:
    """Predict each slide's genes by a ridge regression trained on the others.

    Paper leaves open: the transform of counts, standardisation, alpha, over what the correlation
    is taken; here: log(1 + count), features standardised on the training slides, alpha = 1, and a
    correlation per gene and slide; a patient's is the mean over the slides.

    Args:
        embeddings: (N, D) float, one per nucleus.
        splits: of SPLITS.
        strength: alpha; None: by an inner split, each other slide or patient left out in turn too,
            that of the highest mean correlation.

    Raises:
        ValueError: see `slides_and_owners`, or an inner split of two slides.
    """
    from evaluate.probes.ridge import Ridge

    assert benchmark.targets is not None
    slides = slides_and_owners(benchmark, "slide")[0]
    names, parts = np.unique(slides, return_inverse=True)
    ridge = Ridge(embeddings, np.log1p(benchmark.targets), parts)
    results = {}
    for split in splits:
        owner = dict(
            zip(slides.tolist(), slides_and_owners(benchmark, split)[1].tolist(), strict=True)
        )
        sets = {}  # what is left out together
        for part, name in enumerate(names.tolist()):
            sets.setdefault(owner[name], []).append(part)
        strengths = [strength] * len(sets) if strength else _choose(ridge, list(sets.values()))
        values = [
            _mean(ridge, left, ridge.fit(left, [alpha]))[0]
            for left, alpha in zip(sets.values(), strengths, strict=True)
        ]
        results[split] = Correlations(list(sets), np.array(values), strengths)
    return results


def _mean(ridge, parts: list[int], weights) -> np.ndarray:
    """Return the correlations of each model, averaged over some slides, (models, T)."""
    import warnings

    found = np.stack([ridge.pearson(part, weights).numpy() for part in parts])
    with warnings.catch_warnings():  # a gene constant on all of them has none
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(found, axis=0)


def _choose(ridge, sets: list[list[int]]) -> list[float]:
    """Return for each set left out the alpha of GRID that does best on the others."""
    if len(sets) < 3:
        raise ValueError("an inner split needs three slides or patients; give an alpha instead")
    found: dict[int, list[np.ndarray]] = {i: [] for i in range(len(sets))}
    for i in range(len(sets)):
        for j in range(i):
            weights = ridge.fit(sets[i] + sets[j], GRID)
            for left, tried in ((i, j), (j, i)):  # one model serves both choices
                found[left].append(np.nanmean(_mean(ridge, sets[tried], weights), axis=1))
    return [GRID[int(np.mean(values, axis=0).argmax())] for values in found.values()]
