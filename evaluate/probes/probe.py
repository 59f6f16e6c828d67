"""The linear probe: logistic regression on frozen embeddings, five folds (paper, section 2.4)."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from evaluate.benchmark import Benchmark
from evaluate.probes.metrics import scores
from evaluate.probes.twins import expand, joined
from shards.progress import Bar

C = 1.0  # inverse strength of the L2 penalty, on standardised features
# Of C, where an inner split chooses: on embeddings whose blocks have a total variance of 1 each, so
# that it is the same question for any width.
GRID = (1e-1, 1.0, 10.0, 1e2, 1e3, 1e4)
SPLITS = ("stratified", "grouped")


@dataclass(frozen=True)
class Model:
    """What is fitted in a fold."""

    strength: float | None = C  # None: by the inner split
    components: int | None = None  # of a PCA of the training fold before all else, at most
    blocks: tuple[int, ...] | None = None  # widths of what stands side by side in an embedding
    neighbours: int = 0  # k of the k-NN probe; 0: none
    seed: int = 0  # of the PCA's random start


PLAIN = Model()


@dataclass(frozen=True)
class Prediction:
    """What models that did not see a nucleus say of it."""

    probabilities: np.ndarray  # (N, K) float64, columns in the order of the benchmark's classes
    strengths: list[float]  # C of each fold
    votes: np.ndarray | None  # (N, K) float32 of the k-NN probe; None if k is 0


def folds(benchmark: Benchmark, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Return the test rows of each fold, the same for every encoder.

    `stratified` is the paper's: nuclei are shuffled, classes balanced among folds. `grouped` keeps
    each image or slide within one fold, since nuclei of one image are not independent; where there
    are fewer groups than folds, each group is a fold. Rows of one nucleus share a fold in both.

    Paper leaves open: classes rarer than folds (NuCLS has 2 eosinophils); here: of more than two
    classes they stay, and a fold that holds none of a class does not count it.

    Raises:
        ValueError: a class has a single member, or one of two has fewer than folds; a class is
            absent from a training fold; there are fewer than two classes or, grouped, two groups.
    """
    twins, first = benchmark.twins, np.arange(len(benchmark))
    if twins is not None:
        first = np.sort(np.unique(twins, return_index=True)[1])
    labels = benchmark.labels[first]  # one a nucleus
    counts = {name: int((labels == name).sum()) for name in benchmark.classes}
    if len(counts) < 2:
        raise ValueError(
            f"{benchmark.name} has {len(counts)} class(es) ({', '.join(counts)}); a probe needs two"
        )
    rare = min(counts, key=lambda name: counts[name])
    needed = count if len(counts) == 2 else 2
    if counts[rare] < needed:
        raise ValueError(
            f"{benchmark.name}: class {rare!r} has {counts[rare]} nuclei, fewer than the {count} "
            f"folds; pass --folds {counts[rare]} or leave the class out"
            if counts[rare] >= 2
            else f"{benchmark.name}: class {rare!r} has {counts[rare]} nuclei; leave the class out"
        )
    groups = None
    if split == "stratified":
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    else:
        groups = benchmark.groups if twins is None else joined(benchmark.groups, twins)
        groups = groups[first]
        count = min(count, len(set(groups.tolist())))
        if count < 2:
            raise ValueError("all nuclei are of one group, or no groups are given")
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    rows = np.zeros(len(first))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # looked at here
        tests = [test for _, test in splitter.split(rows, labels, groups)]
    if twins is not None:
        tests = expand(tests, twins, first)
    for i, test in enumerate(tests):
        held, rest = set(benchmark.labels[test]), set(np.delete(benchmark.labels, test))
        for name in benchmark.classes:
            if name not in rest or (name not in held and counts[name] >= count):
                raise ValueError(
                    f"class {name!r} lies in too few groups: fold {i} has none to learn or to test"
                )
    return tests


