"""Mixing: nothing lost, bounded pieces, parts, kills at any moment, selections."""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.cells import kept_cells
from shards.crop import encode
from shards.errors import NoRoom
from shards.mix import direct
from shards.mix.layout import SHUFFLE, lay_out
from shards.mix.mix import mix
from shards.order import permute
from shards.read import Shards
from shards.schema import CELL_COLUMNS, FATES, key
from shards.write import TarWriter

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
# Of 1 to 12 kB, so that members take different numbers of blocks.
CROPS = [
    encode((RNG.normal(150, spread, (60, 60, 3))).clip(0, 255).astype(np.uint8), "jpeg")
    for spread in (0, 3, 10, 20, 40, 60)
]


def write_cells(
    folder: Path, slides: dict[str, list[int]], project=lambda slide: slide[:1]
) -> Path:
    """Write a cells folder as extract does: slide -> which of CROPS its nuclei show.

    Every third nucleus was dropped, so that numbers of nuclei and of members differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for slide, crops in slides.items():
        file = io.BytesIO()
        tar = TarWriter(file)
        rows = []
        for number in range(len(crops) * 3 // 2):
            row = {"nucleus": number, "x": number * 2.0, "y": 7.0, "area_um2": number + 0.5}
            if number % 3 == 2:
                rows.append(row | {"fate": "edge"})
                continue
            data = CROPS[crops[number * 2 // 3]]
            offset = tar.add(f"{key(slide, number)}.jpg", data)
            rows.append(row | {"fate": "kept", "offset": offset, "size": len(data), "label": "t"})
        sha256 = tar.close()
        (folder / f"{slide}.tar").write_bytes(file.getvalue())
        schema = pa.schema([f if f.name != "fate" else ("fate", pa.string()) for f in CELL_COLUMNS])
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, folder / f"{slide}.parquet")
        kept = sum(r["fate"] == "kept" for r in rows)
        record = {
            "slide": slide,
            "project": project(slide),
            "outcome": "done",
            "settings": {"codec": "jpeg"},
            "sha256": sha256,
            "fates": dict.fromkeys(FATES, 0) | {"kept": kept},
        }
        (folder / f"{slide}.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A folder of 12 slides with 5 to 60 cells, 384 in all."""
    slides = {f"S{i:02d}": RNG.integers(0, 6, 10 + 4 * i).tolist() for i in range(12)}
    return write_cells(tmp_path_factory.mktemp("many"), slides)


@pytest.fixture(scope="module")
def mixed(many, tmp_path_factory) -> Path:
    """The same, mixed in one go."""
    out = tmp_path_factory.mktemp("mixed") / "s"
    assert mix(many, out, 30, seed=5)
    return out


SMALL = 0.002  # GB: spill files and groups of 250 kB


def same(a: Path, b: Path) -> bool:
    """Tell whether two folders hold the same files, to the byte, and nothing else."""
    one, other = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (a, b))
    return one == other


# ---- what comes out ------------------------------------------------------------------------------


def test_the_shuffle_is_the_one_that_is_written_down(many, mixed):
    """Against the plain way: all cells in memory, each put at its place, tars written in turn."""
    members = []
    for path in sorted(many.glob("*.tar")):
        with tarfile.open(path) as tar:
            members += [(m.name, tar.extractfile(m).read()) for m in tar]
    places = permute(np.arange(len(members)), len(members), (5, SHUFFLE))
    shuffled = [members[i] for i in np.argsort(places)]
    for number, start in enumerate(range(0, len(members), 30)):
        file = io.BytesIO()
        tar = TarWriter(file)
        offsets = [tar.add(*member) for member in shuffled[start : start + 30]]
        sha256 = tar.close()
        assert (mixed / f"train-{number:06d}.tar").read_bytes() == file.getvalue()
        described = json.loads((mixed / "dataset.json").read_text())["shards"][number]
        assert described["sha256"] == sha256
        index = Shards(mixed).index.slice(start, len(offsets)).to_pydict()
        assert index["offset"] == offsets
        names = [key(s, n) for s, n in zip(index["slide"], index["nucleus"], strict=True)]
        assert [f"{n}.jpg" for n in names] == [m[0] for m in shuffled[start : start + 30]]


