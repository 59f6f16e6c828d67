"""A classifier to keep: a logistic regression on one encoder's embeddings, in a small folder.

classifier/classifier.json      classes, colours, encoder, scale, window, C, scores, training
classifier/model.safetensors    mean, scale (D,), weights (K, D), bias (K,), float64
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluate.classes.scores import lines
from evaluate.endings import Encoder
from shards.filetype import check_file
from shards.json_file import read_versioned
from shards.schema import MPP, MPP_40X
from shards.write import atomic, write_text

FORMAT = 1
ROWS = 65_536  # of embeddings taken at once
COLOUR = re.compile("#[0-9a-fA-F]{6}")
VARIES = ("name", "precision")  # of an encoder's manifest: what does not change the encoder
NEEDED = (
    "classes", "colours", "encoder", "encoder_sha256", "mpp", "window_px", "temperature", "C",
    "training", "scores", "no_grouped", "calibration_error",
)  # fmt: skip
AGAIN = "make it again with `python evaluate/main.py fit`"


@dataclass(frozen=True, eq=False)
class Classifier:
    """A regression from embeddings of D numbers to K classes."""

    name: str  # of its folder
    classes: tuple[str, ...]  # K
    mean: np.ndarray  # (D,) float64
    scale: np.ndarray  # (D,)
    weights: np.ndarray  # (K, D), on features less the mean over the scale
    bias: np.ndarray  # (K,)
    temperature: float  # by which scores are divided, so that probabilities are calibrated
    facts: dict[str, Any]  # classifier.json

    @property
    def colours(self) -> dict[str, str]:
        """Class -> #rrggbb, in the order of the classes."""
        return {name: self.facts["colours"][name] for name in self.classes}

    @property
    def window_px(self) -> int:
        """Side of the crops its embeddings are of, px at 0.25 µm/px."""
        return self.facts["window_px"]

    @property
    def sha256(self) -> str:
        """The digest of what its answers depend on."""
        digest = hashlib.sha256("\0".join([*self.classes, self.facts["encoder_sha256"]]).encode())
        for array in (self.mean, self.scale, self.weights, self.bias):
            digest.update(np.ascontiguousarray(array, "<f8").tobytes())
        digest.update(f"{self.temperature!r} {self.window_px}".encode())
        return digest.hexdigest()

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Return (N, K) float32 that sum to 1, for (N, D) embeddings, a block at a time.

        Raises:
            ValueError: embeddings of another width.
        """
        if embeddings.shape[1] != len(self.mean):
            raise ValueError(
                f"classifier {self.name} takes embeddings of {len(self.mean)} numbers, found "
                f"{embeddings.shape[1]}"
            )
        out = np.empty((len(embeddings), len(self.classes)), np.float32)
        for first in range(0, len(out), ROWS):
            z = (embeddings[first : first + ROWS] - self.mean) / self.scale
            scores = (z @ self.weights.T + self.bias) / self.temperature
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[first : first + ROWS] = scores / scores.sum(axis=1, keepdims=True)
        return out

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse another encoder than the one it was fitted on; its name may differ.

        Raises:
            ValueError: it is another, or its readout or an ending differs.
        """
        if identity(encoder.manifest()) != self.facts["encoder_sha256"]:
            own = self.facts["encoder"]
            raise ValueError(
                f"classifier {self.name} was fitted on embeddings of {_said(own)}; "
                f"--encoder is {_said(encoder.manifest())}: give the encoder it was fitted on, or "
                "fit it anew"
            )

    def check_scale(self, slide: str, mpp: float | None, any_scale: bool = False) -> None:
        """Refuse a slide of another magnification than what the classifier has seen.

        Args:
            mpp: of the slide itself, µm/px; None: not known.
            any_scale: take it all the same; its crops were resampled to 0.25 µm/px.

        Raises:
            ValueError: the slide is none of 40X.
        """
        if any_scale or mpp is None or MPP_40X[0] <= mpp <= MPP_40X[1]:
            return
        raise ValueError(
            f"slide {slide} is at {mpp:.3g} µm/px, resampled; classifier {self.name} was fitted on "
            f"crops at {self.facts['mpp']} µm/px (40X). --any-scale applies it all the same"
        )

    def check_crops(self, where: str, side: int) -> None:
        """Refuse crops smaller than the windows the classifier was fitted on.

        Raises:
            ValueError: they are, by name.
        """
        if side < self.window_px:
            raise ValueError(
                f"classifier {self.name} was fitted on windows of {self.window_px} px at "
                f"{self.facts['mpp']} µm/px; {where} holds crops of {side} px: fit it on a "
                f"benchmark prepared with --view {side} or less"
            )


