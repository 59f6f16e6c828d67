"""Baselines without a network: a crop's own pixels, and handcrafted measures of its nucleus."""

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

CROPS = 512  # measured at once


class Encoder(ABC):
    """What turns crops into embeddings."""

    components: int | None = None  # axes of a PCA that the probe fits in each training fold
    cached: bool = True  # whether its embeddings are worth keeping on disk
    input_px: int | None = None  # side of the crops it takes; None: any

    def __init__(self, name: str):
        self.name = name  # of files and rows of tables

    @abstractmethod
    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, D) float32 for (N, P, P, 3) uint8 RGB crops at 0.25 µm/px."""

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the widths of the parts that stand side by side in an embedding of a width."""
        return (width,)

    @abstractmethod
    def manifest(self) -> dict:
        """Return what the embeddings depend on, as JSON."""


class Pixels(Encoder):
    """The crops' own pixels; the probe reduces them by PCA within each training fold."""

    components, cached = 128, False  # on disk, a copy 4x as large as the crops

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, P * P * 3) float32 in [0, 1]."""
        return crops.reshape(len(crops), -1).astype(np.float32) / 255

    def manifest(self) -> dict:
        """Return what the embeddings depend on, as JSON."""
        return {"name": self.name, "kind": "raw pixels", "components": self.components}


class Morphology(Encoder):
    """Handcrafted measures of shape, colour and texture (train/measures.py)."""

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, 76) float32."""
        from train.measures import measure

        parts = [measure(crops[i : i + CROPS]) for i in range(0, len(crops), CROPS)]
        return np.concatenate(parts)

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
