"""python bench/logistic.py [--quick] [--encoder runs/first]

Five folds of the logistic probe on 37,000 x 384 embeddings of real nuclei, 3 and 12 classes: ours
(evaluate/probes/logistic.py) and the plain way (scikit-learn's StandardScaler and
LogisticRegression, lbfgs, tol 1e-4, float64, a fold at a time), in turn in one process, CPU
seconds.

The nuclei are CoNSeP's, once as they are and then again in a window shifted by 3 px until there are
37,000; the encoder a ViT-S/8, trained if a run is given. 3 classes: epithelial, spindle, the rest.
12 classes: CoNSeP's four times the third of the fields a nucleus lies in.
"""

import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from bench.alternate import ratio
from bench.embed import module_of
from bench.flags import bench_parser
from evaluate.benchmarks.find import find_benchmark
from evaluate.network import Network
from evaluate.probes.logistic import Problem, Regressions


def embeddings(
    benchmark: Path, path: str | None, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (count, 384) float32 and the labels of the two tasks, ints."""
    data = find_benchmark(benchmark, view_px=48)
    order = np.random.default_rng(0).permutation(len(data))
    rows = np.concatenate([order, order])[:count]
    crops = np.ascontiguousarray(data.crops[rows][:, 4:44, 4:44])
    shifted = np.arange(count) >= len(data)
    crops[shifted] = data.crops[rows[shifted]][:, 1:41, 6:46]
    module, config = module_of(path)
    found = Network("bench", module, config, {}, None, "bf16").embed(crops)
    kinds = np.array([data.classes.index(label) for label in data.labels[rows].tolist()])
    fields = np.unique(data.groups, return_inverse=True)[1][rows] % 3
    return found, np.minimum(kinds, 2), 3 * kinds + fields


def ours(x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> list[tuple]:
    """Return each fold's held-out probabilities and the objective reached."""
    fitted = Regressions(x, y, parts, [Problem((fold,)) for fold in range(5)])
    return [(fitted.probabilities(f, f), float(fitted.objective[f])) for f in range(5)]


def plain(x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> list[tuple]:
    """Return the same by scikit-learn; the objective is computed outside the clock."""
    found = []
    for fold in range(5):
        train = parts != fold
        scaler = StandardScaler()
        features = scaler.fit_transform(x[train]).astype(np.float64)
        model = LogisticRegression(tol=1e-4, max_iter=5000).fit(features, y[train])
        guess = model.predict_proba(scaler.transform(x[~train]).astype(np.float64))
        found.append((guess, model, scaler, fold))
    return found


def objective(found: tuple, x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> float:
    """Return the objective that scikit-learn reached."""
    _, model, scaler, fold = found
    train = parts != fold
    chances = model.predict_log_proba(scaler.transform(x[train]).astype(np.float64))
    return -chances[np.arange(train.sum()), y[train]].sum() + (model.coef_**2).sum() / 2


def main() -> None:
    """Alternate, and print the ratios."""
    parser = bench_parser("logistic", __doc__, "8,000 nuclei", "--benchmark", "--encoder")
    parser.add_argument("--repeats", type=int, default=2, help="turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    x, *tasks = embeddings(options.benchmark, options.encoder, 8000 if options.quick else 37_000)
    for y in tasks:
        parts = np.empty(len(y), np.int64)
        for fold, (_, test) in enumerate(
            StratifiedKFold(5, shuffle=True, random_state=0).split(x, y)
        ):
            parts[test] = fold
        seconds: dict[str, list[float]] = {"ours": [], "plain": []}
        found = {}
        for _ in range(options.repeats):
            for name, way in (("ours", ours), ("plain", plain)):
                began = time.process_time()
                found[name] = way(x, y, parts)
                seconds[name].append(time.process_time() - began)
        excess = max(
            ours_[1] / objective(plain_, x, y, parts) - 1
            for ours_, plain_ in zip(found["ours"], found["plain"], strict=True)
        )
        accuracy = [
            np.mean([np.mean(p[0].argmax(1) == y[parts == f]) for f, p in enumerate(found[name])])
            for name in ("ours", "plain")
        ]
        a, b = (statistics.median(seconds[name]) for name in ("ours", "plain"))
        print(
            f"logistic: {ratio(seconds['plain'], seconds['ours'], 1)} "
            f"ours {a:.1f} plain {b:.1f} CPU s, 5 folds of {len(y):,} x "
            f"{x.shape[1]}, {y.max() + 1} classes; objective at most {excess:+.0e} of "
            f"scikit-learn's, accuracy {accuracy[0]:.4f} and {accuracy[1]:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
