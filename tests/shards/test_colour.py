"""Colour statistics, against scikit-image and against what was drawn."""

import numpy as np
import pytest

from shards.colour import mixture, stain_vectors
from shards.read import Shards

RNG = np.random.default_rng(0)


def test_stain_vectors_are_scikit_images():
    from skimage.color import rgb2lab

    views = RNG.integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)
    lab = rgb2lab(views).reshape(5, -1, 3)
    expected = np.concatenate([lab.mean(1), lab.std(1)], axis=1)
    assert np.abs(stain_vectors(np.moveaxis(views, 3, 0)) - expected).max() < 1e-3


def test_what_is_stored_is_of_the_first_crops(shards_folder):
    shards = Shards(shards_folder)
    stain = shards.info["stain"]
    views = shards.read(np.arange(len(shards)))[:, :, 10:50, 10:50].swapaxes(0, 1)
    pixels = views.reshape(3, -1) / 255
    assert np.allclose(shards.info["mean"], pixels.mean(1))
    assert np.allclose(shards.info["std"], pixels.std(1))
    assert stain["crops"] == len(shards)
    vectors = stain_vectors(views)
    one = stain["gmm1"]
    assert one["weights"] == [1]
    assert np.allclose(one["means"][0], vectors.mean(0))
    assert np.allclose(one["covariances"][0], np.cov(vectors.T, bias=True) + 1e-6 * np.eye(6))
    ten = {k: np.array(v) for k, v in stain["gmm10"].items()}
    assert ten["covariances"].shape == (len(ten["weights"]), 6, 6)
    assert ten["weights"].sum() == pytest.approx(1)
    # A mixture keeps the mean, and the covariance up to its regularisation.
    assert np.allclose(ten["weights"] @ ten["means"], vectors.mean(0))


def test_mixture_finds_what_was_drawn():
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 50, (3, 6))
    vectors = np.concatenate(
        [c + rng.normal(0, 1, (n, 6)) for c, n in zip(centres, (400, 300, 100), strict=True)]
    )
    found = mixture(vectors, 3, seed=0)
    assert np.allclose(found["weights"], [0.5, 0.375, 0.125])
    assert np.abs(np.array(found["means"]) - centres).max() < 0.5
    assert len(mixture(vectors[:25], 10, 0)["weights"]) == 2
    assert len(mixture(vectors[:1], 10, 0)["weights"]) == 1
