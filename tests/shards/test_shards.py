"""The shards stage: windows, codecs, tars, mixing, order, reading."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shards import read
from shards.cells import kept_cells
from shards.crop import cut, decode, decode_into, encode, inside, window_px
from shards.mix.direct import BUFFERS, read_blocks, write_blocks
from shards.mix.mix import mix
from shards.read import Shards, stream
from shards.schema import CROP_PX, SLIDE_ID, VIEW_PX, check_slide_id, key
from shards.write import TarWriter, atomic

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (200, 260, 3), dtype=np.uint8)


# ---- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.25, 0.2426, 0.2574])
def test_cut_at_40x_copies_pixels(mpp):
    crop = cut(NOISE, [[100, 80]], mpp, CROP_PX)[0]
    assert np.array_equal(crop, NOISE[50:110, 70:130])
    # The window's centre, (70 + 129) / 2 = 99.5, is the nearest there is to 100 for an even side.


@given(x=st.floats(30, 220), y=st.floats(30, 160))
def test_cut_is_centred_to_half_a_pixel(x, y):
    ramp = np.zeros((200, 260, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(260) % 256, np.arange(200)[:, None]
    if inside([[x, y]], 260, 200, 0.25, 40)[0] and x + 20 < 255:
        crop = cut(ramp, [[x, y]], 0.25, 40)[0].astype(float)
        assert abs(crop[..., 0].mean() - x) <= 0.5
        assert abs(crop[..., 1].mean() - y) <= 0.5


@pytest.mark.parametrize("mpp", [0.2125, 0.274, 0.5, 0.125])
def test_cut_resamples_the_exact_window(mpp):
    """On a ramp, a resampled pixel's value is the coordinate of its centre."""
    ramp = np.repeat(np.arange(240, dtype=np.uint8)[None, :, None], 240, 0).repeat(3, 2)
    x = 120.3
    crop = cut(ramp, [[x, 120]], mpp, 60)[0].astype(float)
    step = 0.25 / mpp  # image px in a crop px
    expected = x + (np.arange(60) - 29.5) * step
    assert np.abs(crop[30, 2:-2, 0] - expected[2:-2]).max() <= 0.51  # rounding to whole greys


def test_cut_at_another_scale_equals_pillow_on_the_whole_image():
    crop = cut(NOISE, [[130.2, 100.7]], 0.2125, 40)[0]
    side = window_px(0.2125, 40)
    left, top = 130.7 - side / 2, 101.2 - side / 2
    box = (left, top, left + side, top + side)
    whole = Image.fromarray(NOISE).resize((40, 40), Image.Resampling.BICUBIC, box=box)
    assert np.abs(crop.astype(int) - np.asarray(whole, int)).max() <= 1


@pytest.mark.parametrize("mpp", [0.25, 0.4])
def test_window_beyond_the_border_is_refused_or_filled(mpp):
    with pytest.raises(ValueError, match="1 of 2 windows leave the image"):
        cut(NOISE, [[130, 100], [5, 100]], mpp, 60)
    crop = cut(NOISE, [[0, 100]], mpp, 60, fill=255)[0]
    assert (crop[:, :25] == 255).all()
    assert (crop[:, 40:] != 255).any()
    far = cut(NOISE, [[-500, 100], [130, 900]], mpp, 60, fill=7)
    assert (far == 7).all()


@given(st.integers(1, 100), st.integers(1, 100), st.floats(0.1, 1), st.floats(-50, 150))
def test_inside_agrees_with_cut(width, height, mpp, x):
    image = np.zeros((height, width, 3), np.uint8)
    if inside([[x, height / 2]], width, height, mpp, 16)[0]:
        assert cut(image, [[x, height / 2]], mpp, 16).shape == (1, 16, 16, 3)
    else:
        with pytest.raises(ValueError, match="leave the image"):
            cut(image, [[x, height / 2]], mpp, 16)


# ---- codecs and tars -----------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["png", "webp"])
def test_lossless_codecs(codec):
    assert np.array_equal(decode(encode(NOISE, codec)), NOISE)


def test_jpeg_is_close_444_and_read_alike_by_pillow():
    smooth = np.asarray(Image.fromarray(NOISE[:20, :20]).resize((60, 60), Image.Resampling.BICUBIC))
    data = encode(smooth, "jpeg")
    assert encode(smooth, "jpeg") == data
    error = (decode(data).astype(float) - smooth) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 33
    image = Image.open(io.BytesIO(data))
    assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no chroma subsampling
    assert np.abs(np.asarray(image, int) - decode(data)).max() <= 1


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8 cut off"])
def test_decode_refuses_what_is_no_image(data):
    with pytest.raises(ValueError, match=r".+"):
        decode(data)


