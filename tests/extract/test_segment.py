"""The built-in segmenter: stains, tissue, and nuclei, on painted and on real fields."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from extract.network.scores import match
from extract.segment.rays import segment
from shards.stain import (
    REFERENCE,
    REFERENCE_MAX,
    RUIFROK,
    Stain,
    concentrations,
    macenko,
    optical_density,
)
from shards.tissue import tissue_mask

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "../shared/data/tcga-mini"
STANDARD = Stain(REFERENCE, REFERENCE_MAX, fallback=True)
SLIDE = "TCGA-AR-A1AS-01Z-00-DX1"

real = pytest.mark.skipif(not DATA.exists(), reason="no ../shared/data/tcga-mini")


def paint(haematoxylin: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Return the (H, W, 3) image of two fields of concentrations, with a little grain."""
    density = np.stack([haematoxylin, eosin], axis=-1) @ REFERENCE
    grain = np.random.default_rng(0).normal(0, 2, (*density.shape[:2], 1))
    return np.clip(240 * np.exp(-density) - 1 + grain, 0, 255).astype(np.uint8)


def disk(shape: tuple[int, int], x: int, y: int, radius: int) -> np.ndarray:
    return cv2.circle(np.zeros(shape, np.float32), (x, y), radius, 1, -1)


def centroids(labels: np.ndarray) -> np.ndarray:
    """Return (N, 2) x, y."""
    rows, columns = np.nonzero(labels)
    ids = labels[rows, columns]
    count = np.bincount(ids)[1:]
    return np.stack([np.bincount(ids, at)[1:] / count for at in (columns, rows)], axis=1)


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    import openslide

    with openslide.OpenSlide(DATA / "slides" / f"{SLIDE}.svs") as slide:
        return np.array(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


@pytest.fixture(scope="module")
def field_stain(field: np.ndarray) -> Stain:
    return macenko(field.reshape(-1, 3))


@pytest.fixture(scope="module")
def field_labels(field: np.ndarray, field_stain: Stain) -> np.ndarray:
    return segment(field, field_stain)


@real
def test_macenko_equals_torchstain(field, field_stain):
    import torchstain

    theirs = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    theirs.fit(field)
    assert not field_stain.fallback
    np.testing.assert_allclose(field_stain.matrix, theirs.HERef.T, atol=1e-4)
    np.testing.assert_allclose(field_stain.max_concentration, theirs.maxCRef.ravel(), rtol=1e-3)


@pytest.mark.parametrize(
    "true",
    [[[0.60, 0.70, 0.38], [0.15, 0.82, 0.55]], [[0.63, 0.72, 0.28], [0.22, 0.96, 0.12]]],
    ids=["as in TCGA", "as in MIDOG21"],
)
def test_macenko_recovers_known_stains(true):
    amount = np.random.default_rng(0).gamma(1.5, 0.5, (50_000, 2))
    # pure pixels of either stain, as nuclei and stroma are
    amount[:10_000, 0] = 0
    amount[10_000:20_000, 1] = 0
    true = np.array(true) / np.linalg.norm(true, axis=1, keepdims=True)
    pixels = np.clip(240 * np.exp(-amount @ true) - 1, 0, 255).round().astype(np.uint8)
    stain = macenko(pixels)
    assert not stain.fallback
    assert (np.sum(stain.matrix * true, axis=1) > 0.995).all()
    weak = amount.sum(axis=1) < 2  # darker ones are clipped to 0
    found = concentrations(pixels[weak], stain)
    assert found.dtype == np.float32
    assert np.abs(found - amount[weak]).mean() < 0.1


@pytest.mark.parametrize(
    "pixels",
    [
        np.empty((0, 3), np.uint8),
        np.full((5000, 3), 255, np.uint8),
        np.zeros((5000, 3), np.uint8),
        np.full((5000, 3), (120, 60, 130), np.uint8),
        np.random.default_rng(0).integers(0, 256, (5000, 1), np.uint8).repeat(3, axis=1),
        np.random.default_rng(0).integers(0, 256, (5000, 3), np.uint8),
    ],
    ids=["none", "white", "black", "one colour", "grey", "noise"],
)
def test_macenko_falls_back(pixels):
    stain = macenko(pixels)
    assert stain.fallback
    np.testing.assert_array_equal(stain.matrix, REFERENCE)
    assert (stain.max_concentration > 0).all()
    assert np.isfinite(concentrations(pixels, stain)).all()


@pytest.mark.parametrize("which", [0, 1])
def test_macenko_falls_back_on_a_single_stain(which):
    amount = np.zeros((100, 100, 2))
    amount[..., which] = np.random.default_rng(0).uniform(0.3, 1.5, (100, 100))
    stain = macenko(paint(amount[..., 0], amount[..., 1]).reshape(-1, 3))
    assert stain.fallback


def test_macenko_takes_what_is_given_for_the_case():
    pixels = np.full((5000, 3), (120, 60, 130), np.uint8)
    stain = macenko(pixels, RUIFROK)
    assert stain.fallback
    np.testing.assert_array_equal(stain.matrix, RUIFROK)
    np.testing.assert_array_equal(macenko(pixels[:9], RUIFROK).matrix, RUIFROK)


def test_macenko_refuses_an_image():
    with pytest.raises(ValueError, match=r"must be \(N, 3\) uint8, found \(4, 4, 3\)"):
        macenko(np.zeros((4, 4, 3), np.uint8))


def test_optical_density_of_glass_is_near_zero():
    np.testing.assert_allclose(optical_density(np.array([239, 23], np.uint8)), [0, np.log(10)])


def test_tissue_of_a_piece_on_glass():
    shape = (200, 300)
    piece = disk(shape, 150, 100, 60)
    mask = tissue_mask(paint(0.2 * piece, 0.4 * piece), mpp=8)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert (mask == (piece > 0)).mean() > 0.98


def test_tissue_everywhere_and_nowhere():
    flat = np.ones((60, 60), np.float32)
    assert tissue_mask(paint(0.2 * flat, 0.4 * flat), mpp=4).all()
    for white in (255, 243, 225):
        assert not tissue_mask(np.full((60, 60, 3), white, np.uint8), mpp=4).any()
    assert not tissue_mask(paint(0 * flat, 0 * flat), mpp=4).any()


def test_tissue_is_not_ink():
    glass = np.full((200, 200, 3), 242, np.uint8)
    for ink in ((30, 60, 190), (40, 140, 90), (15, 15, 18)):
        marked = cv2.line(glass.copy(), (20, 20), (180, 120), ink, 12)
        assert tissue_mask(marked, mpp=8).mean() < 0.02


def test_tissue_refuses_nonsense():
    with pytest.raises(ValueError, match="mpp must be above 0"):
        tissue_mask(np.zeros((4, 4, 3), np.uint8), mpp=0)
    with pytest.raises(ValueError, match=r"must be \(H, W, 3\) uint8"):
        tissue_mask(np.zeros((4, 4), np.uint8), mpp=8)


@real
def test_tissue_of_a_field_without_glass(field):
    assert tissue_mask(cv2.resize(field, None, fx=1 / 16, fy=1 / 16, interpolation=3), 4).all()


def test_two_touching_nuclei_are_two():
    shape = (160, 160)
    first, second = disk(shape, 65, 80, 14), disk(shape, 92, 80, 14)
    haematoxylin = cv2.GaussianBlur(np.maximum(first, second), (0, 0), 1.0) * 1.2
    labels = segment(paint(haematoxylin, np.full(shape, 0.3)), STANDARD)
    assert labels.dtype == np.int32
    found = centroids(labels)
    assert len(found) == 2
    np.testing.assert_allclose(found[found[:, 0].argsort()], [(65, 80), (92, 80)], atol=2.5)
    for number, true in zip(np.argsort(found[:, 0]) + 1, (first, second), strict=True):
        both = np.count_nonzero((labels == number) & (true > 0))
        assert 2 * both / ((labels == number).sum() + true.sum()) > 0.85


def test_a_vesicular_nucleus_is_one():
    shape = (160, 160)
    rim = disk(shape, 80, 80, 20) - 0.7 * disk(shape, 80, 80, 16)
    haematoxylin = cv2.GaussianBlur(rim + 0.5 * disk(shape, 84, 77, 3), (0, 0), 1.0)
    labels = segment(paint(haematoxylin, np.full(shape, 0.3)), STANDARD)
    assert labels.max() == 1
    assert abs(np.sqrt((labels == 1).sum() / np.pi) - 20) < 2


@pytest.mark.parametrize("eosin", [0.0, 0.3, 0.8])
def test_no_nuclei_where_there_are_none(eosin):
    shape = (300, 300)
    assert segment(paint(np.zeros(shape), np.full(shape, eosin)), STANDARD).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (40, 40)])
