"""Encoders: ViTs and ResNets at 40 px, and the folder that holds one, in timm's hub layout.

Open one without this repository:

    model = timm.create_model("local-dir:runs/first/encoder", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)  # input_size (3, 40, 40), mean, std
    # input: (N, 3, 40, 40), ((rgb / 255) - data["mean"]) / data["std"]; output: (N, D)
"""

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shards.filetype import check_file
from shards.json_file import read_json
from shards.schema import MPP
from shards.write import atomic
from train.architecture import DINO_HEADS, ENCODERS, PATCH_PX, VITS
from train.batchnorm import BatchNorm2d
from train.network import Encoder, ViT
from train.vit import initialise

FORMAT = 2  # of what is ours in the folder's config.json; 1: all of it was
OWN = "lemon"  # the key of config.json that what is ours stands under
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")  # one of the two


def build_encoder(
    name: str,
    input_px: int = 40,
    seed: int = 0,
    kind: str = "moco",
    layer_scale: float = 0.0,
    heads: int = 0,
) -> Encoder:
    """Build a network as MoCo v3 or DINOv2 starts it.

    MoCo v3's ViTs: its own initialisation, fixed positions and frozen patch embedding (moco-v3,
    vits.py; `stop_grad_conv1`: the random patch projection is never trained). DINOv2's: timm's,
    which is dinov2's, everything trained; its ViT-S has 6 heads. ResNets, of MoCo v3 alone:
    timm's, everything trained, their BatchNorm over the images of all ranks (main_moco.py).

    Args:
        name: one of ENCODERS.
        input_px: side of the input, px; of a ViT a multiple of 8.
        seed: of the weights, which are a function of it alone.
        kind: `moco` or `dinov2`.
        layer_scale: what a ViT's residual branches' scales start at; 0: there are none.
        heads: of a ViT's attention, a divisor of the width; 0: the method's own.

    Returns:
        A module from (N, 3, input_px, input_px) to (N, D): a ViT's class token, the mean of a
        ResNet's last map.

    Raises:
        ValueError: unknown name, or a size that is no multiple of the patch.
    """
    import timm  # 2 s

    if name not in ENCODERS:
        raise ValueError(f"no encoder {name!r}; there are {', '.join(ENCODERS)}")
    timm_name, arguments = ENCODERS[name]
    arguments = {"num_classes": 0, "global_pool": "avg"} | arguments
    norm: dict[str, Any] = {"norm_layer": BatchNorm2d}  # no argument that a reader needs
    if name in VITS:
        if input_px % PATCH_PX or input_px < PATCH_PX:
            raise ValueError(f"an input of {input_px} px is no multiple of the {PATCH_PX}-px patch")
        arguments |= {"img_size": input_px, "global_pool": "token"}
        norm = {}
        if kind == "dinov2" and name in DINO_HEADS:
            arguments["num_heads"] = DINO_HEADS[name]
        if heads:
            arguments["num_heads"] = heads
        if layer_scale:
            arguments["init_values"] = layer_scale
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(timm_name, **arguments, **norm)
        if name in VITS and kind == "moco":
            initialise(cast(ViT, model))
    return described(model, timm_name, arguments, input_px)


def described(model: nn.Module, name: str, arguments: dict[str, Any], input_px: int) -> Encoder:
    """Write on a network of timm's what it is."""
    model = cast(Encoder, model)
    model.embed_dim = cast(int, model.num_features)
    model.timm_name, model.timm_arguments, model.input_px = name, arguments, input_px
    return model


