"""Embeddings on disk: `<out>/embeddings/<encoder>/<benchmark>.npy` and a manifest beside it."""

import json
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.encoders import Encoder
from shards.write import atomic

FORMAT = 1  # of the manifest


def embed(
    encoder: Encoder, benchmark: Benchmark, out: Path, overwrite: bool = False, keep: bool = True
) -> np.ndarray:
    """Return the benchmark's embeddings, from disk if the manifest there agrees.

    The manifest holds what the vectors depend on (weights, input, precision, crops) and is
    written last, so an array without one, or beside another one, counts for nothing.

    Args:
        encoder: of evaluate/encoders.py.
        benchmark: N nuclei.
        out: the results folder.
        overwrite: embed anew whatever is there.
        keep: write them to disk.

    Returns:
        (N, D) float32.

    Raises:
        ValueError: the encoder does not fit the crops.
    """
    if not overwrite and (vectors := cached(encoder, benchmark, out)) is not None:
        return vectors
    vectors = encoder.embed(benchmark.crops)
    if keep:
        array, manifest = _paths(encoder, benchmark, out)
        array.parent.mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
        with atomic(array) as file:
            np.save(file, vectors)
        write_text(manifest, json.dumps(_manifest(encoder, benchmark, vectors), indent=1) + "\n")
    return vectors


def cached(encoder: Encoder, benchmark: Benchmark, out: Path) -> np.ndarray | None:
    """Return the embeddings on disk, (N, D) float32, or None if none there are this encoder's."""
    array, manifest = _paths(encoder, benchmark, out)
    if not array.is_file() or not manifest.is_file():
        return None
    try:
        found = json.loads(manifest.read_text())
        vectors = np.load(array)
    except (ValueError, EOFError):  # not JSON, not an array: cut short by something else than us
        return None
    same = found == _manifest(encoder, benchmark, vectors)
    return vectors if same else None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; its folder is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write(text.encode())


def _paths(encoder: Encoder, benchmark: Benchmark, out: Path) -> tuple[Path, Path]:
    folder = Path(out) / "embeddings" / encoder.name
    return folder / f"{benchmark.name}.npy", folder / f"{benchmark.name}.json"


def _manifest(encoder: Encoder, benchmark: Benchmark, vectors: np.ndarray) -> dict:
    return {
        "format": FORMAT,
        "encoder": encoder.manifest(),
        "benchmark": {
            "name": benchmark.name,
            "nuclei": len(benchmark),
            "view_px": benchmark.crops.shape[1],
            "sha256": benchmark.sha256,
        },
        "shape": list(vectors.shape),
    }
