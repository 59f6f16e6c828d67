"""Fingerprints of tar members, and the headers that name them."""

import io
import tarfile

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shards.fingerprint import checksum, fingerprint, member_blocks
from shards.schema import key, member_names
from shards.write import TarWriter, headers

RNG = np.random.default_rng(0)


@given(st.lists(st.binary(max_size=1500), min_size=1, max_size=8), st.data())
def test_fingerprints_see_every_change_but_no_order(members, data):
    def blocks_of(parts):
        file = io.BytesIO()
        tar = TarWriter(file)
        for i, part in parts:
            tar.add(f"m_{i:07d}.jpg", part)
        raw = file.getvalue()
        return np.frombuffer(raw, np.uint8).reshape(-1, 512), member_blocks(
            [len(part) for _, part in parts]
        )

    parts = list(enumerate(members))
    hashes = fingerprint(*blocks_of(parts))
    order = data.draw(st.permutations(range(len(parts))))
    moved = fingerprint(*blocks_of([parts[i] for i in order]))
    assert np.array_equal(moved, hashes[order])
    assert checksum(moved) == checksum(hashes)
    blocks, counts = blocks_of(parts)
    changed = blocks.copy()
    bit = data.draw(st.integers(0, changed.size * 8 - 1))
    changed.reshape(-1)[bit // 8] ^= 1 << bit % 8
    assert checksum(fingerprint(changed, counts)) != checksum(hashes)


def test_headers_are_tar_writers():
    names, sizes = ["a_0000001.jpg", "b" * 80 + "_1234567.webp"], [0, 8**11 - 1]
    for name, size, header in zip(names, sizes, headers(names, sizes), strict=True):
        file = io.BytesIO()
        TarWriter(file).add(name, b"x" * min(size, 1))
        info = tarfile.TarInfo.frombuf(bytes(header), "ascii", "strict")
        assert (info.name, info.size, info.mtime) == (name, size, 0)
    many = [(f"s_{i:07d}.jpg", int(s)) for i, s in enumerate(RNG.integers(0, 9000, 300))]
    table = headers([n for n, _ in many], np.array([s for _, s in many]))
    assert np.array_equal(
        table, headers(member_names("s", np.arange(300), "jpeg"), np.array([s for _, s in many]))
    )
    for (name, size), header in zip(many, table, strict=True):
        file = io.BytesIO()
        TarWriter(file).add(name, bytes(size))
        assert file.getvalue()[:512] == bytes(header)


@given(st.lists(st.integers(0, 2**31 - 1)), st.sampled_from(["jpeg", "webp"]))
def test_member_names_are_keys(nuclei, codec):
    found = member_names("S-1 x", np.array(nuclei, np.int32), codec).astype(str).tolist()
    extension = {"jpeg": "jpg", "webp": "webp"}[codec]
    assert found == [f"{key('S-1 x', nucleus)}.{extension}" for nucleus in nuclei]
