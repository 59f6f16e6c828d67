"""HoverFast's network: which pixels are nuclei, and where in its nucleus each of them lies.

From an RGB image a U-Net with two decoders predicts two logits a pixel (background, nucleus) and
two maps that run from -1 to 1 across each nucleus, from left to right and from top to bottom. Where
a map falls, one nucleus ends and another begins (HoVer-Net, Graham et al. 2019, section 3.1).
Parameter names are those of HoverFast's checkpoints, so that they load strictly.
"""

import torch
from torch import Tensor, nn

DEPTH = 3  # resolutions, each half of the one before
WIDTH = 4  # log2 of the filters at the first


class KernelPath(nn.Module):
    """Two convolutions of one kernel size, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            layers += [
                nn.Conv2d(channels, outputs, kernel, padding=kernel // 2),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Block(nn.Module):
    """A 3x3 and a 7x7 path side by side, joined by a 1x1 convolution (MSU-Net)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv_3 = KernelPath(inputs, outputs, 3)
        self.conv_7 = KernelPath(inputs, outputs, 7)
        self.conv = nn.Conv2d(2 * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([self.conv_3(x), self.conv_7(x)], dim=1))


class UpBlock(nn.Module):
    """Double the resolution and join the encoder's features of that resolution."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        self.conv_block = Block(inputs, outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv_block(torch.cat([self.up(x), skip], dim=1))


class HoverFast(nn.Module):
    """The network; a checkpoint's `depth` and `wf` are `depth` and `width`."""

    def __init__(self, depth: int = DEPTH, width: int = WIDTH):
        super().__init__()
        self.depth, self.width = depth, width
        filters = [2 ** (width + level) for level in range(depth)]
        steps = list(zip(filters[:0:-1], filters[-2::-1], strict=True))  # coarse to fine
        self.down_path = nn.ModuleList(
            Block(inputs, outputs)
            for inputs, outputs in zip([3, *filters[:-1]], filters, strict=True)
        )
        self.up_path = nn.ModuleList(UpBlock(*step) for step in steps)
        self.last = nn.Conv2d(filters[0], 2, 1)
        self.up_path_m = nn.ModuleList(UpBlock(*step) for step in steps)
        self.last_m = nn.Conv2d(filters[0], 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict nuclei and their maps.

        Args:
            image: (N, 3, H, W) in [0, 1]; H and W multiples of 2 ** (depth - 1).

        Returns:
            Logits (N, 2, H, W) of background and nucleus, maps (N, 2, H, W) along x and along y.
        """
        skips = []
        x = image
        for level, block in enumerate(self.down_path):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        nuclei = maps = skips.pop()
        for up, up_m, skip in zip(self.up_path, self.up_path_m, reversed(skips), strict=True):
            nuclei, maps = up(nuclei, skip), up_m(maps, skip)
        return self.last(nuclei), self.last_m(maps)
