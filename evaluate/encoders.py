"""Encoders by name: trained runs, other people's networks, and the baselines beside them.

runs/first, run:runs/first            a run's encoder; named `first`
runs/first/step-0000100.pt            one of its checkpoints; named `first@step-0000100`
lemon-NAME                            one that comes with the clone, in encoders/lemon-NAME/
lemon:weights/LEMON/                  the released lemon.pth.tar beside its mean_std.json
uni, uni:weights/pytorch_model.bin    weights of the hub, or of the publisher's file
uni-center                            its central tokens
timm:convnext_tiny.fb_in22k           whatever timm knows; timm:NAME:FILE for a local file
hf-hub:owner/name                     of the Hugging Face hub: what `push` put there, or timm's
pixels, morphology, untrained         baselines
…+mean, …+stages, …+tta, …+morphology any of them so (evaluate/endings.py), as virchow2+mean
mine=…                                any of them by another name
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from evaluate.baselines import Morphology, Pixels
from evaluate.endings import ENDINGS, READOUTS, Averaged, Encoder, WithMorphology, split
from evaluate.network import Network
from evaluate.networks import hub, imagenet, lemon, run, tile, volta
from evaluate.networks.readout import Stages, read_out
from train.shipped import find_shipped, shipped_names

HUB = "hf-hub"


@dataclass(frozen=True)
class Spec:
    """What a word on the command line means."""

    name: str  # of files and rows
    kind: str  # of ENCODERS
    path: Path | None = None  # of weights; None: of the hub, or there are none
    readout: str = "class"
    detail: str = ""  # timm's name, of kind timm; owner/name, of kind hf-hub
    endings: tuple[str, ...] = ()  # of evaluate/endings.py


@dataclass(frozen=True)
class Options:
    """How networks run."""

    seed: int = 0  # of the untrained network's weights
    batch: int | None = None  # crops a network takes at once; None: what suits the device
    precision: str = "fp32"  # or bf16
    compiled: bool = False  # pays from some ten thousand crops


@dataclass(frozen=True)
class Kind:
    """How the encoders of one name are opened."""

    load: Callable[[Spec, Options], Encoder]
    weights: str = ""  # `file` must be given; `hub`: a file may; '': there are none


def check_encoders(words: list[str]) -> dict[str, Spec]:
    """Return each encoder by its name, without opening any.

    Args:
        words: as in this file's docstring.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: an unknown kind, or two encoders of one name.
    """
    specs: dict[str, Spec] = {}
    for word in words:
        spec = read_spec(word)
        taken = ENCODERS.get(spec.name)  # a baseline's name is its own
        if spec.name in specs or (taken and not taken.weights and spec.kind != spec.name):
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
        only: names of those to open; the others still say what `untrained` is.

    Raises:
        FileNotFoundError: weights that neither a file nor the hub gives.
        ValueError: a file that is not the encoder's, or an ending that it does not take.
    """
    specs, options = check_encoders(words), Options(seed, batch, precision, compiled)
    first = next((spec.path for spec in specs.values() if spec.kind == "run"), None)
    for spec in specs.values():
        if only is None or spec.name in only:
            twin = spec.kind == "untrained"  # of the first run's architecture
            yield _open(replace(spec, path=first) if twin else spec, options)


def read_spec(word: str) -> Spec:
    """Read a word that names an encoder.

    Raises:
        FileNotFoundError: no such path, or no encoder in it.
        ValueError: a kind that is not known, or one that needs a path and has none.
    """
    if not Path(word).exists() and (named := re.fullmatch(r"([\w+@.-]+?)=(.+)", word)):
        return replace(read_spec(named[2]), name=_file_name(named[1]))
    ending = next((e for e in ENDINGS if word.endswith(e)), "")
    if ending and not any(Path(p).exists() for p in (word, word.partition(":")[2]) if p):
        return _ending(read_spec(word.removesuffix(ending)), (ending,))
    if Path(word).exists():
        return _read_run(Path(word))
    if shipped := find_shipped(word):
        return _read_run(shipped)
    kind, _, place = word.partition(":")
    if kind == "timm":
        return _read_timm(place)
    if kind == HUB:
        hub.check_name(place.partition("@")[0])
        return Spec(_file_name(place), HUB, detail=place)
    kind, endings = split(kind)
    base = kind.removesuffix("-center")
    if base not in ENCODERS or (base != kind and base not in tile.TILES):
        if re.fullmatch(r"[a-z][\w+-]+:.*", word):
            raise ValueError(f"{word}: no kind of encoder {kind!r}; {_known()}")
        raise FileNotFoundError(f"no encoder {word!r}: neither a baseline nor a path; {_known()}")
    weights = ENCODERS[base].weights
    if not place and weights == "file":
        raise ValueError(f"{word}: a file is needed, as in {kind}:/path/to/weights")
    if place and not weights:
        raise ValueError(f"{word}: {kind} has no weights to read")
    path = Path(place) if place else None
    if path and not path.exists():
        raise FileNotFoundError(f"{word}: no such file or folder: {place}")
    if path and base == "run":
        return _ending(_read_run(path), endings)
    return _ending(Spec(kind, base, path, "class" if base == kind else "center"), endings)


