"""The order of samples and the stream: bijections, ranks, workers, resuming, remote data sets."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shards.order import Order, permute
from shards.read import Shards, stream
from shards.stream import Stream

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=30)


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**40), turn=st.integers(0, 100))
def test_permute_is_a_bijection(n, seed, turn):
    assert np.array_equal(np.sort(permute(np.arange(n), n, (seed, turn))), np.arange(n))


def test_permute_needs_no_array_of_all():
    n = 3 * 10**8
    values = permute(np.arange(5000), n, (0, 0))
    assert len(np.unique(values)) == 5000
    assert 0 <= values.min() < n / 20
    assert n - n / 20 < values.max() < n
    assert abs(values.mean() / (n / 2) - 1) < 0.03


@given(sizes=SIZES, window=st.integers(1, 500), seed=st.integers(0, 99))
def test_every_pass_sees_every_sample_once(sizes, window, seed):
    order = Order(sizes, seed, window)
    n = sum(sizes)
    passes = order.rows(np.arange(3 * n)).reshape(3, n)
    assert (np.sort(passes, axis=1) == np.arange(n)).all()


@given(sizes=SIZES, window=st.integers(1, 500), start=st.integers(0, 3000), data=st.data())
def test_order_depends_on_position_alone(sizes, window, start, data):
    positions = np.arange(start, start + 400)
    order = Order(sizes, 3, window)
    whole = order.rows(positions)
    cut = data.draw(st.integers(0, 400))
    parts = [Order(sizes, 3, window).rows(p) for p in np.split(positions, [cut])]
    assert np.array_equal(np.concatenate(parts), whole)
    some = data.draw(st.permutations(range(400)))[:50]
    assert np.array_equal(order.rows(positions[some]), whole[some])


def test_passes_and_seeds_differ_and_leave_no_trace_of_the_old_order():
    n = 1000
    order = Order([100] * 10, 0)  # all in one window
    passes = order.rows(np.arange(2 * n)).reshape(2, n)
    assert not np.array_equal(passes[0], passes[1])
    assert not np.array_equal(passes[0], Order([100] * 10, 1).rows(np.arange(n)))
    # Neighbours are as far apart as chance has it (n / 3 on average).
    assert abs(np.abs(np.diff(passes[0])).mean() / (n / 3) - 1) < 0.1


def test_a_batch_touches_the_shards_of_a_window_only():
    order = Order([100] * 64, 0, window=800)
    rows = order.rows(np.arange(6400)).reshape(8, 800)
    windows = [set(r // 100) for r in rows]
    assert [len(w) for w in windows] == [8] * 8
    assert set.union(*windows) == set(range(64))
    assert windows[0] != set(range(8))
    # Within a window each batch draws from all its shards alike.
    counts = np.array([np.bincount(b // 100, minlength=64) for b in rows[0].reshape(4, 200)])
    assert counts[:, list(windows[0])].min() >= 10


@given(sizes=SIZES, window=st.integers(1, 300), batch=st.integers(1, 100), seed=st.integers(0, 9))
def test_each_shard_falls_due_once_before_its_window(sizes, window, batch, seed):
    order = Order(sizes, seed, window)
    n = sum(sizes)
    due: list[int] = []
    for start in range(0, n, batch):
        due += order.due(start, min(start + batch, n))
    firsts = np.cumsum([0, *sizes])
    used = np.searchsorted(firsts, order.rows(np.arange(2 * n)), "right") - 1
    ahead = order.shards_a_window
    one, two = (list(dict.fromkeys(used[i * n : (i + 1) * n].tolist())) for i in (0, 1))
    whole = [set(w[i : i + ahead]) for w in (one, two) for i in range(0, len(w), ahead)]
    expected = [s for w in whole[1 : 1 + -(-len(sizes) // ahead)] for s in sorted(w)]
    assert sorted(due) == sorted(expected)


# ---- the stream ----------------------------------------------------------------------------------


@given(
    sizes=SIZES,
    part=st.integers(1, 7),
    ranks=st.sampled_from([1, 2, 3, 8]),
    step=st.integers(0, 50),
)
def test_ranks_share_out_the_global_batch(sizes, part, ranks, step):
    shards = type("Sizes", (), {"samples": sizes})()
    parts = [Stream(shards, part * ranks, r, ranks, seed=5).rows(step) for r in range(ranks)]
    assert {len(p) for p in parts} == {part}
    whole = Stream(shards, part * ranks, seed=5).rows(step)
    assert np.array_equal(np.concatenate(parts), whole)


@given(sizes=SIZES, batches=st.lists(st.integers(1, 6), min_size=1, max_size=8), data=st.data())
def test_resumed_with_other_ranks_and_batches_equals_straight(sizes, batches, data):
    """Whatever the world does between stops, the samples follow one another as in one go."""
    shards = type("Sizes", (), {"samples": sizes})()
    state, seen = {"seed": 7, "position": 0}, []
    for size in batches:
        ranks = data.draw(st.sampled_from([1, 2, 3, 8]))
        steps = data.draw(st.integers(0, 4))
        streams = [Stream(shards, size * ranks, r, ranks, **state) for r in range(ranks)]
        seen += [s.rows(step) for step in range(steps) for s in streams]
        state = streams[0].state(steps)
        assert all(s.state(steps) == state for s in streams)
    seen = np.concatenate([*seen, np.empty(0, np.int64)])
    assert state["position"] == len(seen)
    assert np.array_equal(seen, Order(sizes, 7).rows(np.arange(len(seen))))


class Steps(torch.utils.data.Dataset):
    """A stream as torch's DataLoader wants it."""

    def __init__(self, source: Stream):
        self.source = source

    def __getitem__(self, step: int) -> torch.Tensor:
        return torch.from_numpy(self.source.read(step))


