"""What a run's encoders start from instead of random weights: an encoder folder."""

from pathlib import Path
from typing import Any

from train.encoder import load_encoder
from train.method import Method
from train.shipped import find_shipped, shipped_names


def find_encoder(word: str) -> Path:
    """Return the encoder folder that is meant by a path of it, of its run, or by a name.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(word)
    for folder in (path / "encoder", path, find_shipped(word)):
        if folder and (folder / "config.json").is_file():
            return folder
    names = shipped_names()
    there = f"; with the clone come {', '.join(names)}" if names else ""
    raise FileNotFoundError(
        f"no encoder {word!r}: neither a folder with config.json and model.safetensors, nor a run "
        f"that has such a folder encoder/{there}"
    )


def start_from(word: str, model: Method) -> None:
    """Give student and teacher the weights of an encoder folder, running statistics too.

    Args:
        word: as for `find_encoder`.
        model: before its first step.

    Raises:
        FileNotFoundError: no encoder there.
        ValueError: it cannot be read, or is of another architecture or input size.
    """
    found, _ = load_encoder(find_encoder(word))
    ours, theirs = (
        {"network": one.timm_name, "input_px": one.input_px, **one.timm_arguments}
        for one in (model.encoder, found)
    )
    other = [
        f"{name} is {_said(theirs.get(name))} there, {_said(ours.get(name))} here"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]
    if other:
        raise ValueError(
            f"--init {word} is another encoder than the run's ({'; '.join(other)}): give the "
            "--encoder and --heads that it was trained with, or start without --init"
        )
    for encoder in (model.encoder, model.teacher_encoder):
        encoder.load_state_dict(found.state_dict())


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