def find_folder(word: str) -> tuple[str, Path]:
    """Return the name and the encoder folder of a run; errors as of `read_spec`."""
    spec = read_spec(word)
    if spec.kind != "run" or spec.path is None:
        raise ValueError(f"{word} is no run's encoder")
    return spec.name, run.encoder_folder(spec.path)


def _read_run(path: Path) -> Spec:
    run.encoder_folder(path)  # or it says what is absent
    return Spec(_file_name(run.run_name(path)), "run", path)


def _read_timm(place: str) -> Spec:
    if not place:
        raise ValueError("timm: needs a model's name, as in timm:convnext_tiny.fb_in22k")
    name, _, file = place.rpartition(":")
    if name == HUB:
        return read_spec(place)
    if name and not Path(file).is_file():
        raise FileNotFoundError(f"timm:{place}: no such file: {file}")
    if not name:
        name, file = place, ""
    return Spec(
        _file_name(name.removeprefix(f"{HUB}:")), "timm", Path(file) if file else None, detail=name
    )


def _ending(spec: Spec, endings: tuple[str, ...]) -> Spec:
    """Add endings to a spec and its name."""
    if not endings:
        return spec
    both = (*spec.endings, *endings)
    if len(set(both)) < len(both):
        raise ValueError(f"{spec.name}{''.join(endings)}: {both[-1]} stands there twice")
    ordered = tuple(e for e in ENDINGS if e in both)
    readouts = [READOUTS[e] for e in ordered if e in READOUTS]
    if len(readouts) + (spec.readout == "center") > 1:
        raise ValueError(
            f"{spec.name}{''.join(ordered)}: central tokens, +mean and +stages are readouts of "
            "which one can be had; take one"
        )
    readout = readouts[0] if readouts else spec.readout
    name = spec.name.removesuffix("".join(spec.endings)) + "".join(ordered)
    return replace(spec, name=name, readout=readout, endings=ordered)


def _open(spec: Spec, options: Options) -> Encoder:
    encoder = ENCODERS[spec.kind].load(spec, options)
    if "+tta" in spec.endings:
        encoder = Averaged(encoder, spec.name)
    if "+morphology" in spec.endings:
        encoder = WithMorphology(encoder, spec.name)
    return encoder


def _file_name(name: str) -> str:
    return re.sub(r"[^\w+=@.-]", "_", name)


def _known() -> str:
    def names(weights: str) -> list[str]:
        return [name for name, kind in ENCODERS.items() if kind.weights == weights]

    files = ", ".join(f"{name}:PATH" for name in names("file"))
    return (
        f"there are {', '.join([*names(''), *shipped_names()])}; PATH of a run, {files}; "
        f"{', '.join(names('hub'))}, each also with :PATH; timm:NAME; hf-hub:OWNER/NAME; "
        f"transformers on tiles with the ending -center; any with the endings {', '.join(ENDINGS)}"
    )


def _network(open_module: Callable[..., tuple[nn.Module, dict, dict]], *fields: str) -> Callable:
    """Return a loader of a network, by a function of some of the spec's fields."""

    def load(spec: Spec, options: Options) -> Encoder:
        known = vars(spec) | {"seed": options.seed}
        module, config, facts = open_module(*(known[field] for field in fields))
        if spec.readout != "class":
            module = read_out(module, spec.readout, spec.name)
            config = config | {"readout": spec.readout}
            widths = [part.widths for part in module.modules() if isinstance(part, Stages)]
            config |= {"widths": widths[0]} if widths else {}
        return Network(
            spec.name, module, config, facts, options.batch, options.precision, options.compiled
        )

    return load


def _measured(baseline: Callable[[str], Encoder]) -> Callable[[Spec, Options], Encoder]:
    """Return a loader of a baseline, which has neither tokens nor weights."""

    def load(spec: Spec, options: Options) -> Encoder:
        if spec.readout != "class":
            raise ValueError(f"{spec.name}: {spec.kind} is no network; leave +mean and +stages out")
        return baseline(spec.name)

    return load


ENCODERS = {
    "pixels": Kind(_measured(Pixels)),
    "morphology": Kind(_measured(Morphology)),
    "untrained": Kind(_network(run.open_untrained, "path", "seed")),
    "run": Kind(_network(run.open_run, "path"), "file"),
    "lemon": Kind(_network(lemon.open_lemon, "path"), "file"),
    "volta": Kind(_network(volta.open_volta, "path"), "file"),
    "timm": Kind(_network(imagenet.open_timm, "detail", "path"), "name"),
    HUB: Kind(_network(hub.open_hub, "detail"), "name"),
    "efficientnet-lite0": Kind(_network(imagenet.open_lite, "path"), "hub"),
    "resnet18": Kind(_network(imagenet.open_resnet, "kind", "path"), "hub"),
    "resnet50": Kind(_network(imagenet.open_resnet, "kind", "path"), "hub"),
    **{
        name: Kind(_network(tile.open_tile, "kind", "path"), "hub" if known.hub else "file")
        for name, known in tile.TILES.items()
    },
}
