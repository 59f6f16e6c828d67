"""Robustness to staining: restain a benchmark and see how embeddings and probe move (paper, A.4).

Paper leaves open: the scale of embeddings before RMSE, the metric of neighbours, what a probe was
trained on. Here: each feature is standardised by the mean and s.d. of the original embeddings, for
all three measures. Its figures fit that: of embeddings whose features have unit variance, RMSE² is
2 (1 - cosine), and Table 7 has 0.777² = 0.60 and 2 (1 - 0.687) = 0.63, 0.879² = 0.77 and 0.84,
1.311² = 1.72 and 1.72. Neighbours are Euclidean, in the originals and in the restained cells. The
probe is trained on originals and tested on restained cells of held-out folds: the shift a user
meets.
"""

from dataclasses import dataclass, replace

import numpy as np

from evaluate.analyses.neighbours import nearest, standardise
from evaluate.benchmark import Benchmark
from evaluate.principal import principal_axes, project
from evaluate.probes.logistic import Problem, Regressions
from evaluate.probes.metrics import scores
from shards.stain import Stain

NEIGHBOURS = 100
BATCH = 1024  # crops restained at once
POOLED = 4096  # crops at least, spread over a benchmark, that tell its stains (if it has as many)
MEASURES = ("RMSE", "cosine similarity", "neighbourhood overlap")


@dataclass(frozen=True)
class Stability:
    """How far restaining moves N embeddings."""

    rmse: float  # root of the mean square over cells and features, standardised
    cosine: float  # mean over cells
    overlap: float  # mean share of the k nearest that stay


def slide_stains(samples: Benchmark, slides: np.ndarray) -> tuple[dict[str, Stain], str]:
    """Estimate each slide's stains from its crops; and say of how many that was ill-posed.

    These take the matrix of all crops together, with their own percentiles: nuclei of a few crops
    may hold next to no eosin, those of a benchmark do. The crops are of nuclei: haematoxylin's 99th
    percentile is above that of the whole slide.

    Args:
        slides: (N,) str.
    """
    import torch

    from train.stain_transform import fit as fit_stain

    def images(rows: slice | np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(samples.crops[rows])).permute(0, 3, 1, 2)

    together = fit_stain(images(slice(None, None, max(1, len(slides) // POOLED))))
    stains = {
        slide: fit_stain(images(slides == slide), together.matrix) for slide in np.unique(slides)
    }
    count = sum(stain.fallback for stain in stains.values())
    taken = "the reference's" if together.fallback else "those of all crops together"
    return stains, f"of {count} of them ill-posed, {taken}" if count else ""


def restained(
    samples: Benchmark, slides: np.ndarray, sources: dict[str, Stain], name: str, target: Stain
) -> Benchmark:
    """Return the benchmark in another stain, named `<benchmark>--<name>`.

    Args:
        slides: (N,) str.
        sources: of each slide, of `slide_stains`.
        name: of the target.
    """
    import torch

    from train.stain_transform import restain, stack

    crops = np.empty_like(samples.crops)
    wanted = stack([target])
    for first in range(0, len(crops), BATCH):
        part = slice(first, first + BATCH)
        x = torch.from_numpy(samples.crops[part]).permute(0, 3, 1, 2).float() / 255
        source = stack([sources[slide] for slide in slides[part].tolist()])
        y = restain(x, source, wanted).mul_(255).round_().to(torch.uint8)
        crops[part] = y.permute(0, 2, 3, 1).numpy()
    return replace(samples, name=f"{samples.name}--{name}", crops=crops, part_of=None, rows=None)


def stability(original: np.ndarray, changed: np.ndarray, k: int = NEIGHBOURS) -> Stability:
    """Compare embeddings of the same cells before and after.

    Args:
        original: (N, D) float, N above k.
        changed: (N, D) float.
    """
    a, b = standardise(original), standardise(changed, by=original)
    rmse = float(np.sqrt(np.square(a - b, dtype=np.float64).mean()))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return Stability(
        rmse, float(cosine.mean(dtype=np.float64)), overlap(nearest(a, k), nearest(b, k))
    )


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean share of neighbours that two lists have in common.

    Args:
        one: (N, k) integers, distinct in a row.
        other: (N, k).
    """
    both = np.sort(np.concatenate([one, other], axis=1), axis=1)  # (N, 2k)
    return float((both[:, 1:] == both[:, :-1]).sum(axis=1).mean() / one.shape[1])


def shifted_probe(
    original: np.ndarray,
    conditions: dict[str, np.ndarray],
    samples: Benchmark,
    tests: list[np.ndarray],
    components: int | None = None,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Train probes on originals; test each on its held-out cells under every condition.

    The regression is that of evaluate/probes/probe.py, with C = 1.

    Args:
        original: (N, D) float, embeddings trained on.
        conditions: name -> (N, D) float, embeddings tested on.
        tests: of `evaluate.probes.probe.folds`.
        components: of a PCA fitted on the originals of each training fold, or None.

    Returns:
        Name -> the balanced accuracy of each fold.
    """
    labels = np.array([samples.classes.index(label) for label in samples.labels.tolist()])
    fold = np.empty(len(labels), np.int64)
    for i, test in enumerate(tests):
        fold[test] = i
    found = {name: [] for name in conditions}
    reduced = components if components and components < min(original.shape) else None
    for held in [[i] for i in range(len(tests))] if reduced else [list(range(len(tests)))]:
        x = [original, *conditions.values()]
        if reduced:
            others = np.flatnonzero(fold != held[0])
            axes = principal_axes(original, reduced, others, seed)
            x = [project(part, *axes) for part in x]
        # A part is a fold of originals or of one condition; conditions are never learnt from.
        copies, count = len(x), len(tests)
        parts = np.concatenate([fold + i * count for i in range(copies)])
        unseen = tuple(range(count, copies * count))
        problems = [Problem((i, *unseen)) for i in held]
        fitted = Regressions(np.concatenate(x), np.tile(labels, copies), parts, problems)
        for problem, i in enumerate(held):
            truth = samples.labels[fold == i]
            for copy, name in enumerate(conditions, start=1):
                p = fitted.probabilities(problem, copy * count + i)
                values = scores(truth, p, samples.classes, samples.positive)
                found[name].append(values["balanced accuracy"])
    return found
