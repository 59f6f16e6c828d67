"""VOLTA (Nakhli et al. 2024): a pre-activation ResNet-18 on nuclei of 32 px."""

from pathlib import Path

import torch
from torch import Tensor, nn

from evaluate.networks.readout import Resized
from evaluate.networks.weights import digest, fit
from shards.schema import MPP
from shards.weights import read_state

PREFIX = "module.encoder_k."  # the momentum encoder, which the authors embed with
INPUT_PX = 32
MEAN, STD = (0.5452, 0.3847, 0.5605), (0.1911, 0.1716, 0.1435)  # their ovarian's and NuCLS'


class Block(nn.Module):
    """Two 3x3 convolutions, each after its batch norm and ReLU (He et al. 2016b)."""

    def __init__(self, into: int, out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(into)
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or into != out:
            self.shortcut = nn.Sequential(nn.Conv2d(into, out, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(x).relu()
        x = x if self.shortcut is None else self.shortcut(y)
        return x + self.conv2(self.bn2(self.conv1(y)).relu())


class PreActResNet18(nn.Module):
    """A 3x3 stem without pooling, four stages of two blocks, the mean over space.

    After the last block there is neither batch norm nor ReLU, as in VOLTA's backbones/resnet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 512) for (N, 3, 32, 32)."""
        for stage in (self.conv1, self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x.mean(dim=(2, 3))


def open_volta(path: Path) -> tuple[nn.Module, dict, dict]:
    """Load the momentum encoder of a `checkpoint.pth.tar`.

    Paper leaves open: which of VOLTA's checkpoints it took, and how nuclei were cut for it, where
    its authors take tight squares around masks; here: the one that is given, on the whole window,
    resized to 32 px as OpenCV's INTER_CUBIC does, normalised as for its NuCLS.

    Returns:
        The module from normalised images (N, 3, P, P) to (N, 512), the config of its input, and
        facts on its weights.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not this network's.
    """
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in read_state(path).get("state_dict", {}).items()
        if name.startswith(PREFIX) and not name.startswith(f"{PREFIX}fc.")
    }
    if not state:
        raise ValueError(f"{path} is no VOLTA checkpoint: no {PREFIX}* under state_dict")
    with torch.device("meta"):
        network = PreActResNet18()
    fit(network, state, f"{path} as VOLTA")
    config = {"input_px": None, "resize_px": INPUT_PX, "interpolation": "bicubic, OpenCV's"}
    config |= {"mpp": MPP, "mean": list(MEAN), "std": list(STD), "readout": "mean over space"}
    module = Resized(network, INPUT_PX, antialias=False)
    return module, config, {"kind": "volta", "sha256": digest(path)}
