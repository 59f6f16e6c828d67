"""What is read out of a transformer's tokens or a convolutional network's stages; resampling."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.network import stage_means, stage_widths

CENTER = 4  # patches along a side of the "center tokens"


class Resized(nn.Module):
    """A network behind a resampling of its input to its own side."""

    def __init__(
        self, network: nn.Module, side: int, mode: str = "bicubic", antialias: bool = True
    ):
        """Wrap a network.

        Args:
            network: from (N, 3, side, side).
            side: px.
            mode: `bicubic` or `bilinear`.
            antialias: as Pillow (bicubic with a = -0.5); False: as OpenCV's INTER_CUBIC (-0.75).
        """
        super().__init__()
        self.network = network
        self.side, self.mode, self.antialias = side, mode, antialias

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D) for normalised images (N, 3, P, P) of any side P."""
        if x.shape[-1] != self.side:
            x = F.interpolate(x, size=self.side, mode=self.mode, antialias=self.antialias)
        return self.network(x)


class Readout(nn.Module):
    """A transformer's class token, with the mean of its patches, or its central patches' mean."""

    def __init__(self, transformer: Any, readout: str):
        """Wrap timm's VisionTransformer; `readout`: class, class+mean or center."""
        super().__init__()
        self.transformer, self.readout = transformer, readout

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D), of class+mean (N, 2 D).

        Paper, A.6: "center tokens" are "the mean embedding of the 4×4 centered patch tokens";
        class and register tokens come first and are no patches.
        """
        tokens = self.transformer.forward_features(x)  # (N, prefix + G * G, D)
        if self.readout == "class":
            return tokens[:, 0]
        patches = tokens[:, self.transformer.num_prefix_tokens :]
        if self.readout == "class+mean":
            return torch.cat([tokens[:, 0], patches.mean(dim=1)], dim=1)
        grid = self.transformer.patch_embed.grid_size[0]
        start = (grid - CENTER) // 2
        square = patches.unflatten(1, (grid, grid))  # (N, G, G, D)
        return square[:, start : start + CENTER, start : start + CENTER].mean(dim=(1, 2))


class Stages(nn.Module):
    """The means over the image of a convolutional network's last stages, side by side."""

    def __init__(self, network: Any):
        """Wrap one of timm's networks."""
        super().__init__()
        self.network = network
        self.widths = stage_widths(network)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, sum of widths)."""
        return stage_means(self.network, x)


def read_out(module: nn.Module, readout: str, name: str) -> nn.Module:
    """Return a network that gives another readout than its own.

    Args:
        module: one of timm's, or one inside Resized or Readout.
        readout: as of `Readout`, or `stages`.
        name: of the encoder, for the error.

    Raises:
        ValueError: the network has no class token, or no stages.
    """
    if isinstance(module, Resized):
        module.network = read_out(module.network, readout, name)
        return module
    transformer = isinstance(module, Readout) or getattr(module, "num_prefix_tokens", 0) > 0
    if readout == "stages":
        if transformer or not hasattr(module, "forward_intermediates"):
            raise ValueError(
                f"{name}: a {type(module).__name__} has no stages of growing width; "
                "take +mean for a transformer"
            )
        return Stages(module)
    if isinstance(module, Readout):
        module.readout = readout
        return module
    if not transformer:
        raise ValueError(
            f"{name}: a {type(module).__name__} has no class token beside patches; its embedding "
            "is a mean over the image already; take +stages for more of it"
        )
    return Readout(module, readout)
