"""The linear probe: logistic regression on frozen embeddings, five folds (paper, section 2.4)."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from evaluate.benchmark import Benchmark
from evaluate.metrics import scores

C = 1.0  # inverse strength of the L2 penalty, on standardised features
TOLERANCE = 1e-4  # largest element of the gradient at which lbfgs stops
MAX_ITERATIONS = 5000  # reaching them is an error
SPLITS = ("stratified", "grouped")


def folds(benchmark: Benchmark, split: str, count: int, seed: int) -> list[np.ndarray]:
    """Return the test rows of each fold, the same for every encoder.

    `stratified` is the paper's: nuclei are shuffled, classes balanced among folds. `grouped` keeps
    each image or slide within one fold, since nuclei of one image are not independent; where there
    are fewer groups than folds, each group is a fold.

    Raises:
        ValueError: a class has fewer members than folds (or, grouped, is absent from a fold), or
            there are fewer than two classes or, grouped, than two groups.
    """
    counts = benchmark.counts()
    if len(counts) < 2:
        raise ValueError(
            f"{benchmark.name} has {len(counts)} class(es) ({', '.join(counts)}); a probe needs two"
        )
    rare = min(counts, key=counts.get)
    if counts[rare] < count:
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
        groups = benchmark.groups
        count = min(count, len(set(groups.tolist())))
        if count < 2:
            raise ValueError("all nuclei are of one group, or no groups are given")
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    rows = np.zeros(len(benchmark))
    tests = [test for _, test in splitter.split(rows, benchmark.labels, groups)]
    for i, test in enumerate(tests):
        rest = np.delete(benchmark.labels, test)
        for name in benchmark.classes:
            if name not in benchmark.labels[test] or name not in rest:
                raise ValueError(
                    f"class {name!r} lies in too few groups: fold {i} has none to learn or to test"
                )
    return tests


def fit(
    features: np.ndarray, labels: np.ndarray, components: int | None, seed: int
) -> tuple[list, LogisticRegression]:
    """Fit the reduction, the scale and the regression on a training fold.

    Paper leaves open: penalty, solver, standardisation; here: L2 with C = 1 on standardised
    features, lbfgs to a gradient of 1e-4, no class weights.

    Args:
        features: (N, D) float.
        labels: (N,) str.
        components: of a PCA before the regression, or None.
        seed: of the PCA's randomised solver.

    Returns:
        The transformers in order, and the fitted regression.

    Raises:
        RuntimeError: lbfgs did not converge.
    """
    steps = [StandardScaler()]
    if components and components < min(features.shape):
        # float32 in, float32 throughout: the pixels of 20,000 crops are large
        steps.insert(0, PCA(components, svd_solver="randomized", random_state=seed))
    for step in steps:
        features = step.fit_transform(features)
    model = LogisticRegression(C=C, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    model.fit(features.astype(np.float64), labels)
    if model.n_iter_.max() >= MAX_ITERATIONS:
        raise RuntimeError(f"the logistic regression took {MAX_ITERATIONS} steps and is not done")
    return steps, model


def probe(
    features: np.ndarray,
    benchmark: Benchmark,
    tests: list[np.ndarray],
    components: int | None = None,
    seed: int = 0,
    title: str = "",
) -> list[dict[str, float]]:
    """Train on all folds but one and score on that one, in turn.

    Args:
        features: (N, D) float32, an embedding per nucleus.
        benchmark: its labels.
        tests: of `folds`.
        components: see `fit`.
        seed: see `fit`.
        title: of the progress bar.

    Returns:
        The metrics of each fold.
    """
    results = []
    for test in tqdm(tests, desc=title, unit="fold", disable=None):
        train = np.setdiff1d(np.arange(len(benchmark)), test)
        steps, model = fit(features[train], benchmark.labels[train], components, seed)
        held = features[test]
        for step in steps:
            held = step.transform(held)
        order = [model.classes_.tolist().index(name) for name in benchmark.classes]
        probabilities = model.predict_proba(held.astype(np.float64))[:, order]  # (M, K)
        results.append(
            scores(benchmark.labels[test], probabilities, benchmark.classes, benchmark.positive)
        )
    return results


def protocol(count: int, seed: int) -> dict:
    """Return the settings that a row of `probe.csv` depends on, besides the data."""
    return {
        "folds": count,
        "seed": seed,
        "C": C,
        "solver": "lbfgs",
        "tolerance": TOLERANCE,
        "max_iterations": MAX_ITERATIONS,
        "features": "standardised on the training fold",
    }
