"""Embeddings on disk: resumed after a kill, shared, halved, and of whole data sets."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from evaluate import embeddings as embedding
from evaluate import main
from evaluate.embeddings import cached, embed
from evaluate.shard_embeddings import KEYS, embed_shards


class Means:
    """An encoder that says how many crops it saw."""

    name, components, cached, input_px = "means", None, True, None

    def __init__(self, pause: float = 0, log: Path | None = None):
        self.pause, self.log, self.seen = pause, log, 0

    def embed(self, crops: np.ndarray) -> np.ndarray:
        time.sleep(self.pause)
        self.seen += len(crops)
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{len(crops)}\n")
        return crops.reshape(len(crops), -1)[:, :300:50].astype(np.float32)

    def manifest(self) -> dict:
        return {"kind": "means"}


@pytest.fixture
def small_pieces(monkeypatch):
    """Write and mark every 20 rows."""
    monkeypatch.setattr(embedding, "PIECE", 20)


def in_child(benchmark, out, pause, log):
    """Embed slowly, to be killed or waited for."""
    embedding.PIECE = 20
    embed(Means(pause, log), benchmark, out)


def test_a_killed_run_goes_on_and_its_array_never_looks_finished(benchmark, tmp_path, small_pieces):
    child = multiprocessing.get_context("fork").Process(
        target=in_child, args=(benchmark, tmp_path, 0.15, None)
    )
    child.start()
    folder = tmp_path / "embeddings" / "means"
    mark = folder / "own.part.json"
    while not (mark.is_file() and json.loads(mark.read_text())["done"] >= 40):
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert (folder / "own.npy.part").is_file() and not (folder / "own.npy").exists()
    assert cached(Means(), benchmark, tmp_path) is None
    done = json.loads(mark.read_text())["done"]
    with open(folder / "own.npy.part", "ab") as file:
        file.write(b"half a piece that was not marked")
    encoder = Means()
    vectors = embed(encoder, benchmark, tmp_path)
    assert encoder.seen == len(benchmark) - done
    np.testing.assert_array_equal(vectors, Means().embed(benchmark.crops))
    assert not mark.exists() and not (folder / "own.npy.part").exists()
    whole = np.load(folder / "own.npy")  # an ordinary array, to its last byte
    np.testing.assert_array_equal(whole, vectors)
    assert (folder / "own.npy").stat().st_size == 128 + whole.nbytes


def test_progress_of_another_encoder_is_not_gone_on_with(benchmark, tmp_path, small_pieces):
    class Other(Means):
        def manifest(self) -> dict:
            return {"kind": "other"}

    path = embedding.array_path(Means(), "own", tmp_path)

    def read(first: int, last: int) -> np.ndarray:
        if first >= 60:
            raise InterruptedError
        return benchmark.crops[first:last]

    with pytest.raises(InterruptedError):
        embedding.write(Means(), path, {"encoder": 1}, read, len(benchmark))
    assert path.with_name("own.npy.part").stat().st_size == 128 + 3 * 20 * 6 * 4
    other = Other()
    embed(other, benchmark, tmp_path)
    assert other.seen == len(benchmark)


def test_two_processes_share_the_work(benchmark, tmp_path, small_pieces):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=in_child, args=(benchmark, tmp_path, 0.02, log)) for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert sum(map(int, log.read_text().split())) == len(benchmark)
    np.testing.assert_array_equal(
        cached(Means(), benchmark, tmp_path), Means().embed(benchmark.crops)
    )


def test_float16_lies_beside_float32(benchmark, tmp_path):
    whole = embed(Means(), benchmark, tmp_path)
    half = embed(Means(), benchmark, tmp_path, dtype="float16")
    assert half.dtype == np.float16 and isinstance(half, np.memmap)
    np.testing.assert_allclose(half, whole, rtol=1e-3)
    assert cached(Means(), benchmark, tmp_path).dtype == np.float32

    class Large(Means):
        def embed(self, crops: np.ndarray) -> np.ndarray:
            return np.full((len(crops), 2), 1e6, np.float32)

    with pytest.raises(ValueError, match=r"1e\+06 does not fit float16"):
        embed(Large(), benchmark, tmp_path / "b", dtype="float16")


def test_tasks_on_the_same_nuclei_share_an_array(benchmark, tmp_path):
    coarse = benchmark.task("coarse", benchmark.labels, benchmark.classes)
    half = np.where(np.arange(len(benchmark)) % 2, benchmark.labels, "")
    fine = benchmark.task("fine", half, benchmark.classes)
    encoder = Means()
    embed(encoder, coarse, tmp_path)
    got = embed(encoder, fine, tmp_path)
    assert encoder.seen == len(benchmark)
    np.testing.assert_array_equal(got, Means().embed(fine.crops))
    np.testing.assert_array_equal(cached(encoder, fine, tmp_path), got)


def test_every_cell_of_a_data_set(shards_folder, tmp_path, small_pieces):
    from shards.read import Shards

    shards = Shards(shards_folder)
    path, vectors = embed_shards(Means(), shards_folder, tmp_path)
    crops = shards.read(np.arange(len(shards))).transpose(0, 2, 3, 1)[:, 10:50, 10:50]
    np.testing.assert_array_equal(vectors, Means().embed(crops))
    keys = pq.read_table(path.with_suffix(".keys.parquet"))
    assert keys.equals(shards.index.select(KEYS))
    again = Means()
    embed_shards(again, shards_folder, tmp_path)
    assert again.seen == 0
    wide = Means()
    wide.input_px = 80
    with pytest.raises(ValueError, match=r"takes 80 px; .* holds crops of 60 px"):
        embed_shards(wide, shards_folder, tmp_path)


def test_the_command(shards_folder, own, tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    words = ["embed", "--encoder", "morphology", *out]
    assert main.main([*words, "--shards", str(shards_folder), "--dtype", "float16"]) == 0
    assert "x 76 float16" in capsys.readouterr().out
    assert main.main([*words, "--benchmark", str(own), "--part", "1", "--parts", "2"]) == 0
    assert not (tmp_path / "embeddings/morphology/own.npy").exists()  # the pair is part 0's
    assert main.main([*words, "--benchmark", str(own), "--parts", "2"]) == 0
    assert (tmp_path / "embeddings/morphology/own.npy").is_file()
    assert main.main([*words, "--benchmark", str(own), "--part", "2", "--parts", "2"]) == 2


@pytest.mark.soak
def test_a_compiled_network_embeds_as_an_eager_one(benchmark):
    from evaluate.network import Network
    from train.encoder import build_encoder

    config = {"input_px": 40, "mpp": 0.25, "mean": [0.6] * 3, "std": [0.2] * 3}
    plain = Network("a", build_encoder("vit_ti8", 40), config, {}, 64)
    fast = Network("b", build_encoder("vit_ti8", 40), config, {}, 64, "bf16", True)
    a, b = (network.embed(benchmark.crops[:150]) for network in (plain, fast))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.9998
