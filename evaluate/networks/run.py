"""Encoders of our own runs: the encoder/ folder, any of its checkpoints, or its untrained twin."""

import re
from pathlib import Path

import torch
from torch import nn

from evaluate.networks.hub_folder import WEIGHTS, is_hub_folder, open_hub_folder
from evaluate.networks.weights import digest, fit
from shards.weights import read_state
from train.encoder import read_config

STEP = re.compile(r"step-\d{7}\.pt")
NETWORKS = {"student": "encoder.", "teacher": "teacher_encoder."}  # prefixes in a checkpoint


def encoder_folder(path: Path) -> Path:
    """Return the encoder/ folder that a run's folder, itself, or a checkpoint belongs to.

    Raises:
        FileNotFoundError: there is no encoder in it.
    """
    path = Path(path)
    if path.is_file():
        folder, needed = path.resolve().parent / "encoder", ("config.json",)
        if not STEP.fullmatch(path.resolve().name):
            raise FileNotFoundError(
                f"{path} is no encoder: a file of a run is called step-0000100.pt; other weights "
                f"are given by their kind, as in lemon:{path}"
            )
    else:
        inner = path / "encoder"
        folder = inner if inner.is_dir() else path
        split = is_hub_folder(folder) and not (folder / WEIGHTS[0]).is_file()
        needed = (WEIGHTS[1] if split else WEIGHTS[0], "config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{path} is no encoder: no {missing[0]} in {folder}; give a run's folder that has "
            "encoder/, written by train/main.py"
        )
    return folder


def run_name(path: Path) -> str:
    """Return the run's name, of a checkpoint `<run>@step-0000100`."""
    whole = path.resolve()
    if whole.is_file():
        return f"{whole.parent.name}@{whole.stem}"
    whole = encoder_folder(path).resolve()
    return whole.parent.name if whole.name == "encoder" else whole.name


def open_run(path: Path) -> tuple[nn.Module, dict, dict]:
    """Load a run's encoder, or the same network out of one of its checkpoints.

    A checkpoint says neither its scale nor its normalisation nor which network is exported (the
    student of MoCo v3, the teacher of DINOv2); the run's encoder/config.json does.

    Returns:
        The module from normalised images (N, 3, input_px, input_px) to (N, D), the config of its
        input, and facts on its weights.

    Raises:
        FileNotFoundError: no encoder there.
        ValueError: the files are of another format, or do not fit each other.
    """
    folder = encoder_folder(path)
    if path.is_dir():
        return open_hub_folder(folder)
    import timm

    config = read_config(folder)
    saved = read_state(path)
    if "model" not in saved or config.get("network") not in NETWORKS:
        raise ValueError(
            f"{path} is no checkpoint of a run, or {folder / 'config.json'} does not say which "
            f"network is exported ({', '.join(NETWORKS)})"
        )
    prefix = NETWORKS[config["network"]]
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in saved["model"].items()
        if name.startswith(prefix)
    }
    with torch.device("meta"):
        module = timm.create_model(config["timm"]["name"], **config["timm"]["args"])
    fit(module, state, f"{prefix}* of {path} as {config['timm']['name']}")
    config |= {"step": saved["step"]}
    for name in ("images", "sha256", "knn"):  # as of the last step, not of this one
        config.pop(name, None)
    return module, config, {"kind": "run", "sha256": digest(path)}


def open_untrained(first: Path | None, seed: int) -> tuple[nn.Module, dict, dict]:
    """Initialise a run's architecture anew, on its input; without a run a ViT-Ti/8.

    Args:
        first: the run, or one of its checkpoints.
        seed: of the weights.

    Raises:
        ValueError: the run's architecture is none that train/ builds.
    """
    from train.encoder import ENCODERS, build_encoder

    # 0.5 and 0.25 are about the mean and s.d. of H&E where no data set has said its own.
    architecture, heads, config = "vit_ti8", 0, {"input_px": 40, "mpp": 0.25}
    config |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    if first:
        trained = open_run(first)[1]
        config = {k: trained[k] for k in config}
        timm_name = trained["timm"]["name"]
        given = trained["timm"]["args"]
        names = [
            name
            for name, (known, own) in ENCODERS.items()
            if known == timm_name
            and all(given.get(k) == own[k] for k in own if k != "num_heads")  # taken over below
        ]
        if not names:
            raise ValueError(f"untrained: {first} is a {timm_name}, which train/ does not build")
        architecture, heads = names[0], given.get("num_heads", 0)
    module = build_encoder(architecture, input_px=config["input_px"], seed=seed, heads=heads)
    facts = {"kind": "random initialisation", "architecture": architecture, "seed": seed}
    return module, config, facts