def test_tiles_of_any_size(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert segment(rgb, STANDARD).shape == shape


@real
def test_labels_are_whole_and_numbered_through(field_labels):
    count = np.bincount(field_labels.ravel())[1:]
    assert (count > 0).all()
    for number in range(1, len(count) + 1):
        assert cv2.connectedComponents((field_labels == number).astype(np.uint8))[0] == 2


@real
def test_nuclei_do_not_depend_on_where_the_tile_begins(field, field_stain, field_labels):
    left, top, side, margin = 137, 91, 600, 64
    window = np.ascontiguousarray(field[top : top + side, left : left + side])
    core_low = np.array([left, top]) + margin
    core_high = np.array([left, top]) + side - margin
    cores = []
    shifted = centroids(segment(window, field_stain)) + np.array([left, top])
    for points in (centroids(field_labels), shifted):
        cores.append(points[((points >= core_low) & (points < core_high)).all(axis=1)])
    distance = np.linalg.norm(cores[0][:, None] - cores[1], axis=2)
    agree = (distance.min(axis=1) < 1).sum()
    assert agree >= 0.97 * max(map(len, cores))
    assert len(cores[0]) > 50


@real
def test_f1_on_a_real_field(field_labels):
    with open(DATA / "nuclei.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["slide_id"] == SLIDE]
    true = np.array([(float(row["x"]), float(row["y"])) for row in rows])
    found = centroids(field_labels)
    matched = len(match(found, true))
    assert 2 * matched / (len(found) + len(true)) > 0.84
