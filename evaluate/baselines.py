"""Baselines without a network: a crop's own pixels, and handcrafted measures of its nucleus."""

import hashlib
from pathlib import Path

import numpy as np

CROPS = 512  # measured at once


class Pixels:
    """The crops' own pixels; the probe reduces them by PCA within each training fold."""

    components, cached, input_px = 128, False, None  # on disk, a copy 4x as large as the crops

    def __init__(self, name: str = "pixels"):
        self.name = name

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, P * P * 3) float32 in [0, 1]."""
        return crops.reshape(len(crops), -1).astype(np.float32) / 255

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the widths of what stands side by side: one."""
        return (width,)

    def manifest(self) -> dict:
        """Return what the embeddings depend on, as JSON."""
        return {"name": self.name, "kind": "raw pixels", "components": self.components}


class Morphology:
    """Handcrafted measures of shape, colour and texture (train/measures.py)."""

    components, cached, input_px = None, True, None

    def __init__(self, name: str = "morphology"):
        self.name = name

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, 76) float32."""
        from train.measures import measure

        parts = [measure(crops[i : i + CROPS]) for i in range(0, len(crops), CROPS)]
        return np.concatenate(parts)

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the widths of what stands side by side: one."""
        return (width,)

    def manifest(self) -> dict:
        """Return what the embeddings depend on, as JSON."""
        from train import measures

        source = hashlib.sha256(Path(measures.__file__).read_bytes()).hexdigest()
        return {
            "name": self.name,
            "kind": "handcrafted measures",
            "sha256": source,  # of the code: another code, other measures
            "measures": list(measures.NAMES),
        }
