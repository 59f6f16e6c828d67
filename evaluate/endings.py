"""Endings of an encoder's name: what is made of its embeddings before they are used.

+mean         class token and mean of patches side by side (evaluate/networks/readout.py)
+stages       of a convolutional network: the means of its last three stages side by side
+tta          the average over a crop's eight flips and rotations
+morphology   the 76 handcrafted measures beside the embedding

They combine, in this order: runs/x+mean+tta+morphology.
"""

import numpy as np

from evaluate.baselines import Encoder, Morphology

ENDINGS = ("+mean", "+stages", "+tta", "+morphology")
READOUTS = {"+mean": "class+mean", "+stages": "stages"}  # what a network itself gives
VIEWS = 8  # of a square: four rotations, each as it is and mirrored


class Averaged(Encoder):
    """An encoder's mean over the eight flips and rotations of a crop."""

    def __init__(self, encoder: Encoder, name: str):
        super().__init__(name)
        self.encoder = encoder
        self.components, self.cached = encoder.components, encoder.cached
        self.input_px = encoder.input_px

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, D) float32, at eight times the cost."""
        total = None
        for turns in range(4):
            turned = np.rot90(crops, turns, axes=(1, 2))
            for view in (turned, turned[:, :, ::-1]):
                found = self.encoder.embed(np.ascontiguousarray(view))
                total = found.astype(np.float64) if total is None else total + found
        assert total is not None
        return (total / VIEWS).astype(np.float32)

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the encoder's own."""
        return self.encoder.blocks(width)

    def manifest(self) -> dict:
        """Return the encoder's own, and the number of views."""
        return self.encoder.manifest() | {"name": self.name, "views": VIEWS}


class WithMorphology(Encoder):
    """An encoder's embedding, and the handcrafted measures behind it."""

    def __init__(self, encoder: Encoder, name: str):
        """Refuse an encoder whose embedding is reduced by PCA.

        Raises:
            ValueError: of raw pixels.
        """
        if encoder.components:
            raise ValueError(
                f"{name}: raw pixels are reduced by a PCA within each training fold, measures are "
                "not; put +morphology behind a network's name"
            )
        super().__init__(name)
        self.encoder, self.measures = encoder, Morphology("morphology")
        self.input_px = encoder.input_px

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, D + 76) float32."""
        return np.concatenate([self.encoder.embed(crops), self.measures.embed(crops)], axis=1)

    def blocks(self, width: int) -> tuple[int, ...]:
        """Return the encoder's own, then that of the measures."""
        count = len(self.measures.manifest()["measures"])
        return (*self.encoder.blocks(width - count), count)

    def manifest(self) -> dict:
        """Return the encoder's own, and the digest of the measures' code."""
        code = self.measures.manifest()["sha256"]
        return self.encoder.manifest() | {"name": self.name, "morphology": code}


def split(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a name without its endings, and these."""
    found: list[str] = []
    while ending := next((e for e in ENDINGS if name.endswith(e)), ""):
        name = name.removesuffix(ending)
        found.insert(0, ending)
    return name, tuple(found)


def described(manifest: dict) -> str:
    """Say what is made of an encoder's embeddings, '' where they are used as they are."""
    readout = manifest.get("config", {}).get("readout")
    parts = {
        "class token and mean of patches": readout == "class+mean",
        "means of the last three stages": readout == "stages",
        f"average over {VIEWS} flips and rotations": "views" in manifest,
        "76 handcrafted measures beside it": "morphology" in manifest,
    }
    return ", ".join(text for text, holds in parts.items() if holds)
