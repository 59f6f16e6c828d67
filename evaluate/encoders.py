"""Encoders by name: trained runs, and the baselines that stand beside them in every table."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from evaluate.network import Network

CHUNK = 512  # crops the handcrafted measures take at once


class Encoder(Protocol):
    """What turns crops into vectors."""

    name: str  # names files and rows of tables
    components: int | None  # of a PCA that the probe fits within each training fold
    cached: bool  # whether its vectors are worth keeping on disk

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Return (N, D) float32 for (N, P, P, 3) uint8 RGB crops at 0.25 µm/px."""

    def manifest(self) -> dict:
        """Return what the vectors depend on, as JSON."""


class Pixels:
    """The crops' own pixels; the probe reduces them by PCA within each training fold."""

    name, components, cached = "pixels", 128, False  # a copy of the crops, 4x as large

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.reshape(len(crops), -1).astype(np.float32) / 255  # (N, P * P * 3)

    def manifest(self) -> dict:
        return {"name": self.name, "kind": "raw pixels", "components": self.components}


class Morphology:
    """Handcrafted measures of shape, colour and texture."""

    name, components, cached = "morphology", None, True

    def embed(self, crops: np.ndarray) -> np.ndarray:
        from evaluate.morphology import measure

        parts = [measure(crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
        return np.concatenate(parts)  # (N, 76)

    def manifest(self) -> dict:
        from evaluate import morphology

        source = hashlib.sha256(Path(morphology.__file__).read_bytes()).hexdigest()
        return {
            "name": self.name,
            "kind": "handcrafted measures",
            "sha256": source,  # of the code: another code, other measures
            "measures": list(morphology.NAMES),
        }


def check_encoders(specs: list[str]) -> dict[str, Path | None]:
    """Return each encoder's name and folder, None for a baseline, without opening any.

    Args:
        specs: `run:PATH`, PATH (a run's folder or its encoder/), `NAME=PATH` to name it, or one of
            BASELINES.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: an unknown prefix, or two encoders of one name.
    """
    folders = {}
    for spec in specs:
        name, folder = (spec, None) if spec in BASELINES else find_folder(spec)
        if name in folders or (folder and name in BASELINES):
            raise ValueError(
                f"two encoders are named {name!r}; give one another name, as in mine={spec}"
            )
        folders[name] = folder
    return folders


def open_encoders(
    specs: list[str], seed: int = 0, batch: int = 256, precision: str = "fp32"
) -> Iterator[Encoder]:
    """Open encoders one after another, so that one at a time takes memory.

    Args:
        specs: as of `check_encoders`, with its errors.
        seed: of the untrained network's weights.
        batch: crops a network takes at once.
        precision: `fp32` or `bf16` (autocast).

    Raises:
        ValueError: a folder that is no encoder's.
    """
    folders = check_encoders(specs)
    first = next((folder for folder in folders.values() if folder), None)
    options = {"seed": seed, "batch": batch, "precision": precision}
    for name, folder in folders.items():
        yield _trained(name, folder, **options) if folder else BASELINES[name](first, **options)


def find_folder(spec: str) -> tuple[str, Path]:
    """Return the name and the encoder folder that a word on the command line means.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: a prefix that is not known.
    """
    name, path = None, Path(spec)
    if not path.exists() and (named := re.fullmatch(r"([\w+=@.-]+?)=(.+)", spec)):
        name, spec = named.groups()
    if not Path(spec).exists() and (prefixed := re.fullmatch(r"([a-z][\w-]+):(.*)", spec)):
        if prefixed[1] not in PREFIXES:
            raise ValueError(f"{spec}: no kind of encoder {prefixed[1]!r}; {_known()}")
        spec = prefixed[2]
    path = Path(spec)
    if not path.exists():
        raise FileNotFoundError(f"no encoder {spec!r}: neither a baseline nor a path; {_known()}")
    inner = path / "encoder"
    folder = inner if inner.is_dir() else path
    missing = [f for f in ("model.safetensors", "config.json") if not (folder / f).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} is no encoder: no {missing[0]} in {folder}; give a run's folder that has "
            "encoder/, written by train/main.py"
        )
    whole = folder.resolve()
    name = name or (whole.parent.name if whole.name == "encoder" else whole.name)
    return re.sub(r"[^\w+=@.-]", "_", name), folder


def _known() -> str:
    prefixes = ", ".join(f"{prefix}:PATH" for prefix in PREFIXES)
    return f"there are {', '.join(BASELINES)}, {prefixes} and PATH"


def _trained(name: str, folder: Path, seed: int, batch: int, precision: str) -> Network:
    from train.encoder import load_encoder

    module, config = load_encoder(folder)
    with open(folder / "model.safetensors", "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Network(name, module, config, {"kind": "run", "sha256": digest}, batch, precision)


def _untrained(first: Path | None, seed: int, batch: int, precision: str) -> Network:
    """Initialise the first trained encoder's architecture anew, on its input; else a ViT-Ti/8."""
    from train.encoder import ENCODERS, build_encoder, load_encoder

    # 0.5 and 0.25 are about the mean and s.d. of H&E where no data set has said its own.
    architecture, config = "vit_ti8", {"input_px": 40, "mpp": 0.25}
    config |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    if first:
        trained = load_encoder(first)[1]
        config = {k: trained[k] for k in config}
        timm_name = trained["timm"]["name"]
        names = [name for name, known in ENCODERS.items() if known[0] == timm_name]
        if not names:
            raise ValueError(f"untrained: {first} is a {timm_name}, which train/ does not build")
        architecture = names[0]
    module = build_encoder(architecture, input_px=config["input_px"], seed=seed)
    facts = {"kind": "random initialisation", "architecture": architecture, "seed": seed}
    return Network("untrained", module, config, facts, batch, precision)


def _pixels(first: Path | None, **options: object) -> Pixels:
    return Pixels()


def _morphology(first: Path | None, **options: object) -> Morphology:
    return Morphology()


PREFIXES = {"run": _trained}
BASELINES = {"pixels": _pixels, "morphology": _morphology, "untrained": _untrained}
