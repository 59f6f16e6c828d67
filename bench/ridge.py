"""python bench/ridge.py [--quick]

Ridge regression of 50 genes on 384 features, each of 20 slides of 10,000 cells left out in turn,
with the Pearson correlation of every gene: ours (evaluate/probes/ridge.py, float64) and the plain
way (scikit-learn's StandardScaler and Ridge, float64, refitted per slide), in turn in one process,
CPU seconds. Features are correlated Gaussians with an offset a slide, targets log(1 + Poisson);
time does not depend on the values. Correlations must agree to 1e-6.
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
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.preprocessing import StandardScaler

from bench.alternate import ratio
from bench.flags import bench_parser
from evaluate.probes.ridge import Ridge

ALPHA = 1.0


def make(slides: int, cells: int, dim: int, genes: int) -> tuple:
    """Return features, targets and the slide of each cell."""
    rng = np.random.default_rng(0)
    parts = np.repeat(np.arange(slides), cells)
    mixing = rng.normal(size=(dim, dim)).astype(np.float32) / np.sqrt(dim)
    x = rng.standard_normal((len(parts), dim), np.float32) @ mixing
    x += rng.normal(0, 0.3, (slides, dim)).astype(np.float32)[parts]
    rates = np.exp(0.3 * x @ rng.normal(size=(dim, genes)).astype(np.float32) / np.sqrt(dim) - 1)
    return x, np.log1p(rng.poisson(rates)).astype(np.float32), parts


def ours(x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the correlations, (slides, genes)."""
    ridge = Ridge(x, y, parts)
    return np.stack(
        [ridge.pearson(p, ridge.fit([p], [ALPHA])[0]).numpy() for p in range(parts.max() + 1)]
    )


def plain(x: np.ndarray, y: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the same by refitting."""
    found = []
    for part in range(parts.max() + 1):
        train = parts != part
        scaler = StandardScaler()
        model = PlainRidge(ALPHA).fit(
            scaler.fit_transform(x[train].astype(np.float64)), y[train].astype(np.float64)
        )
        guess, truth = model.predict(scaler.transform(x[~train].astype(np.float64))), y[~train]
        guess, truth = guess - guess.mean(0), truth - truth.mean(0, dtype=np.float64)
        found.append((guess * truth).sum(0) / np.sqrt((guess**2).sum(0) * (truth**2).sum(0)))
    return np.stack(found)


def main() -> None:
    """Alternate, and print the ratio."""
    parser = bench_parser("ridge", __doc__, "2,000 cells a slide")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = make(20, 2000 if options.quick else 10_000, 384, 50)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    found = {}
    for _ in range(2):
        for name, way in (("ours", ours), ("plain", plain)):
            began = time.process_time()
            found[name] = way(*data)
            seconds[name].append(time.process_time() - began)
    apart = np.abs(found["ours"] - found["plain"]).max()
    assert apart < 1e-6, apart
    a, b = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    print(
        f"ridge: {ratio(seconds['plain'], seconds['ours'], 1)} "
        f"ours {a:.2f} plain {b:.2f} CPU s, correlations equal to {apart:.0e}"
    )


if __name__ == "__main__":
    main()
