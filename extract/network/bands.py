"""The network on a CPU, a band of rows at a time.

A layer of a whole tile takes hundreds of megabytes, which the system hands out page by page and
which pass through memory: a third of the processor's time. A band's layers stay in its caches.
Each band reads the rows that its own depend on, so that the answer is the same.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from extract.network.architecture import HoverFast, UpBlock
from extract.network.folding import FoldedBlock

ROWS = 64  # of a band at the first resolution, twice as many at the next
REACH = 6  # rows on either side that a block's two convolutions of 7x7 depend on


class BandedNetwork:
    """A folded network whose memory serves one tile after the other; one call at a time."""

    def __init__(self, network: HoverFast, dtype: torch.dtype, rows: int = ROWS):
        """Take a network over.

        Args:
            network: from `fold`, in `dtype`.
            dtype: to compute in.
            rows: of a band at the first resolution, a multiple of 2.
        """
        self.network, self.dtype, self.rows = network, dtype, rows
        self.kept: dict[tuple[str, int], Tensor] = {}

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Predict as the network does.

        Args:
            image: (1, 3, H, W) uint8; H and W multiples of 2 ** (depth - 1).

        Returns:
            Logits (1, 2, H, W), maps (1, 2, H, W).
        """
        skips = self._encode(image)
        bottom, network = skips.pop(), self.network
        logits = self._decode("nuclei", network.up_path, bottom, skips, network.last)
        return logits, self._decode("maps", network.up_path_m, bottom, skips, network.last_m)

    def _encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of each resolution, the finest first."""
        skips, x = [], image
        for level, block in enumerate(self.network.down_path):
            assert isinstance(block, FoldedBlock)
            height, width = x.shape[2:]
            channels = block.join_3.out_channels
            features = self._space("features", level, channels, height, width)
            deeper, pooled = level + 1 < self.network.depth, x
            if deeper:
                pooled = self._space("pooled", level, channels, height // 2, width // 2)
            for first, last in _bands(height, self.rows << level):
                rows = _rows(x, first, last)
                rows = rows if level else rows.to(self.dtype).div_(255)
                band = _block(block, _beyond(rows, first, last, height), first, last, height)
                features[:, :, first:last] = band
                if deeper:
                    pooled[:, :, first // 2 : last // 2] = nn.functional.max_pool2d(band, 2)
            skips.append(features)
            x = pooled
        return skips

    def _decode(
        self, name: str, path: nn.ModuleList, x: Tensor, skips: list[Tensor], answer: nn.Conv2d
    ) -> Tensor:
        """Go back up to the first resolution; return what the last layer says there."""
        for level, up in zip(reversed(range(len(skips))), path, strict=True):
            assert isinstance(up, UpBlock) and isinstance(up.conv_block, FoldedBlock)
            skip = skips[level]
            height, width = skip.shape[2:]
            if level:
                out = self._space(name, level, up.up.out_channels, height, width)
            else:
                out = torch.empty((1, answer.out_channels, height, width), dtype=self.dtype)
            for first, last in _bands(height, self.rows << level):
                coarse = x[:, :, max(first - REACH, 0) // 2 : min(last + REACH, height) // 2]
                both = torch.cat([up.up(coarse), _rows(skip, first, last)], dim=1)
                both = _beyond(both, first, last, height)
                band = _block(up.conv_block, both, first, last, height)
                out[:, :, first:last] = band if level else answer(band)
            x = out
        return x

    def _space(self, name: str, level: int, channels: int, height: int, width: int) -> Tensor:
        """Return a channels-last tensor in memory that the last tile no longer needs."""
        size = channels * height * width
        space = self.kept.get((name, level))
        if space is None or space.numel() < size:
            space = self.kept[name, level] = torch.empty(size, dtype=self.dtype)
        return space[:size].view(1, height, width, channels).permute(0, 3, 1, 2)


def _bands(height: int, rows: int) -> Iterator[tuple[int, int]]:
    """Yield first and last (excluded) rows of about equal bands, all but the last even."""
    count = max(1, round(height / rows))
    edges = [height * i // count // 2 * 2 for i in range(count)] + [height]
    yield from pairwise(edges)


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Return a band's rows of x and REACH more on either side, as far as x goes; not copied."""
    return x[:, :, max(first - REACH, 0) : last + REACH]


def _beyond(x: Tensor, first: int, last: int, height: int) -> Tensor:
    """Add rows of zeros for those that lie beyond the tile."""
    above, below = max(REACH - first, 0), max(last + REACH - height, 0)
    return nn.functional.pad(x, (0, 0, above, below)) if above or below else x


def _block(block: FoldedBlock, x: Tensor, first: int, last: int, height: int) -> Tensor:
    """Return a block's answer for a band of a tile's rows.

    Args:
        block: to ask.
        x: the rows from first - REACH to last + REACH.
        first, last: of the band, last excluded.
        height: of the tile.
    """
    ends = []
    for before, after in block.convolutions():
        pad = before.kernel_size[0] // 2
        spare = REACH - 2 * pad
        middle = _convolve(before, x[:, :, spare : x.shape[2] - spare])
        # What the second convolution finds beyond the tile is zeros, not the first one's answer.
        middle[:, :, : max(pad - first, 0)] = 0
        middle[:, :, middle.shape[2] - max(last + pad - height, 0) :] = 0
        ends.append(_convolve(after, middle))
    return block.join(*ends)


def _convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve and rectify; rows without neighbours in x are left out."""
    padding = (0, layer.kernel_size[1] // 2)
    return nn.functional.conv2d(x, layer.weight, layer.bias, padding=padding).relu_()