def identity(manifest: dict) -> str:
    """Return the digest of an encoder's manifest, whatever it is called and at either precision."""
    own = {key: value for key, value in manifest.items() if key not in VARIES}
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def save(classifier: Classifier, folder: Path) -> None:
    """Write a classifier's folder; classifier.json last, for it says that the rest is whole."""
    from safetensors.numpy import save as to_bytes

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classifier.json").unlink(missing_ok=True)
    names = ("mean", "scale", "weights", "bias")
    with atomic(folder / "model.safetensors") as file:
        file.write(to_bytes({n: np.ascontiguousarray(getattr(classifier, n)) for n in names}))
    text = json.dumps({"format": FORMAT, **classifier.facts}, indent=1, ensure_ascii=False)
    write_text(folder / "classifier.json", text + "\n")


def load(folder: Path) -> Classifier:
    """Read a classifier's folder.

    Raises:
        FileNotFoundError: no such folder, or no classifier in it.
        ValueError: a file is not what `save` wrote.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    path, weights = folder / "classifier.json", folder / "model.safetensors"
    for file in (path, weights):
        if not file.is_file():
            raise FileNotFoundError(f"no classifier at {folder}: no {file.name}; {AGAIN}")
        check_file(file)
    facts = read_versioned(path, "a classifier", FORMAT, NEEDED, AGAIN)
    if fault := _fault(facts):
        raise ValueError(f"{path}: {fault}; {AGAIN}")
    try:
        arrays = load_file(weights)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{weights} does not open: {error}; {AGAIN}") from error
    kinds = len(facts["classes"])
    width = arrays["mean"].size if "mean" in arrays else 0
    shapes = {"mean": (width,), "scale": (width,), "weights": (kinds, width), "bias": (kinds,)}
    for name, shape in shapes.items():
        found = arrays.get(name)
        if found is None or found.shape != shape or not np.isfinite(found).all():
            raise ValueError(f"{weights}: {name!r} is not {shape} finite numbers; {AGAIN}")
    if not (arrays["scale"] > 0).all():  # by which embeddings are divided
        raise ValueError(f"{weights}: 'scale' is not above 0 throughout; {AGAIN}")
    own = {name: arrays[name] for name in shapes}
    name, temperature = folder.resolve().name, float(facts["temperature"])
    return Classifier(
        name=name, classes=tuple(facts["classes"]), temperature=temperature, facts=facts, **own
    )


def _fault(facts: dict[str, Any]) -> str | None:
    """Say what classifier.json holds that `save` did not write; None: nothing."""
    if facts["mpp"] != MPP:
        return f"a classifier of crops at {facts['mpp']} µm/px, not {MPP}"
    classes, training = facts["classes"], facts["training"]
    words = isinstance(classes, list) and all(isinstance(n, str) and n for n in classes)
    if not words or len(set(classes)) < max(len(classes), 2):
        return f"classes {classes!r} are no names of two or more"
    nuclei = training.get("nuclei") if isinstance(training, dict) else None
    fitted = list(nuclei) if isinstance(nuclei, dict) else []
    if fitted != classes:  # the order of the weights' rows
        return (
            f"classes {', '.join(classes)} are not those of training.nuclei "
            f"({', '.join(fitted) or 'none'}), in their order: rename a class wherever it stands"
        )
    colours = facts["colours"]
    for name in classes:
        colour = colours.get(name) if isinstance(colours, dict) else None
        if not isinstance(colour, str) or not COLOUR.fullmatch(colour):
            return f"the colour of class {name!r} is {colour!r}, not #rrggbb"
    encoder = facts["encoder"]
    if not isinstance(encoder, dict) or identity(encoder) != facts["encoder_sha256"]:
        return "encoder is not the one that encoder_sha256 is of: one of them was edited"
    window, temperature = facts["window_px"], facts["temperature"]
    if type(window) is not int or window < 1:
        return f"a window of {window!r} px"
    if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        return f"a temperature of {temperature!r}"
    try:
        lines(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its scores are not what `fit` wrote ({error!r})"
    return None


def _said(manifest: dict) -> str:
    """Name an encoder in an error: its name, kind and the start of its weights' digest."""
    parts = [str(manifest.get("kind", "")), str(manifest.get("sha256", ""))[:12]]
    parts += [f"{key} {manifest[key]}" for key in ("seed", "views") if key in manifest]
    return f"{manifest.get('name')} ({', '.join(filter(None, parts))})"
