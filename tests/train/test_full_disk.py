"""A disk that fills up while a run is saved: what is raised, and what is left."""

import errno
import json
import os

import pytest
import torch
from torch import nn

from shards.errors import NoRoom
from train import checkpoint, run
from train.batches import Unreadable, loader
from train.config import MocoConfig
from train.distributed import World, is_alone
from train.encoder import build_encoder
from train.record import Record

INFO = {"mean": [0.5] * 3, "std": [0.2] * 3, "mpp": 0.25, "samples": 9, "slides": 1, "projects": []}


class Model(nn.Module):
    """What a checkpoint and an encoder's folder are made of."""

    exported = "student"

    def __init__(self):
        super().__init__()
        self.encoder = build_encoder("vit_ti8", 8)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


def full_at(monkeypatch, ending: str, error: Exception | None = None) -> None:
    """Let every write of files whose name ends so find a full disk as it is synced."""
    real = os.fsync

    def fsync(descriptor):
        if ending in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise error or OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)


def save_one(out, step: int, model: Model, saver: checkpoint.Saver) -> None:
    config = MocoConfig(data="", out=str(out), batch=2, encoder="vit_ti8")
    optimizer = torch.optim.AdamW(model.parameters())
    run.save(saver, config, INFO, step, model, optimizer)


def left(out) -> tuple[str, int, list[str]]:
    """Return where latest.pt points, the encoder's step, and the checkpoints."""
    encoder = json.loads((out / "encoder/config.json").read_text())["lemon"]["step"]
    return os.readlink(out / "latest.pt"), encoder, [p.name for p in checkpoint.checkpoints(out)]


@pytest.mark.parametrize(
    ("full", "found"),
    [
        ("step-0000002.pt", ["step-0000001.pt"]),
        ("model.safetensors", ["step-0000001.pt", "step-0000002.pt"]),
        ("config.json", ["step-0000001.pt", "step-0000002.pt"]),
    ],
)
def test_latest_and_encoder_stay_those_of_the_last_good_save(
    tmp_path, monkeypatch, model, full, found
):
    saver = checkpoint.Saver(tmp_path, keep=1, keep_every=0)
    save_one(tmp_path, 1, model, saver)
    saver.close()
    full_at(monkeypatch, full)
    save_one(tmp_path, 2, model, saver)
    save_one(tmp_path, 3, model, saver)  # the trainer has not looked yet: nothing is tried
    assert isinstance(saver.error, NoRoom)
    with pytest.raises(NoRoom, match=f"no room in .* for {full}: .*free; make room there"):
        saver.close()
    assert left(tmp_path) == ("step-0000001.pt", 1, found)
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_resumed_run_publishes_what_its_last_save_did_not(tmp_path, monkeypatch, model):
    config = MocoConfig(data="", out=str(tmp_path), batch=2, encoder="vit_ti8")
    saver = checkpoint.Saver(tmp_path, keep=5, keep_every=0)
    save_one(tmp_path, 1, model, saver)
    saver.close()
    with monkeypatch.context() as patch:
        full_at(patch, "model.safetensors")
        save_one(tmp_path, 2, model, saver)
        with pytest.raises(NoRoom):
            saver.close()
    assert left(tmp_path)[:2] == ("step-0000001.pt", 1)
    for _ in range(2):  # the second time there is nothing to do
        run.catch_up(config, INFO, 2, model)
        assert left(tmp_path)[:2] == ("step-0000002.pt", 2)
    (tmp_path / "encoder/config.json").write_text("{cut")
    run.catch_up(config, INFO, 2, model)
    assert left(tmp_path)[:2] == ("step-0000002.pt", 2)