def save_encoder(
    model: Encoder,
    folder: Path,
    mean: list[float],
    std: list[float],
    mpp: float,
    state: dict[str, Tensor] | None = None,
    **facts: object,
) -> None:
    """Write `model.safetensors` and `config.json` into a folder, each atomically, or neither.

    Args:
        model: made by build_encoder.
        folder: made if absent.
        mean: of the three channels, of images in [0, 1].
        std: likewise.
        mpp: scale of the images, µm/px.
        state: weights to write instead of the model's present ones.
        facts: what else the reader should know: network (student or teacher), step, run.

    Raises:
        NoRoom: the disk or the quota is full; the encoder before stays.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if state is None else state
    weights = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    own = {"format": FORMAT, "mpp": mpp, **facts, "sha256": hashlib.sha256(weights).hexdigest()}
    config = describe(model, mean, std) | {OWN: own}
    # Both are on disk before the weights, and then the config, take their names.
    with (
        atomic(folder / "config.json", "w") as text,
        atomic(folder / "model.safetensors", needed=len(weights)) as file,
    ):
        text.write(json.dumps(config, indent=1) + "\n")
        text.flush()
        file.write(weights)


def describe(model: Encoder, mean: list[float], std: list[float]) -> dict[str, Any]:
    """Return what timm asks of a config.json in its hub layout."""
    arguments = dict(model.timm_arguments)
    side = model.input_px
    return {
        "architecture": model.timm_name,
        "num_classes": arguments.pop("num_classes"),
        "num_features": model.embed_dim,
        "global_pool": arguments.pop("global_pool"),
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "fixed_input_size": "img_size" in arguments,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(mean),
            "std": list(std),
        },
    }


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config.json of an encoder folder: of this format, of format 1, or timm's alone.

    Returns:
        input_px, mpp, mean, std, timm's name and args, and whatever else the folder says of itself.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no encoder's, or of a later format.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no encoder folder: no config.json in it; give a run's encoder/ folder"
        )
    found = read_json(path, "copy the run's encoder/ again")
    try:
        hub = "architecture" in found
        config = _of_the_hub(found) if hub else found
        form = config.get("format", FORMAT) if hub else config["format"]
        for field in ("input_px", "mpp", "mean", "std", "timm"):
            config[field]
        for field in ("name", "args"):
            config["timm"][field]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = "no encoder's config: neither in timm's hub layout nor of a run"
        raise ValueError(f"{path} is {what} ({error!r})") from error
    if form not in (1, FORMAT):
        raise ValueError(
            f"{folder} is of encoder format {form}; this code reads 1 to {FORMAT}: update the code"
        )
    return config


def _of_the_hub(found: dict[str, Any]) -> dict[str, Any]:
    """Return a config in timm's hub layout as `read_config` does."""
    own, data = found.get(OWN, {}), found["pretrained_cfg"]
    arguments: dict[str, Any] = {"num_classes": 0} | dict(found.get("model_args", {}))
    if "global_pool" in found:
        arguments["global_pool"] = found["global_pool"]
    return {
        "input_px": int(data["input_size"][-1]),
        "mean": [float(v) for v in data["mean"]],
        "std": [float(v) for v in data["std"]],
        "timm": {"name": found["architecture"], "args": arguments},
        **own,
        "mpp": float(own.get("mpp", MPP)),
    }


def weight_files(folder: Path) -> list[Path]:
    """Return the file of an encoder folder's weights, or those that its index names.

    Raises:
        FileNotFoundError: there is neither, or a file that the index names is absent.
        ValueError: the index is none, or names a file elsewhere.
    """
    one, index = (folder / name for name in WEIGHTS)
    if one.is_file():
        return [one]
    if not index.is_file():
        raise FileNotFoundError(
            f"{folder} is no encoder folder: no {WEIGHTS[0]} in it, nor {WEIGHTS[1]}; give a run's "
            "encoder/ folder"
        )
    held = read_json(index, "copy the folder again")
    try:
        names = sorted(set(held["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights: {error!r}") from error
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} names a file elsewhere: {name!r}")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{index} names {name}, which is not there")
    return [folder / name for name in names]


def load_encoder(folder: Path) -> tuple[Encoder, dict[str, Any]]:
    """Load an encoder folder.

    Args:
        folder: as `save_encoder` writes it; weights in several files are read, too.

    Returns:
        The module in eval mode, from (N, 3, input_px, input_px) to (N, D), and the config.

    Raises:
        FileNotFoundError: the folder or one of its files is absent.
        ValueError: the files are of another format, or do not fit each other.
    """
    import timm
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config, state = read_config(folder), {}
    name, arguments = config["timm"]["name"], config["timm"]["args"]
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{folder}/config.json: timm {timm.__version__} has no model {name!r}")
    for path in weight_files(folder):
        check_file(path)
        try:
            state |= load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    model = timm.create_model(name, **arguments)
    expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    found = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong:
        k = wrong[0]
        raise ValueError(
            f"the weights in {folder} are not the {name} that its config.json describes: "
            f"{len(wrong)} tensors differ, first {k}: expected {expected.get(k, 'absent')}, "
            f"found {found.get(k, 'absent')}"
        )
    model.load_state_dict(state)
    return described(model, name, arguments, config["input_px"]).eval(), config
