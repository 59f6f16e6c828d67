"""A slide's picture and its tissue, whatever reader its file needs."""

import numpy as np
import pytest
from PIL import Image

from evaluate.classes.tissue import view


@pytest.mark.parametrize("name", ["field.png", "field.tif"])  # OpenSlide opens neither
def test_an_image_is_seen_as_a_slide_is(name, tmp_path):
    rng = np.random.default_rng(0)
    rgb = np.full((256, 512, 3), 245, np.uint8)
    rgb[:, 256:] = rng.normal((170, 90, 160), 12, (256, 256, 3)).clip(0, 255)
    Image.fromarray(rgb).save(tmp_path / name)
    record = {"path": str(tmp_path / name), "width": 512, "height": 256, "mpp": 0.25}
    seen = view(record, 256)
    assert seen.image.shape == (128, 256, 3)
    assert seen.down == 2
    half = 512 * 256 / 2 * 0.25**2 / 1e6  # mm²
    assert seen.tissue_mm2 == pytest.approx(half, rel=0.2)
    assert seen.image[:, :120].mean() > 240 > seen.image[:, 136:].mean()