def test_whatever_ends_the_background_write_reaches_the_trainer(tmp_path):
    for error in (RuntimeError("of a library"), KeyError("x"), OSError(errno.EIO, "I/O error")):
        saver = checkpoint.Saver(tmp_path, keep=1, keep_every=0)

        def fail(state, error=error):
            raise error

        saver.save(1, {"w": torch.zeros(3)}, fail)
        with pytest.raises(type(error)):
            saver.close()
        assert not (tmp_path / "latest.pt").exists()


def test_a_disk_that_fails_under_torch_is_named_by_the_systems_error(tmp_path, monkeypatch):
    class Bad:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            raise OSError(errno.EIO, "Input/output error")

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = torch.save
    monkeypatch.setattr("torch.save", lambda state, file: real(state, Bad(file)))
    with pytest.raises(OSError, match="Input/output error") as caught:
        checkpoint.write(tmp_path, 1, {"w": torch.zeros(99)})
    assert caught.value.errno == errno.EIO
    assert not list(tmp_path.iterdir())


# ---- log.jsonl and TensorBoard -------------------------------------------------------------------


def log(record: Record, step: int, loss: float) -> None:
    record.note(step, {"loss": torch.tensor(loss), "embedding": torch.randn(4, 3)}, {})
    record.line()


@pytest.mark.parametrize("full", ["log.jsonl", "events.out"])
def test_a_log_that_cannot_be_written_is_kept_for_the_trainer(
    alone, tmp_path, monkeypatch, small_disk, full
):
    record = Record(tmp_path, 0, 2, 0, 1.0, 1.0)
    record.add("probe", 0.5, 1)
    whole = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def no_append(path, data):
        if full in path.name:
            raise NoRoom(f"no room for {path.name}")
        path.write_bytes(path.read_bytes() + data)

    with monkeypatch.context() as patch:
        patch.setattr("train.record._append", no_append)
        log(record, 2, 1.0)  # all ranks go on to the agreement
        assert isinstance(record.error, NoRoom)
        log(record, 3, 1.0)  # no more is tried
    with pytest.raises(NoRoom, match=full):
        record.close()
    now = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    (failed,) = (name for name in whole if full in name)
    assert now[failed] == whole[failed]
    assert b'"step": 3' not in now["log.jsonl"]


def test_half_a_line_is_taken_back(tmp_path, small_disk):
    from train.record import _append

    with small_disk(64_000) as disk:
        path = disk / "log.jsonl"
        _append(path, b"x" * 40_000)
        with pytest.raises(NoRoom, match=r"no room in .* for log.jsonl"):
            _append(path, b"y" * 40_000)
        assert path.read_bytes() == b"x" * 40_000


def test_tensorboard_reads_what_was_written(alone, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = Record(tmp_path, 7, 2, 0, 1.0, 1.0)
    log(record, 8, 1.5)
    record.add("probe", 0.25, 8)
    record.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(8, 1.5)]
    assert [(e.step, e.value) for e in read.Scalars("probe")] == [(8, 0.25)]
    assert "step" not in read.Tags()["scalars"]


# ---- what one rank alone meets -------------------------------------------------------------------


class Broken(torch.utils.data.Dataset):
    """Batches of which step 1 cannot be read."""

    def __init__(self, error: BaseException):
        self.error = error

    def __getitem__(self, step: int):
        if step == 1:
            raise self.error
        return torch.zeros(2)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("train-000000.tar: the crop of row 3 is broken"), "train-000000.tar: the crop"),
        (NoRoom("no room in /tmp for train-000000.tar"), "no room in /tmp for train"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/a.tar"), "/a.tar"),
    ],
    ids=["broken", "full", "gone"],
)
def test_a_batch_that_cannot_be_read_is_one_sentence(error, said, workers):
    steps = loader(Broken(error), range(3), World(0, 1, torch.device("cpu")), workers)
    with pytest.raises(Unreadable) as caught:
        list(steps)
    assert said in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_ranks_do_not_take_a_peers_end_for_their_own_fault():
    words = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:7"
    assert is_alone(RuntimeError(words))
    assert not is_alone(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