@settings(max_examples=15)
@given(
    slides=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=40), min_size=1, max_size=6),
    samples_per_shard=st.integers(1, 30),
    pieces=st.integers(1, 4),
    data=st.data(),
)
def test_mix_conserves_every_cell(tmp_path_factory, slides, samples_per_shard, pieces, data):
    """Whatever the slides, shards, pieces and parts: each (key, bytes) once."""
    folder = tmp_path_factory.mktemp("conserve")
    cells = write_cells(folder / "cells", {f"S{i}": crops for i, crops in enumerate(slides)})
    total = sum(p.stat().st_size for p in cells.glob("*.tar"))
    a_shard = 2 * 14_000 * samples_per_shard
    memory = max(4 * a_shard, total * 8 // pieces) / 1e9
    parts = data.draw(st.integers(1, 3))
    for _ in range(3):
        for part in data.draw(st.permutations(range(parts))):
            info = mix(
                cells, folder / "s", samples_per_shard, 1, part=part, parts=parts, memory=memory
            )
    found = []
    for path in sorted((folder / "s").glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [(m.name, tar.extractfile(m).read()) for m in tar]
    expected = []
    for path in cells.glob("*.tar"):
        with tarfile.open(path) as tar:
            expected += [(m.name, tar.extractfile(m).read()) for m in tar]
    assert sorted(found) == sorted(expected)
    assert info["samples"] == len(expected)
    shutil.rmtree(folder)


def test_spill_files_and_memory_change_nothing(many, mixed, tmp_path):
    layout = lay_out(many, None, 30, 5, SMALL)
    assert len(layout.spills) >= 5
    assert len(layout.groups) >= 5
    mix(many, tmp_path / "s", 30, seed=5, memory=SMALL)
    assert same(tmp_path / "s", mixed)


def test_a_slide_larger_than_the_memory_is_cut(tmp_path):
    cells = write_cells(tmp_path / "cells", {"A": [5] * 90, "B": [0, 1]})
    layout = lay_out(cells, None, 10, 0, SMALL)
    assert sum(p.slide == 0 for rows in layout.spills for p in rows) >= 4
    mix(cells, tmp_path / "small", 10, 0, memory=SMALL)
    mix(cells, tmp_path / "large", 10, 0)
    assert same(tmp_path / "small", tmp_path / "large")
    with pytest.raises(ValueError, match=r"a shard of 90 samples .* more --memory"):
        mix(cells, tmp_path / "none", 90, 0, memory=SMALL)


def test_another_tar_writers_headers_become_ours(many, mixed, tmp_path):
    """A cells tar written with owners and times gives the same shards."""
    cells = Path(shutil.copytree(many, tmp_path / "cells"))
    path = cells / "S03.tar"
    with tarfile.open(path) as tar:
        members = [(m, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.mtime, member.uname = 12345, "somebody"
            tar.addfile(member, io.BytesIO(data))
    mix(cells, tmp_path / "s", 30, seed=5)
    assert same(tmp_path / "s", mixed)


# ---- parts, kills, copies ------------------------------------------------------------------------


def test_parts_in_any_order_give_the_same(many, mixed, tmp_path, caplog):
    out = tmp_path / "s"
    caplog.set_level("INFO")
    done = [
        mix(many, out, 30, 5, part=part, parts=3, memory=SMALL) for part in (2, 0, 1, 1, 0, 2, 0)
    ]
    assert done[0] is None
    assert "spill files left. Run the same command again" in caplog.text
    assert "shards left. Run the same command again" in caplog.text
    assert done[-1]["samples"] == 384
    assert same(out, mixed)


def test_a_run_without_part_does_what_is_left(many, mixed, tmp_path):
    assert mix(many, tmp_path / "s", 30, 5, part=1, parts=4, memory=SMALL) is None
    assert mix(many, tmp_path / "s", 30, 5, memory=SMALL)
    assert same(tmp_path / "s", mixed)


def test_an_unfinished_mix_is_not_mixed_with_another(many, tmp_path):
    assert mix(many, tmp_path / "s", 30, 5, part=0, parts=2, memory=SMALL) is None
    with pytest.raises(ValueError, match="unfinished mix of other cells or settings"):
        mix(many, tmp_path / "s", 30, 6, memory=SMALL)
    with pytest.raises(ValueError, match="--overwrite would delete what the other parts"):
        mix(many, tmp_path / "s", 30, 5, overwrite=True, part=0, parts=2)
    with pytest.raises(ValueError, match="parts count from 0 to 1"):
        mix(many, tmp_path / "s", 30, 5, part=2, parts=2)
    assert mix(many, tmp_path / "s", 30, 6, overwrite=True)["seed"] == 6


class Killed(BaseException):
    """What a test raises in the place of a kill."""


def test_stopped_at_every_rename_the_rerun_gives_the_same(tmp_path, monkeypatch):
    """Each file appears by one rename: stop before and after each of them in turn."""
    cells = write_cells(tmp_path / "cells", {f"S{i}": [i, 5, 3, 1, 5] * 3 for i in range(3)})
    mix(cells, tmp_path / "straight", 12, 5, memory=SMALL / 2)
    replace = os.replace
    for moment in range(1000):
        left = [moment]

        def stop(source, target, left=left):
            if not left[0]:
                raise Killed
            left[0] -= 1
            replace(source, target)
            if not left[0]:
                raise Killed

        out = tmp_path / f"s{moment}"
        monkeypatch.setattr(os, "replace", stop)
        try:
            mix(cells, out, 12, 5, memory=SMALL / 2)
            break
        except Killed:
            monkeypatch.setattr(os, "replace", replace)
        mix(cells, out, 12, 5, memory=SMALL / 2)
        assert same(out, tmp_path / "straight"), moment
    assert moment > 12


def test_killed_at_random_moments_the_rerun_gives_the_same(many, mixed, tmp_path):
    """SIGKILL, again and again, until a run gets through."""
    script = (
        f"import sys; sys.path[0] = {str(ROOT)!r}\n"
        "from pathlib import Path; from shards.mix.mix import mix; print('go', flush=True)\n"
        f"mix(Path({str(many)!r}), Path({str(tmp_path / 's')!r}), 30, 5, memory={SMALL})"
    )
    moments = np.random.default_rng(1).uniform(0, 0.25, 6)
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        with process:
            process.stdout.readline()
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    assert same(tmp_path / "s", mixed)


def test_two_copies_at_once_do_no_harm(run_stage, many, mixed, tmp_path):
    command = [sys.executable, ROOT / "shards/main.py", "mix", many, "--out", tmp_path / "s"]
    command = [*map(str, command), "--samples-per-shard", "30", "--seed", "5"]
    copies = [subprocess.Popen([*command, "--memory", str(SMALL)]) for _ in range(2)]
    assert [copy.wait() for copy in copies] == [0, 0]
    run_stage(*command[1:])  # clears what the slower may have left
    assert same(tmp_path / "s", mixed)


def test_lost_and_changed_cells_are_noticed(many, tmp_path):
    out = tmp_path / "s"
    for part in (0, 1):
        mix(many, out, 30, 5, part=part, parts=2, memory=SMALL)
    spill = next((out / ".mix").glob("spill-*.bin"))
    whole = bytearray(spill.read_bytes())
    whole[700] ^= 8
    spill.write_bytes(whole)
    with pytest.raises(ValueError, match="1 cells changed between reading and writing"):
        mix(many, out, 30, 5, memory=SMALL)
    spill.write_bytes(whole[:2000])
    with pytest.raises(ValueError, match="is cut short"):
        mix(many, out, 30, 5, memory=SMALL)
    assert not (out / "dataset.json").exists()


# ---- disks and damaged cells ---------------------------------------------------------------------


def test_a_file_system_without_direct_transfers_gives_the_same(many, mixed, tmp_path, monkeypatch):
    transfer, refused = os.pwritev, []

    def refuse(descriptor, buffers, offset):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & direct.DIRECT:
            refused.append(descriptor)
            raise OSError(errno.EINVAL, "Invalid argument")
        return transfer(descriptor, buffers, offset)

    monkeypatch.setattr(os, "pwritev", refuse)
    mix(many, tmp_path / "s", 30, seed=5, memory=SMALL)
    assert refused
    assert same(tmp_path / "s", mixed)


def test_a_full_disk_ends_in_a_sentence_and_the_rerun_goes_on(many, mixed, tmp_path, monkeypatch):
    """A disk that is too small is seen before, one that others fill when it is full."""
    write, left = os.pwritev, [200_000]

    def fill(descriptor, buffers, offset):
        left[0] -= sum(map(len, buffers))
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, buffers, offset)

    out = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(NoRoom, match=r"no room .*spill files and the shards: .*1 kB free"):
            mix(many, out, 30, 5, memory=SMALL)
        assert [path.name for path in (out / ".mix").iterdir()] == ["plan.json"]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", fill)
        with pytest.raises(NoRoom, match=r"no room in .* for spill-\d+\.bin: .* free; make room"):
            mix(many, out, 30, 5, memory=SMALL)
    assert not list(out.rglob("*.tmp"))
    mix(many, out, 30, 5, memory=SMALL)
    assert same(out, mixed)


def test_a_last_padding_may_be_absent(many, mixed, tmp_path):
    cells = Path(shutil.copytree(many, tmp_path / "cells"))
    whole = (cells / "S11.tar").read_bytes()
    (cells / "S11.tar").write_bytes(whole.rstrip(b"\0"))
    mix(cells, tmp_path / "s", 30, seed=5, memory=SMALL)
    assert same(tmp_path / "s", mixed)


def test_a_broken_crop_is_named(tmp_path):
    cells = write_cells(tmp_path / "cells", {"S": [0] * 20})
    whole = (cells / "S.tar").read_bytes()
    (cells / "S.tar").write_bytes(whole.replace(b"\xff\xd8\xff", bytes(3), 1))
    with pytest.raises(ValueError, match=r"nucleus 0 of S is broken .* extract that slide again"):
        mix(cells, tmp_path / "s", 30, seed=5)
    assert not (tmp_path / "s/dataset.json").exists()


def test_kept_cells_are_all_in_memory(many):
    slides, table = kept_cells(many)
    assert len(table) == sum(s["cells"] for s in slides) == 384
    digest = hashlib.sha256((many / "S00.tar").read_bytes()).hexdigest()
    assert slides[0] == {
        "slide": "S00",
        "project": "S",
        "codec": "jpeg",
        "sha256": digest,
        "cells": 10,
    }
