"""Fit a classifier on all nuclei of a benchmark, and say by cross-validation how good it is."""

from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.classes.classifier import FORMAT, Classifier, identity
from evaluate.endings import Encoder
from evaluate.maps.colouring import hues
from evaluate.probes.assess import Settings, details_of, truth_of
from evaluate.probes.calibration import calibration
from evaluate.probes.logistic import Problem, Regressions
from evaluate.probes.probe import GRID, Model, predict
from shards.schema import MPP

NAMED = 50  # groups of the training set that are named in its facts
COOLEST, HOTTEST = 0.05, 20.0  # temperatures sought


def fit(
    encoder: Encoder,
    embeddings: np.ndarray,
    benchmark: Benchmark,
    settings: Settings,
    name: str = "classifier",
) -> Classifier:
    """Fit a logistic regression on all nuclei.

    C is the one of GRID that does best (balanced accuracy) on folds held out, with groups whole
    where there are enough of them; probabilities are tempered on the same folds' held-out
    predictions (Guo et al. 2017). The scores it is kept with are of a nested cross-validation: each
    fold by a regression, and a C, that did not see it, shuffled and with groups whole.

    Args:
        embeddings: (N, D) float.
        benchmark: N nuclei with classes.
        settings: folds, seed, resamples; C must be None.

    Raises:
        ValueError: the benchmark has no classes, one too rare for the folds, or the encoder's
            embeddings are reduced by PCA.
    """
    if not benchmark.classes:
        raise ValueError(f"{benchmark.name} has no classes to fit")
    if encoder.components:
        raise ValueError(
            f"{encoder.name} is reduced by a PCA within each training fold; fit on an encoder or "
            "on morphology"
        )
    blocks = encoder.blocks(embeddings.shape[1])
    model = Model(strength=None, blocks=blocks, seed=settings.seed)
    splits, absent = settings.plan(benchmark)
    truth = truth_of(benchmark)
    scores: dict[str, dict] = {}
    tests: list[np.ndarray] = []
    for split, own in splits.items():  # the last, with groups whole where it is there, decides
        title = f"{encoder.name} on {benchmark.name}, {split}"
        try:
            found = predict(embeddings, benchmark, own, model, title)
        except ValueError as error:  # too few groups to choose C on what is left of them
            if not scores:
                raise
            absent = f"no {split} scores: {error}"
            continue
        tests, scores[split] = own, details_of(found, benchmark, settings)
    strength, held_out = choose(embeddings, truth, tests, blocks)
    temperature = cool(held_out, truth)
    errors = {
        "as they are": calibration(held_out, truth)["ECE"],
        "tempered": calibration(_tempered(held_out, truth, tests), truth)["ECE"],
    }
    whole = Regressions(
        embeddings, truth, np.zeros(len(truth), int), [Problem((), strength)], blocks
    )
    mean, scale, weights, bias = whole.coefficients(0)
    groups = sorted(set(benchmark.groups.tolist()) - {""})
    facts = {
        "format": FORMAT,
        "classes": list(benchmark.classes),
        "colours": dict(zip(benchmark.classes, hues(list(benchmark.classes)), strict=True)),
        "encoder": encoder.manifest(),
        "encoder_sha256": identity(encoder.manifest()),
        "mpp": MPP,
        "window_px": min(encoder.input_px or benchmark.crops.shape[1], benchmark.crops.shape[1]),
        "C": strength,
        "grid": list(GRID),
        "temperature": temperature,
        "calibrated_on": f"held-out predictions, {list(scores)[-1]} folds",
        "calibration_error": {k: round(v, 6) for k, v in errors.items()},  # on others' temperature
        "training": {
            "benchmark": benchmark.name,
            "sha256": benchmark.sha256,
            "nuclei": benchmark.counts(),
            "group_kind": benchmark.group_kind,
            "groups": len(groups),
            "named": groups[:NAMED],
            "notes": list(benchmark.notes),
        },
        "folds": settings.folds,
        "seed": settings.seed,
        "scores": scores,
        "no_grouped": absent,
    }
    return Classifier(
        name, tuple(benchmark.classes), mean, scale, weights, bias, temperature, facts
    )


def choose(
    embeddings: np.ndarray, truth: np.ndarray, tests: list[np.ndarray], blocks: tuple[int, ...]
) -> tuple[float, np.ndarray]:
    """Return the C of GRID of the highest balanced accuracy over folds that are held out in turn.

    Also returned: its held-out probabilities, (N, K) float64.

    Args:
        embeddings: (N, D) float.
        truth: (N,) int.
        blocks: widths of what stands side by side in an embedding.
    """
    parts = np.empty(len(truth), np.int64)
    for fold, test in enumerate(tests):
        parts[test] = fold
    problems = [Problem((fold,), c) for fold in range(len(tests)) for c in GRID]
    fitted = Regressions(embeddings, truth, parts, problems, blocks)
    members = np.bincount(truth)
    hits = np.zeros((len(GRID), len(members)))
    for number in range(len(problems)):
        fold, place = divmod(number, len(GRID))
        own = truth[parts == fold]
        right = fitted.probabilities(number, fold).argmax(1) == own
        hits[place] += np.bincount(own, right, len(members))
    best = int((hits / members).mean(axis=1).argmax())
    held_out = np.empty((len(truth), len(members)))
    for fold in range(len(tests)):
        held_out[parts == fold] = fitted.probabilities(fold * len(GRID) + best, fold)
    return GRID[best], held_out


def cool(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature at which probabilities are likeliest.

    Args:
        probabilities: (N, K) float, of models that did not see the nucleus.
        truth: (N,) int.
    """
    from scipy.optimize import minimize_scalar

    logs = np.log(np.clip(probabilities, 1e-12, 1))

    def loss(log_temperature: float) -> float:
        scores = logs / np.exp(log_temperature)
        top = scores.max(axis=1)
        total = top + np.log(np.exp(scores - top[:, None]).sum(axis=1))
        return float((total - scores[np.arange(len(truth)), truth]).mean())

    bounds = (np.log(COOLEST), np.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]


def _tempered(probabilities: np.ndarray, truth: np.ndarray, tests: list[np.ndarray]) -> np.ndarray:
    """Return the held-out probabilities, each fold's at the temperature of the others."""
    out = np.empty_like(probabilities)
    for test in tests:
        rest = np.setdiff1d(np.arange(len(truth)), test)
        raised = np.clip(probabilities[test], 1e-12, 1) ** (
            1 / cool(probabilities[rest], truth[rest])
        )
        out[test] = raised / raised.sum(axis=1, keepdims=True)
    return out


def without(benchmark: Benchmark, words: list[str]) -> np.ndarray:
    """Return the rows of other groups, so that the classifier can be tried on what is left out.

    Args:
        words: names of groups, or of slides, patients, …, with or without a file's ending.

    Raises:
        ValueError: no nucleus is of such a name.
    """
    keep = np.ones(len(benchmark), bool)
    for word in words:
        here = np.zeros(len(benchmark), bool)
        for names in (benchmark.groups, *benchmark.batch_variables.values()):
            stems = np.array([Path(name).stem for name in names.tolist()], np.str_)
            here |= (names == word) | (stems == word)
        if not here.any():
            known = ", ".join(sorted(set(benchmark.groups.tolist()))[:5])
            raise ValueError(f"--without {word}: {benchmark.name} has no such group ({known} …)")
        keep &= ~here
    return np.flatnonzero(keep)