def predict(
    embeddings: np.ndarray,
    benchmark: Benchmark,
    tests: list[np.ndarray],
    model: Model = PLAIN,
    title: str = "",
) -> Prediction:
    """Predict each fold by a regression trained on the others.

    Paper leaves open: penalty, solver, standardisation; here: L2 with C = 1 on features
    standardised on the training fold, no class weights; scikit-learn's optimum by the solver of
    probes/logistic.py. With C by an inner split, every fold of the training set is held out in
    turn, and the C of the highest balanced accuracy is taken; blocks of an embedding weigh alike.

    Args:
        embeddings: (N, D) float, one per nucleus.
        tests: of `folds`.

    Raises:
        ValueError: an inner split of folds too few, or that a class is absent from.
        RuntimeError: a regression did not converge.
    """
    from evaluate.principal import components as principal_components
    from evaluate.probes.knn import vote

    names = list(benchmark.classes)
    labels = np.array([names.index(label) for label in benchmark.labels.tolist()])
    parts = np.empty(len(labels), np.int64)
    for fold, test in enumerate(tests):
        parts[test] = fold
    probabilities = np.empty((len(labels), len(names)))
    votes = np.empty((len(labels), len(names)), np.float32) if model.neighbours else None
    fewest = len(labels) - max(map(len, tests))  # rows of a training fold, whose axes are one less
    reduced = None
    if model.components and model.components < embeddings.shape[1]:
        reduced = min(model.components, fewest - 1)
    strengths: list[float] = []
    rounds = [[fold] for fold in range(len(tests))] if reduced else [list(range(len(tests)))]
    with Bar(None, f"probe {title}", "folds", total=len(tests)) as bar:
        for held in rounds:  # all folds at once, where they share their features
            x = embeddings
            if reduced:
                others = np.flatnonzero(parts != held[0])
                x = principal_components(embeddings, reduced, others, model.seed)
            blocks = (x.shape[1],) if reduced or not model.blocks else model.blocks
            for fold, chosen, p in _regress(
                x, labels, parts, held, model.strength, benchmark, blocks
            ):
                probabilities[tests[fold]] = p
                strengths.append(chosen)
                if votes is not None:
                    known = parts != fold
                    votes[tests[fold]] = vote(
                        x[known], labels[known], x[tests[fold]], len(names), model.neighbours
                    )
                bar.update()
    return Prediction(probabilities, strengths, votes)


def probe(
    embeddings: np.ndarray,
    benchmark: Benchmark,
    tests: list[np.ndarray],
    model: Model,
    title: str,
) -> list[dict[str, float]]:
    """Return the metrics of each fold; arguments as of `predict`."""
    chances = predict(embeddings, benchmark, tests, model, title).probabilities
    names, positive = benchmark.classes, benchmark.positive
    return [scores(benchmark.labels[test], chances[test], names, positive) for test in tests]


def _regress(
    x,
    labels,
    parts,
    held: list[int],
    strength: float | None,
    benchmark: Benchmark,
    blocks: tuple[int, ...],
) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield (fold, C, probabilities of its rows) of the folds asked for."""
    from evaluate.probes.logistic import Problem, Regressions

    if strength is None:
        chosen = _choose(x, labels, parts, held, benchmark, blocks)
    else:
        chosen = dict.fromkeys(held, strength)
    problems = [Problem((fold,), chosen[fold]) for fold in held]
    fitted = Regressions(x, labels, parts, problems, blocks if strength is None else None)
    for i, fold in enumerate(held):
        yield fold, chosen[fold], fitted.probabilities(i, fold)


def _choose(
    x, labels, parts, held: list[int], benchmark: Benchmark, blocks: tuple[int, ...]
) -> dict[int, float]:
    """Return for each fold the C of GRID that does best on the other folds, each left out too.

    A model that leaves out folds f and g serves both, for f's choice on g and for g's on f.
    """
    from evaluate.probes.logistic import Problem, Regressions

    count = int(parts.max()) + 1
    present = np.zeros((count, len(benchmark.classes)), bool)
    present[parts, labels] = True
    pairs = sorted({tuple(sorted((f, g))) for f in held for g in range(count) if f != g})
    pairs = [pair for pair in pairs if np.delete(present, pair, axis=0).any(axis=0).all()]
    for fold in held:
        if not any(fold in pair for pair in pairs):
            raise ValueError(
                f"{benchmark.name}: no fold but {fold} can be held out for choosing C: a class "
                "would be absent, or there are only two folds; give a C instead of `inner`"
            )
    problems = [Problem(pair, c) for pair in pairs for c in GRID]
    fitted = Regressions(x, labels, parts, problems, blocks)
    # Hits of each C by class over all that was held out for a fold's choice, and their number.
    hits = {fold: np.zeros((len(GRID), len(benchmark.classes))) for fold in held}
    members = {fold: np.zeros(len(benchmark.classes)) for fold in held}
    for number, pair in enumerate(pairs):
        for fold, other in (pair, pair[::-1]):
            if fold not in hits:
                continue
            truth = labels[parts == other]
            members[fold] += np.bincount(truth, minlength=len(benchmark.classes))
            for i in range(len(GRID)):
                right = fitted.probabilities(number * len(GRID) + i, other).argmax(1) == truth
                hits[fold][i] += np.bincount(truth, right, len(benchmark.classes))
    recall = {fold: hits[fold] / np.maximum(members[fold], 1) for fold in held}
    return {fold: GRID[int(recall[fold].mean(axis=1).argmax())] for fold in held}