@given(st.lists(st.binary(max_size=2000), max_size=12))
def test_tar_is_read_by_tarfile_and_offsets_are_true(members):
    file = io.BytesIO()
    tar = TarWriter(file)
    offsets = [tar.add(f"m_{i:07d}.jpg", data) for i, data in enumerate(members)]
    tar.close()
    raw = file.getvalue()
    assert len(raw) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(raw)) as read:
        found = read.getmembers()
        assert [m.name for m in found] == [f"m_{i:07d}.jpg" for i in range(len(members))]
        assert [read.extractfile(m).read() for m in found] == members
        assert all((m.mtime, m.uid, m.gid, m.mode) == (0, 0, 0, 0o644) for m in found)
    for offset, data in zip(offsets, members, strict=True):
        assert raw[offset : offset + len(data)] == data


def test_atomic_leaves_whole_files_only(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail():
        with atomic(path) as file:
            file.write(b"half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    with atomic(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


# ---- ids -----------------------------------------------------------------------------------------


@given(st.from_regex(SLIDE_ID, fullmatch=True), st.integers(0, 9_999_999))
def test_an_accepted_id_survives_webdatasets_key(slide, nucleus):
    name = f"{key(check_slide_id(slide), nucleus)}.jpg"
    assert webdataset.tariterators.base_plus_ext(name) == (key(slide, nucleus), "jpg")
    assert len(name) <= 100


@pytest.mark.parametrize("slide", ["", "a.b", "a/b", "-rf", "../x", "ü", "x" * 81, "a\n"])
def test_bad_ids_are_refused(slide):
    with pytest.raises(ValueError, match="slide id"):
        check_slide_id(slide)


# ---- mixing and reading --------------------------------------------------------------------------


def source_crops(cells: Path) -> dict[str, bytes]:
    """Return every crop of the cells folder by its key."""
    crops = {}
    for path in cells.glob("*.tar"):
        with tarfile.open(path) as tar:
            crops |= {m.name.split(".")[0]: tar.extractfile(m).read() for m in tar}
    return crops


def test_mix_moves_every_crop_once(cells, shards_folder):
    expected = source_crops(cells)
    found = []
    for path in sorted(shards_folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [(m.name.split(".")[0], tar.extractfile(m).read()) for m in tar]
    assert len(found) == len(expected) > 100
    assert dict(found) == expected
    assert [k for k, _ in found] != sorted(expected)
    sizes = [
        s["samples"] for s in json.loads((shards_folder / "dataset.json").read_text())["shards"]
    ]
    assert set(sizes[:-1]) == {50}
    assert sum(sizes) == len(expected)


def test_webdataset_reads_every_tar(shards_folder):
    shards = Shards(shards_folder)
    rows = shards.index.to_pylist()
    number = 0
    for path in sorted(shards_folder.glob("*.tar")):
        for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
            row = rows[number]
            assert sample["__key__"] == key(row["slide"], row["nucleus"])
            assert sample["jpg"] == bytes(shards.data(number))
            number += 1
    assert number == len(shards)


def test_read_equals_the_stream(shards_folder):
    shards = Shards(shards_folder)
    crops = shards.read(np.arange(len(shards)))
    assert crops.shape == (len(shards), 3, CROP_PX, CROP_PX)
    urls = [str(p) for p in sorted(shards_folder.glob("*.tar"))]
    for crop, (_, streamed) in zip(crops, stream(urls), strict=True):
        assert np.array_equal(crop, streamed.transpose(2, 0, 1))
    pick = [7, 3, 3]
    assert np.array_equal(shards.read(pick), crops[pick])


def test_reading_many_shards_keeps_few_open(shards_folder, monkeypatch):
    shards, most = Shards(shards_folder), 0
    count = len(shards.info["shards"])
    assert count > 4
    rows = np.random.default_rng(0).permutation(len(shards))
    expected = shards.read(rows)

    def counted(data, out):
        nonlocal most
        most = max(most, len(os.listdir("/proc/self/fd")))
        decode_into(data, out)

    monkeypatch.setattr(read, "OPEN", 2)
    monkeypatch.setattr(read, "decode_into", counted)
    again = Shards(shards_folder)
    before = len(os.listdir("/proc/self/fd"))
    np.testing.assert_array_equal(again.read(rows), expected)
    assert most <= before + 2 + 1  # what is being opened is there, too


def test_rows_of_the_index_are_those_of_the_whole(shards_folder):
    shards, columns = Shards(shards_folder), ["slide", "nucleus", "x", "label"]
    rows = np.sort(np.random.default_rng(0).choice(len(shards), 40, replace=False))
    assert shards.rows(rows, columns).to_pydict() == (
        shards.index.take(rows).select(columns).to_pydict()
    )
    assert shards.rows(rows[:0], columns).num_rows == 0


def test_index_keeps_where_each_cell_came_from(cells, shards_folder):
    index = Shards(shards_folder).index.to_pylist()
    slides, _ = kept_cells(cells)
    projects = {s["slide"]: s["project"] for s in slides}
    for slide in projects:
        table = pq.read_table(cells / f"{slide}.parquet").to_pylist()
        mine = [r for r in index if r["slide"] == slide]
        assert len(mine) == sum(r["fate"] == "kept" for r in table)
        for row in mine:
            origin = table[row["nucleus"]]
            assert (row["x"], row["y"], row["size"]) == (origin["x"], origin["y"], origin["size"])
            assert row["project"] == projects[slide]


def test_channel_statistics(shards_folder):
    shards = Shards(shards_folder)
    low = (CROP_PX - VIEW_PX) // 2
    crops = shards.read(np.arange(len(shards)))
    views = crops[:, :, low : low + VIEW_PX, low : low + VIEW_PX] / 255
    assert np.allclose(shards.info["mean"], views.mean((0, 2, 3)))
    assert np.allclose(shards.info["std"], views.std((0, 2, 3)))


def test_mix_is_a_function_of_cells_and_seed(cells, shards_folder, tmp_path):
    mix(cells, tmp_path / "again", 50, seed=0)
    mix(cells, tmp_path / "other", 50, seed=1)
    for path in shards_folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (tmp_path / "other/train-000000.tar").read_bytes() != (
        shards_folder / "train-000000.tar"
    ).read_bytes()


def test_mix_again_does_nothing_and_other_settings_are_refused(cells, tmp_path):
    out = tmp_path / "s"
    mix(cells, out, 50, seed=0)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    mix(cells, out, 50, seed=0)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(ValueError, match=r"other cells or settings.*--overwrite"):
        mix(cells, out, 60, seed=0)
    assert mix(cells, out, 1000, seed=0, overwrite=True)["shards"][0]["name"] == "train-000000.tar"
    assert len(list(out.glob("*.tar"))) == 1


# ---- bad input -----------------------------------------------------------------------------------


def test_mix_refuses_a_tar_of_another_run(cells, tmp_path):
    mine = Path(shutil.copytree(cells, tmp_path / "cells"))
    a, b = sorted(mine.glob("*.tar"))
    shutil.copy(a, b)
    with pytest.raises(ValueError, match="damaged or of another run"):
        mix(mine, tmp_path / "out", 50, seed=0)
    assert not (tmp_path / "out/dataset.json").exists()


def test_commands_name_what_is_wrong(run_stage, tmp_path):
    for folder, message in [(tmp_path / "none", "no folder"), (tmp_path, "no finished slide")]:
        done = run_stage("shards/main.py", "mix", folder, "--out", tmp_path / "out")
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_shards_names_what_is_wrong(shards_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        Shards(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no finished shards"):
        Shards(tmp_path)
    copy = Path(shutil.copytree(shards_folder, tmp_path / "copy"))
    tar = copy / "train-000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1000])
    with pytest.raises(ValueError, match=r"train-000001\.tar"):
        Shards(copy)
    tar.write_bytes(whole)
    index = pq.read_table(copy / "index.parquet")
    pq.write_table(index.slice(1), copy / "index.parquet")
    with pytest.raises(ValueError, match="two data sets"):
        Shards(copy)
    pq.write_table(index, copy / "index.parquet")
    row = index.slice(50, 1).to_pylist()[0]
    start = row["offset"]
    tar.write_bytes(whole[:start] + bytes(100) + whole[start + 100 :])
    with pytest.raises(ValueError, match=r"train-000001.tar: the crop of index row 50"):
        Shards(copy).read([50])


# ---- past the cache ------------------------------------------------------------------------------


@settings(max_examples=30)
@given(pieces=st.lists(st.integers(0, 40), min_size=1, max_size=4), data=st.data())
@pytest.mark.parametrize("place", ["disk", "memory"])
def test_direct_reads_what_direct_wrote(tmp_path_factory, place, pieces, data):
    """On a file system that can, and on one (tmpfs) that may not."""
    folder = tmp_path_factory.mktemp("direct") if place == "disk" else Path("/dev/shm")
    if not folder.is_dir():
        pytest.skip("no tmpfs")
    path = folder / f"lemon-direct-{os.getpid()}"
    sizes = [8 * n for n in pieces[:-1]] + pieces[-1:]  # whole pages but for the last
    expected = b""
    with open(path, "wb") as file:
        for size in sizes:
            blocks = BUFFERS.take("test", size)
            blocks[:] = RNG.integers(0, 256, blocks.shape, dtype=np.uint8)
            write_blocks(file.fileno(), len(expected) // 512, blocks)
            expected += blocks.tobytes()
    assert path.read_bytes() == expected
    begin = data.draw(st.integers(0, len(expected) // 4096)) * 4096
    out = BUFFERS.take("test", 8 * data.draw(st.integers(1, 40)))
    with open(path, "rb") as file:
        found = read_blocks(file.fileno(), begin // 512, out)
    assert found == min(out.nbytes, len(expected) - begin)
    assert out.tobytes()[:found] == expected[begin : begin + found]
    path.unlink()
