"""Errors that a user can act on: full disks in every library's words, sentences, exit codes."""

import errno
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import CURES, NoRoom, explain, is_full, report, room, size
from shards.write import atomic

PIXELS = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)  # 3 MB


@pytest.fixture
def disk(small_disk):
    """A file system of 1 MB."""
    with small_disk(1_024_000) as folder:
        yield folder


def plain(file):
    file.write(PIXELS.tobytes())


def numpy(file):
    np.save(file, PIXELS)


def parquet(file):
    pq.write_table(pa.table({"x": PIXELS.reshape(-1)}), file, compression=None)


def arrow(file):
    table = pa.table({"x": PIXELS.reshape(-1)})
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def torch_file(file):
    import torch

    torch.save({"x": torch.from_numpy(PIXELS)}, file)


def torch_path(file):
    import torch

    torch.save({"x": torch.from_numpy(PIXELS)}, file.name)


def safetensors(file):
    from safetensors.numpy import save_file

    save_file({"x": PIXELS}, file.name)


def hdf5(file):
    import h5py

    with h5py.File(file.name, "w") as root:
        root["x"] = PIXELS


def picture(file):
    from PIL import Image

    Image.fromarray(PIXELS).save(file, format="png")


@pytest.mark.parametrize(
    "write",
    [plain, numpy, parquet, arrow, torch_file, torch_path, safetensors, hdf5, picture],
    ids=lambda f: f.__name__,
)
def test_a_full_disk_is_told_alike_whichever_library_writes(disk, write):
    (disk / "good").write_bytes(b"kept")
    said = r"no room in \S*full for file: 1\.02 MB free; make room"
    with pytest.raises(NoRoom, match=said), atomic(disk / "file") as file:
        write(file)
    assert [p.name for p in disk.iterdir()] == ["good"]  # nothing half written takes the room


def test_what_is_needed_and_what_is_free_is_said(disk):
    with (
        pytest.raises(
            NoRoom, match=r"for file: at least 3\.15 MB needed, 1\.02 MB free; make room"
        ),
        atomic(disk / "file", needed=PIXELS.nbytes) as file,
    ):
        file.write(PIXELS.tobytes())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_error_while_the_file_is_closed_counts(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    said = "the quota is used up" if number == errno.EDQUOT else "free"
    said = f"for file: .*{said}"
    with pytest.raises(NoRoom, match=said), atomic(tmp_path / "file") as file:
        file.write(b"12345")
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_as_they_are(tmp_path):
    for error in (ValueError("3 requested and 4 found"), OSError(errno.EIO, "Input/output error")):
        with pytest.raises(type(error)) as caught, atomic(tmp_path / "file"), room(tmp_path):
            raise error
        assert caught.value is error
        assert not is_full(error)


SENTENCES = [
    (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: permission denied; look"),
    (OSError(errno.EROFS, "Read-only file system", "/a/b"), "/a/b: read-only file system; name"),
    (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/a/b"), "/a/b: not a directory; a part"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "/a/b"), "/a/b: file name too long; short"),
    (IsADirectoryError(errno.EISDIR, "Is a directory", b"/a"), "/a: is a directory; this is a"),
    (OSError(errno.EMFILE, "Too many open files", "/a"), "/a: too many open files; raise the"),
    (OSError(errno.EIO, "Input/output error", "/a"), "/a: input/output error; the disk or"),
    (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "no room in /tmp for x: "),
    (OSError(errno.ENOSPC, "No space left on device"), "no room on the disk ([Errno 28] No space"),
    (OSError(errno.EXDEV, "Invalid cross-device link", "/a", None, "/b"), "/b: invalid cross-dev"),
    (OSError("words of our own"), "words of our own"),
    (ValueError("words of our own"), "words of our own"),
    (OSError(errno.ENOENT, "Failed to open local file 'x'"), "Failed to open local file 'x'"),
    (RuntimeError(". unexpected pos 704 vs 598"), "no room on the disk (. unexpected pos"),
    (RuntimeError(), "RuntimeError"),
]


@pytest.mark.parametrize(("error", "said"), SENTENCES, ids=lambda v: str(v)[:40])
def test_an_error_becomes_a_sentence_and_an_exit_code(error, said, capsys):
    assert explain(error).startswith(said)
    code = 2 if isinstance(error, FileNotFoundError | ValueError) else 1
    assert report(error, "rank 1: ") == code
    assert capsys.readouterr().err.startswith(f"error: rank 1: {said}")


def test_every_cure_is_of_an_error_the_system_knows():
    assert all(os.strerror(number) and cure for number, cure in CURES.items())
    assert [size(n) for n in (7, 1500, 90e6, 25e9)] == [
        "7 bytes",
        "1.5 kB",
        "90 MB",
        "25 GB",
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["extract/main.py", "{slides}", "--out", "{out}"],
        ["shards/main.py", "mix", "{cells}", "--out", "{out}"],
        ["train/main.py", "plot", "{run}", "--out", "{out}"],
        ["evaluate/main.py", "table", "{results}", "--out", "{out}"],
    ],
    ids=lambda c: c[0],
)
@pytest.mark.parametrize("what", ["file in the way", "name too long"])
def test_a_place_that_cannot_be_written_is_a_sentence(
    run_stage, painted, cells, tmp_path, command, what
):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out" if what == "file in the way" else tmp_path / ("x" * 300) / "out"
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n')
    places = {"out": out, "slides": painted, "cells": cells, "run": run, "results": tmp_path}
    done = run_stage(*[word.format(**places) for word in command])
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert done.returncode in (1, 2)


def test_an_error_that_led_to_itself_is_a_sentence():
    """`raise error from error`, and longer circles, would be followed without end."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__ = one
    assert explain(one) == "one" and not is_full(one)
    one.__cause__, other.__cause__ = other, one
    assert explain(one) == "one"
    other.__cause__.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert is_full(other)
