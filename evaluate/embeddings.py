"""Embeddings on disk: `<out>/embeddings/<encoder>/<what>.npy` and a manifest beside it.

An array grows piece by piece as `<what>.npy.part`, with its manifest and the rows that are safely
written in `<what>.part.json`; killed, it goes on from there. The array takes its name when it is
whole, the manifest is written last: an array without one, or beside another's, counts for nothing.
"""

import fcntl
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.endings import Encoder
from shards.errors import room
from shards.json_file import read_json
from shards.progress import Bar
from shards.write import write_text

log = logging.getLogger(__name__)

FORMAT = 1  # of the manifest
PIECE = 8192  # rows written and marked at a time


def embed(
    encoder: Encoder,
    benchmark: Benchmark,
    out: Path,
    overwrite: bool = False,
    keep: bool = True,
    dtype: str = "float32",
) -> np.ndarray:
    """Return the benchmark's embeddings, from disk if the manifest there agrees.

    The manifest holds what the embeddings depend on: weights, input, precision, crops. Tasks that
    share their nuclei share an array.

    Returns:
        (N, D) of `dtype`, mapped from the file where there is one.

    Raises:
        ValueError: the encoder does not fit the crops.
    """
    whole = benchmark.part_of or benchmark
    if not keep:
        return encoder.embed(benchmark.crops)
    path = array_path(encoder, whole.name, out, dtype)
    embeddings = write(
        encoder,
        path,
        _manifest(encoder, whole, dtype),
        lambda first, last: whole.crops[first:last],
        len(whole),
        dtype,
        overwrite,
    )
    return embeddings if benchmark.rows is None else embeddings[benchmark.rows]


def cached(
    encoder: Encoder, benchmark: Benchmark, out: Path, dtype: str = "float32"
) -> np.ndarray | None:
    """Return the embeddings on disk, (N, D), or None if none there are this encoder's."""
    whole = benchmark.part_of or benchmark
    path = array_path(encoder, whole.name, out, dtype)
    embeddings = _read(path, _manifest(encoder, whole, dtype))
    return (
        embeddings if embeddings is None or benchmark.rows is None else embeddings[benchmark.rows]
    )


def write(
    encoder: Encoder,
    path: Path,
    manifest: dict,
    read: Callable[[int, int], np.ndarray],
    count: int,
    dtype: str = "float32",
    overwrite: bool = False,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """Write embeddings of any number of crops in bounded memory, resumable; return them mapped.

    Of several processes that write the same array one works, and the others wait for it.

    Args:
        manifest: what the embeddings depend on, without `shape`.
        read: gives the crops of rows [first, last) of `order`, (M, P, P, 3) uint8.
        count: N.
        order: (N,) rows of the array as they are read; None: as they stand.

    Raises:
        ValueError: a float16 cannot hold a value, or the encoder does not fit the crops.
    """
    if not overwrite and (found := _read(path, manifest)) is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    part, mark = path.with_name(path.name + ".part"), path.with_suffix(".part.json")
    with _alone(path.with_name(f".{path.stem}.lock")):
        if not overwrite and (found := _read(path, manifest)) is not None:
            return found  # another process made it meanwhile
        path.with_suffix(".json").unlink(missing_ok=True)
        first = 0 if overwrite else _progress(part, mark, manifest)
        if not first:
            part.unlink(missing_ok=True)
        bar = Bar(None, f"embed {encoder.name}", "nuclei", total=count, done=first)
        with room(part), open(part, "r+b" if first else "wb") as file, bar:
            for start, crops in _pieces(read, first, count):
                embeddings = np.ascontiguousarray(_cast(encoder.embed(crops), dtype, encoder.name))
                done, width = start + len(embeddings), embeddings.shape[1]
                header = _header(count, width, dtype)
                if not start:
                    file.write(header)
                if order is None:
                    file.seek(len(header) + start * embeddings[0].nbytes)
                    file.write(embeddings.data)
                else:
                    for row, values in zip(order[start:done].tolist(), embeddings, strict=True):
                        file.seek(len(header) + row * values.nbytes)
                        file.write(values.data)
                file.flush()
                os.fsync(file.fileno())
                write_text(mark, json.dumps({"manifest": manifest, "done": done, "width": width}))
                bar.update(len(embeddings))
            width = json.loads(mark.read_text())["width"]
            file.truncate(
                len(_header(count, width, dtype)) + count * width * np.dtype(dtype).itemsize
            )
        os.replace(part, path)
        mark.unlink()
        shape = {"shape": [count, width]}
        write_text(path.with_suffix(".json"), json.dumps(manifest | shape, indent=1) + "\n")
    return np.load(path, mmap_mode="r")


def array_path(encoder: Encoder, name: str, out: Path, dtype: str = "float32") -> Path:
    """Return where embeddings lie; the name says what is not float32."""
    ending = "" if dtype == "float32" else f".{dtype}"
    return Path(out) / "embeddings" / encoder.name / f"{name}{ending}.npy"


def read_manifest(path: Path) -> dict | None:
    """Return what an array is said to be of, or None where it is not whole."""
    try:
        return json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _read(path: Path, manifest: dict) -> np.ndarray | None:
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    try:
        found = json.loads(path.with_suffix(".json").read_text())
        embeddings = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):  # not JSON, not an array: cut short by something else than us
        return None
    shape = found.pop("shape", list(embeddings.shape))  # the first manifests of slides had none
    # through JSON, for what was read back holds lists where the manifest holds tuples
    same = found == json.loads(json.dumps(manifest)) and shape == list(embeddings.shape)
    return embeddings if same else None


def _progress(part: Path, mark: Path, manifest: dict) -> int:
    """Return how many rows a killed run left, if they are of the same array."""
    if not part.is_file() or not mark.is_file():
        return 0
    state = read_json(mark, "delete it")  # written atomically
    return state["done"] if state["manifest"] == json.loads(json.dumps(manifest)) else 0


def _pieces(read: Callable, first: int, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, crops), the next piece read while the present one is embedded."""
    from concurrent.futures import ThreadPoolExecutor

    starts = list(range(first, count, PIECE))
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for start in starts:
            crops = waiting.result() if waiting else read(start, min(start + PIECE, count))
            following = start + PIECE
            if following < count:
                waiting = ahead.submit(read, following, min(following + PIECE, count))
            yield start, crops


def _cast(embeddings: np.ndarray, dtype: str, name: str) -> np.ndarray:
    if dtype != "float32" and (largest := float(np.abs(embeddings).max())) > float(
        np.finfo(dtype).max
    ):
        raise ValueError(f"{name}: a value of {largest:g} does not fit {dtype}; write float32")
    return embeddings.astype(dtype)


def _header(count: int, width: int, dtype: str) -> bytes:
    """Return the bytes before the values of a .npy file."""
    head = io.BytesIO()
    described = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (count, width),
    }
    np.lib.format.write_array_header_1_0(head, described)
    return head.getvalue()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock that goes with the process; POSIX locks hold over NFS as well."""
    with room(path):
        path.touch()
    with open(path, "w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process holds %s: waiting", path)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def _manifest(encoder: Encoder, benchmark: Benchmark, dtype: str) -> dict:
    kind = {} if dtype == "float32" else {"dtype": dtype}
    return {
        "format": FORMAT,
        "encoder": encoder.manifest(),
        "benchmark": {
            "name": benchmark.name,
            "nuclei": len(benchmark),
            "view_px": benchmark.crops.shape[1],
            "sha256": benchmark.sha256,
        },
        **kind,
    }
