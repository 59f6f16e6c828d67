"""The network with less to compute: batch norm folded into its convolutions."""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from extract.network.architecture import Block, HoverFast, KernelPath


class FoldedBlock(nn.Module):
    """A `Block` whose joining convolution takes the two paths apart, so that nothing is copied."""

    def __init__(self, block: Block):
        super().__init__()
        self.conv_3, self.conv_7 = block.conv_3, block.conv_7
        half = block.conv.in_channels // 2
        self.join_3 = nn.Conv2d(half, block.conv.out_channels, 1)
        self.join_7 = nn.Conv2d(half, block.conv.out_channels, 1, bias=False)
        self.join_3.weight = nn.Parameter(block.conv.weight[:, :half].detach().clone())
        self.join_7.weight = nn.Parameter(block.conv.weight[:, half:].detach().clone())
        self.join_3.bias = block.conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.conv_3(x), self.conv_7(x))

    def join(self, path_3: Tensor, path_7: Tensor) -> Tensor:
        """Join what the two paths answered."""
        return self.join_3(path_3).add_(self.join_7(path_7))

    def convolutions(self) -> list[list[nn.Conv2d]]:
        """Return each path's two convolutions, the one of 3x3 first."""
        paths = (self.conv_3.block, self.conv_7.block)
        return [[layer for layer in path if isinstance(layer, nn.Conv2d)] for path in paths]


def fold(network: HoverFast) -> HoverFast:
    """Fold batch norm into convolutions, in place; the output stays the same but for rounding."""
    network.eval()
    for path in list(network.modules()):
        if isinstance(path, KernelPath):
            convolutions = [layer for layer in path.block if isinstance(layer, nn.Conv2d)]
            norms = [layer for layer in path.block if isinstance(layer, nn.BatchNorm2d)]
            path.block = nn.Sequential()
            for convolution, norm in zip(convolutions, norms, strict=True):
                path.block.append(fuse_conv_bn_eval(convolution, norm))
                path.block.append(nn.ReLU(inplace=True))
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Block):
                setattr(parent, name, FoldedBlock(child))
    return network