def loaded(source: Stream, steps: range, workers: int) -> list[torch.Tensor]:
    """Read some steps through a DataLoader."""
    loader = torch.utils.data.DataLoader(
        Steps(source), batch_size=None, sampler=steps, num_workers=workers
    )
    return list(loader)


def test_order_is_equal_for_any_ranks_and_workers(shards_folder, monkeypatch):
    # torch warns of more workers than cores, of which a test machine may have two.
    monkeypatch.setattr("torch._utils.cpu_count", lambda: 8)
    shards = Shards(shards_folder)
    steps, batch = range(2, 8), 48  # beyond the end of a pass
    assert len(steps) * batch > len(shards)
    expected = [Stream(shards, batch, seed=3).read(step) for step in steps]
    for ranks in (1, 2, 3, 8):
        for workers in (0, 1, 4):
            parts = [
                loaded(Stream(shards, batch, rank, ranks, seed=3), steps, workers)
                for rank in range(ranks)
            ]
            for i, crops in enumerate(expected):
                batches = [part[i] for part in parts]
                assert {b.dtype for b in batches} == {torch.uint8}
                assert np.array_equal(torch.cat(batches).numpy(), crops), (ranks, workers)


def test_a_batch_is_one_tensor(shards_folder):
    (crops,) = loaded(Stream(Shards(shards_folder), 10), range(1), 0)
    assert crops.shape == (10, 3, 60, 60)
    assert crops.dtype == torch.uint8
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_bad_shares_are_refused(shards_folder):
    shards = Shards(shards_folder)
    with pytest.raises(ValueError, match="a batch of 10 cannot be shared evenly by 3 ranks"):
        Stream(shards, 10, 0, 3)
    with pytest.raises(ValueError, match="position -1"):
        Stream(shards, 10, position=-1)


def test_stream_reads_nothing_but_images(shards_folder, tmp_path):
    path = tmp_path / "x.tar"
    shutil.copy(shards_folder / "train-000000.tar", path)
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("evil_0000001.pkl")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with pytest.raises(ValueError, match=r"evil_0000001 holds pkl instead of one image"):
        list(stream(str(path)))
