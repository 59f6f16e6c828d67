"""The network as a segmenter of tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from extract.gpu import device, full_memory
from extract.network.inference import Predictor
from extract.network.instances import nuclei
from extract.network.weights import load_network
from shards.stain import Stain

CORE_PX = 2048  # side of a tile: larger ones repeat less of their margin, and take more memory


class NetworkSegmenter:
    """HoverFast's network on the GPU, if there is one."""

    def __init__(self, weights: Path):
        """Load weights.

        Raises:
            ValueError: the file holds none that fit, or the GPU's memory is full.
        """
        with full_memory():
            self.predictor = Predictor(load_network(weights), device())

    def __call__(self, rgb: np.ndarray, stain: Stain) -> Callable[[], np.ndarray]:
        """Look at a tile; what is returned labels its nuclei.

        Args:
            rgb: (H, W, 3) uint8 at 0.25 µm/px.
            stain: of the slide; the network does without.

        Raises:
            ValueError: the GPU's memory is full.
        """
        with full_memory():
            odds, maps = self.predictor(rgb)
        return lambda: nuclei(odds, maps)
