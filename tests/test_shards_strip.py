"""Strips: crops decoded many at a time are the crops decoded one by one, or refused like them."""

from unittest import mock

import numpy as np
import openslide
import simplejpeg
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shards import strip
from shards.crop import decode, decode_into, encode
from shards.strip import decode_batch

RNG = np.random.default_rng(0)


def noise(spread: float) -> bytes:
    """Encode a crop of grey noise."""
    return encode(RNG.normal(150, spread, (60, 60, 3)).clip(0, 255).astype(np.uint8), "jpeg")


CROPS = [noise(spread) for spread in (0, 1, 3, 10, 40)]
HEADER = CROPS[0].index(b"\xff\xda") + 14  # bytes before the scan


def only_strips():
    """Refuse to decode anything by itself."""
    return mock.patch.object(strip, "decode_into", side_effect=AssertionError("one by one"))


def one_by_one(images: list[bytes], shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """Decode the plain way: pixels, 0 where broken, and what is broken."""
    out, broken = np.zeros((len(images), *shape), np.uint8), {}
    for i, image in enumerate(images):
        try:
            decode_into(image, out[i])
        except ValueError as error:
            out[i], broken[i] = 0, str(error)
    return out, broken


def batch(images: list[bytes], shape: tuple[int, ...]) -> tuple[np.ndarray, dict[int, str]]:
    """The same through `decode_batch`."""
    out = np.zeros((len(images), *shape), np.uint8)
    broken = decode_batch(images, out)
    out[list(broken)] = 0
    return out, {i: str(error) for i, error in broken.items()}


def check(images: list[bytes], side: int = 60) -> None:
    """Compare both ways."""
    expected, refused = one_by_one(images, (side, side, 3))
    found, broken = batch(images, (side, side, 3))
    assert broken == refused
    assert list(broken) == sorted(broken)
    assert np.array_equal(found, expected)


def test_real_crops_are_decoded_alike_in_strips(data):
    crops = []
    for path in sorted((data / "tcga-mini/slides").glob("*.svs"))[:6]:
        with openslide.OpenSlide(path) as slide:
            field = np.asarray(slide.read_region((0, 0), 0, (1000, 1000)).convert("RGB"))
        for x, y in RNG.integers(0, 940, (60, 2)):
            crops.append(encode(field[y : y + 60, x : x + 60], "jpeg"))
    with only_strips():
        found, broken = batch([memoryview(crop) for crop in crops], (60, 60, 3))
    assert not broken
    assert np.array_equal(found, [decode(crop) for crop in crops])


@settings(max_examples=40)
@given(side=st.integers(1, 70), count=st.integers(0, 70), data=st.data())
def test_crops_of_any_size_and_number(side, count, data):
    spreads = data.draw(st.lists(st.floats(0, 80), min_size=1, max_size=4))
    rng = np.random.default_rng(side)
    kinds = [rng.normal(128, s, (side, side, 3)).clip(0, 255).astype(np.uint8) for s in spreads]
    encoded = [encode(kind, "jpeg") for kind in kinds]
    chosen = rng.integers(0, len(kinds), count)
    with only_strips():
        found, broken = batch([encoded[i] for i in chosen], (side, side, 3))
    assert not broken
    assert np.array_equal(found, [decode(encoded[i]) for i in chosen] or found)


def test_a_crop_too_large_for_a_strip():
    image = RNG.integers(0, 256, (728, 728, 3), dtype=np.uint8)
    check([encode(image, "jpeg")] * 2, 728)


def test_what_is_no_such_jpeg_is_decoded_by_itself():
    pixels = decode(CROPS[3])
    others = {
        "png": encode(pixels, "png"),
        "webp": encode(pixels, "webp"),
        "quality": simplejpeg.encode_jpeg(pixels, 80, colorsubsampling="444"),
        "sampled": simplejpeg.encode_jpeg(pixels, 95, colorsubsampling="420"),
        "grey": simplejpeg.encode_jpeg(pixels[:, :, :1].copy(), 95, "gray", "gray"),
        "size": encode(pixels[:56], "jpeg"),
        "trailing": CROPS[3] + b"garbage",
        "trailing end": CROPS[3] + CROPS[2],
        "restart": CROPS[3][:HEADER] + b"\xff\xd0" + CROPS[3][HEADER:],
        "cut": CROPS[3][:-200],
        "cut, but ended": CROPS[3][:-200] + b"\xff\xd9",
        "left over": CROPS[3][:-2] + bytes(20) + b"\xff\xd9",
        "markers after": CROPS[3][:-2] + b"".join(strip.RESTARTS) + b"\xff\xd9",
        "empty": b"",
        "a header alone": CROPS[3][:HEADER],
    }
    for other in others.values():
        check([*CROPS, other])
        check([other, *CROPS])
        check([*CROPS, other, *CROPS * 8, other])
    check(list(others.values()))
    refused = one_by_one(list(others.values()), (60, 60, 3))[1]
    assert {list(others)[i] for i in refused} >= {"size", "cut", "cut, but ended", "left over"}


def test_bytes_left_over_are_seen_wherever_the_crop_is():
    """libjpeg may hold some of them in its bit buffer, and forgets to mention them at the end."""
    refused, cases = 0, 0
    for crop in [noise(10) for _ in range(40)]:
        for count in range(1, 10):
            longer = crop[:-2] + bytes(count) + strip.EOI
            check([longer])
            check([longer, CROPS[0]])
            refused += len(one_by_one([longer], (60, 60, 3))[1])
            cases += 1
    assert 0 < refused < cases


def test_a_crop_that_holds_a_strip_of_its_own_spoils_no_neighbour():
    scans = [crop[HEADER:-2] for crop in CROPS[:4]]
    pieces = [piece for pair in zip(scans, strip.RESTARTS, strict=False) for piece in pair]
    hostile = CROPS[0][:HEADER] + b"".join(pieces[:-1]) + strip.EOI * 2
    check([hostile, CROPS[3], CROPS[4]])


@st.composite
def damage(draw, image: bytes) -> bytes:
    """Damage an image: mostly its scan, for a strip compares headers byte by byte."""
    first = draw(st.sampled_from([HEADER, HEADER, HEADER, 0]))
    at = draw(st.integers(first, len(image) - 1))
    marker = st.integers(0xD0, 0xD9).map(lambda number: bytes([0xFF, number]))
    some = draw(st.binary(max_size=3) | marker)
    swallowed = draw(st.sampled_from([0, len(some), len(some), 1, 2, 40]))
    if draw(st.booleans()):
        bit = 1 << draw(st.integers(0, 7))
        return image[:at] + bytes([image[at] ^ bit]) + image[at + 1 :]
    return image[:at] + some + image[at + swallowed :]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(CROPS), min_size=1, max_size=40), st.data())
def test_damage_is_seen_as_it_is_alone_and_spoils_no_neighbour(images, data):
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(images) - 1))
        assume(images[which])
        images[which] = data.draw(damage(images[which]))
    check(images)
