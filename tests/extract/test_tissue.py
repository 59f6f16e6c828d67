"""Fat is tissue; glass, however lit, scratched or dusty, is not."""

import cv2
import numpy as np
import pytest
from scipy.spatial import Voronoi

from shards.tissue import pale_tissue, stained_tissue, tissue_mask

GLASS = 243


def shrunk(image: np.ndarray, mpp: float) -> np.ndarray:
    """Return an image of 1 µm/px at another scale, as a pyramid's level would hold it."""
    size = (round(image.shape[1] / mpp), round(image.shape[0] / mpp))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    rounded = np.clip(np.rint(small), 0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", rounded, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 1)


def fat(colour: tuple[int, int, int], side: int = 1600, cell: int = 90) -> np.ndarray:
    """Draw the membranes of fat cells, 1 µm thick, at 1 µm/px; float32."""
    rng = np.random.default_rng(0)
    image = np.full((side, side, 3), GLASS, np.float32)
    centres = rng.uniform(-cell, side + cell, (((side + 2 * cell) // cell) ** 2, 2))
    net = Voronoi(centres)
    for ends in net.ridge_vertices:
        if -1 not in ends:
            a, b = (tuple(np.rint(net.vertices[end]).astype(int).tolist()) for end in ends)
            cv2.line(image, a, b, colour, 1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("mpp", [2, 4, 8])
@pytest.mark.parametrize("colour", [(150, 110, 140), (180, 140, 170)])
def test_fat_is_tissue(colour, mpp):
    mask = tissue_mask(shrunk(fat(colour), mpp), mpp)
    block = round(200 / mpp)  # no tile of 256 µm goes unseen
    blocks = mask.reshape(1600 // mpp // block, block, -1, block).any(axis=(1, 3))
    assert blocks.mean() > 0.95


def hair(image: np.ndarray) -> None:
    cv2.polylines(image, [np.array([(0, 100), (900, 700), (1599, 800)])], False, (150, 140, 130), 8)


def bubble(image: np.ndarray) -> None:
    cv2.ellipse(image, (800, 800), (600, 450), 0, 0, 360, (225, 225, 225), 6)


def dust(image: np.ndarray) -> None:
    for x, y in np.random.default_rng(1).integers(0, 1600, (60, 2)).tolist():
        cv2.circle(image, (x, y), 4, (150, 150, 150), -1)


def shading(image: np.ndarray) -> None:
    image *= 1 - 0.05 * np.arange(1600, dtype=np.float32)[None, :, None] / 1600


def stripes(image: np.ndarray) -> None:
    image[:, 400:800] *= 0.985


def noise(image: np.ndarray) -> None:
    image += np.random.default_rng(2).normal(0, 12, image.shape[:2])[..., None]


@pytest.mark.parametrize("what", [hair, bubble, dust, shading, stripes, noise])
@pytest.mark.parametrize("mpp", [4, 8])
def test_glass_is_not_fat(what, mpp):
    image = np.full((1600, 1600, 3), GLASS, np.float32)
    what(image)
    thumbnail = shrunk(image, mpp)
    assert not pale_tissue(thumbnail, mpp, stained_tissue(thumbnail, mpp)).any()


def test_fat_beside_a_piece_of_tissue_and_the_glass_around_both():
    image = np.full((1600, 3200, 3), GLASS, np.float32)
    image[200:1400, 200:1000] = (200, 140, 180)
    image[200:1400, 1400:2400] = fat((150, 110, 140))[200:1400, :1000]
    mask = tissue_mask(shrunk(image, 8), 8)
    assert mask[30:170, 30:120].all()
    assert mask[40:160, 185:290].mean() > 0.5
    assert not mask[:, 330:].any()
    assert not mask[:, 140:150].any()
