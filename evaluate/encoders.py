"""Encoders by name: trained runs, other people's networks, and the baselines beside them.

runs/first, run:runs/first            a run's encoder; named `first`
runs/first/step-0000100.pt            one of its checkpoints; named `first@step-0000100`
lemon:weights/LEMON/                  the released lemon.pth.tar beside its mean_std.json
uni, uni:weights/pytorch_model.bin    weights of the hub, or of the publisher's file
uni-center, virchow2+mean             central tokens; class token and the patches' mean
timm:convnext_tiny.fb_in22k           whatever timm knows; timm:NAME:FILE for a local file
pixels, morphology, untrained         baselines
mine=…                                any of them by another name
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Spec:
    """What a word on the command line means."""

    name: str  # of files and rows
    kind: str  # of BASELINES, FILES or HUB
    path: Path | None = None  # of weights; None: of the hub, or there are none
    readout: str = "class"
    detail: str = ""  # timm's name, of kind timm


def check_encoders(words: list[str]) -> dict[str, Spec]:
    """Return each encoder by its name, without opening any.

    Args:
        words: as in this file's docstring.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: an unknown kind, or two encoders of one name.
    """
    specs = {}
    for word in words:
        spec = read_spec(word)
        if spec.name in specs or (spec.kind != spec.name and spec.name in BASELINES):
            raise ValueError(
                f"two encoders are named {spec.name!r}; give one another name, as in mine={word}"
            )
        specs[spec.name] = spec
    return specs


def open_encoders(
    words: list[str],
    seed: int = 0,
    batch: int | None = None,
    precision: str = "fp32",
    compiled: bool = False,
    only: set[str] | None = None,
) -> Iterator[Encoder]:
    """Open encoders one after another, so that one at a time takes memory.

    Args:
        words: as of `check_encoders`, with its errors.
        seed: of the untrained network's weights.
        batch: crops a network takes at once; None: what suits the device.
        precision: `fp32` or `bf16`.
        compiled: compile networks, which pays from some ten thousand crops.
        only: names of those to open; the others still say what `untrained` is.

    Raises:
        FileNotFoundError: weights that neither a file nor the hub gives.
        ValueError: a file that is not the encoder's.
    """
    specs = check_encoders(words)
    first = next((spec.path for spec in specs.values() if spec.kind == "run"), None)
    for spec in specs.values():
        if only is not None and spec.name not in only:
            continue
        if spec.kind in ("pixels", "morphology"):
            encoder = Pixels() if spec.kind == "pixels" else Morphology()
            encoder.name = spec.name
            yield encoder
        else:
            yield Network(spec.name, *_open(spec, first, seed), batch, precision, compiled)


def read_spec(word: str) -> Spec:
    """Read a word that names an encoder.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: a kind that is not known, or one that needs a path and has none.
    """
    if not Path(word).exists() and (named := re.fullmatch(r"([\w+@.-]+?)=(.+)", word)):
        return replace(read_spec(named[2]), name=_file_name(named[1]))
    if word in BASELINES:
        return Spec(word, word)
    if Path(word).exists():
        return _read_run(Path(word))
    kind, _, place = word.partition(":")
    ending = next((e for e in READOUTS if e and kind.endswith(e)), "")
    base = kind.removesuffix(ending)
    if kind == "timm":
        return _read_timm(place)
    if (ending and base not in VITS) or base not in (*FILES, *HUB):
        if re.fullmatch(r"[a-z][\w+-]+:.*", word):
            raise ValueError(f"{word}: no kind of encoder {kind!r}; {_known()}")
        raise FileNotFoundError(f"no encoder {word!r}: neither a baseline nor a path; {_known()}")
    if not place and base in FILES:
        raise ValueError(f"{word}: a file is needed, as in {kind}:/path/to/weights")
    path = Path(place) if place else None
    if path and not path.exists():
        raise FileNotFoundError(f"{word}: no such file or folder: {place}")
    if base == "run":
        return _read_run(path)
    return Spec(kind, base, path, READOUTS[ending])


def find_folder(word: str) -> tuple[str, Path]:
    """Return the name and the encoder folder of a run; errors as of `read_spec`."""
    from evaluate.networks.run import encoder_folder

    spec = read_spec(word)
    if spec.kind != "run":
        raise ValueError(f"{word} is no run's encoder")
    return spec.name, encoder_folder(spec.path)


def _read_run(path: Path) -> Spec:
    from evaluate.networks.run import encoder_folder, run_name

    encoder_folder(path)  # or it says what is absent
    return Spec(_file_name(run_name(path)), "run", path)


def _read_timm(place: str) -> Spec:
    if not place:
        raise ValueError("timm: needs a model's name, as in timm:convnext_tiny.fb_in22k")
    name, _, file = place.rpartition(":")
    if name and name != "hf-hub" and not Path(file).is_file():
        raise FileNotFoundError(f"timm:{place}: no such file: {file}")
    if not name or name == "hf-hub":  # hf-hub:owner/name
        name, file = place, ""
    return Spec(
        _file_name(name.removeprefix("hf-hub:")), "timm", Path(file) if file else None, detail=name
    )


def _file_name(name: str) -> str:
    return re.sub(r"[^\w+=@.-]", "_", name)


def _known() -> str:
    files, hub = ", ".join(f"{kind}:PATH" for kind in FILES), ", ".join(HUB)
    return (
        f"there are {', '.join(BASELINES)}; PATH of a run, {files}; {hub}, each also with :PATH; "
        "timm:NAME; and transformers on tiles with the ending -center or +mean"
    )


def _open(spec: Spec, first: Path | None, seed: int) -> tuple:
    """Return a module, its config and facts; `first` is the first run, for `untrained`."""
    from evaluate.networks import imagenet, lemon, run, tile, volta

    if spec.kind == "untrained":
        return run.open_untrained(run.encoder_folder(first) if first else None, seed)
    if spec.kind == "run":
        return run.open_run(spec.path)
    if spec.kind == "lemon":
        return lemon.open_lemon(spec.path)
    if spec.kind == "volta":
        return volta.open_volta(spec.path)
    if spec.kind == "timm":
        return imagenet.open_timm(spec.detail, spec.path)
    if spec.kind == "efficientnet-lite0":
        return imagenet.open_lite(spec.path)
    if spec.kind in imagenet.RESNETS:
        return imagenet.open_resnet(spec.kind, spec.path)
    return tile.open_tile(spec.kind, spec.path, spec.readout)


BASELINES = ("pixels", "morphology", "untrained")
DINOBLOOM = ("dinobloom-s", "dinobloom-b", "dinobloom-l", "dinobloom-g")
FILES = ("run", "lemon", "volta", *DINOBLOOM)  # kinds that need a path
TILES = ("dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g", "uni", "virchow2", "h-optimus-0")
HUB = ("efficientnet-lite0", "resnet18", "resnet50", *TILES)  # whose weights come by themselves
VITS = (*TILES, *DINOBLOOM)  # which have tokens to read out
READOUTS = {"": "class", "+mean": "class+mean", "-center": "center"}  # by the kind's ending
