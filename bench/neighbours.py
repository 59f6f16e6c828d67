"""python bench/neighbours.py [--quick]

The 100 nearest of every embedding, exact, in blocks (evaluate/analyses/neighbours.py), beside
scikit-learn's brute force, in turn on the same vectors: processor seconds of one thread.
faiss-cpu's IndexFlatL2 takes part where it is installed; it is no dependency.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from bench.alternate import last_line
from bench.flags import bench_parser
from evaluate.analyses.neighbours import nearest

SIZE, QUICK, WIDTH, K, REPEATS = 22_000, 5_000, 384, 100, 3


def plain(x: np.ndarray) -> np.ndarray:
    """Return the neighbours by scikit-learn."""
    return NearestNeighbors(n_neighbors=K, algorithm="brute").fit(x).kneighbors()[1]


def faiss_flat(x: np.ndarray) -> np.ndarray:
    """Return the neighbours by faiss; the first of each is the vector itself."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(WIDTH)
    index.add(x)
    return index.search(x, K + 1)[1][:, 1:]


def main() -> None:
    """Alternate the ways, and print the table."""
    parser = bench_parser("neighbours", __doc__, "fewer vectors")
    count = QUICK if parser.parse_args().quick else SIZE
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    spread = np.logspace(0, -2, WIDTH)  # of the principal components, as of embeddings
    x = (rng.normal(size=(count, WIDTH)) * spread @ rng.normal(size=(WIDTH, WIDTH))).astype("f4")
    ways: dict[str, Callable] = {"ours": lambda x: nearest(x, K), "plain": plain}
    try:
        import faiss  # noqa: F401

        ways["faiss"] = faiss_flat
    except ImportError:
        print("faiss-cpu is not installed")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.process_time()
            found[name] = way(x)
            seconds[name].append(time.process_time() - start)
    rows = rng.integers(0, count, 500)
    for name, values in seconds.items():
        same = np.mean([len(set(found[name][i]) & set(found["plain"][i])) / K for i in rows])
        text = f"{np.median(values):.2f} s ({min(values):.2f}–{max(values):.2f})"
        print(f"{name:6} {text}  {same:.4f} of the neighbours are scikit-learn's")
    rates = {name: count / np.array(values) for name, values in seconds.items()}
    print(last_line("neighbours", rates["ours"], rates["plain"], "vectors/s"))


if __name__ == "__main__":
    main()
