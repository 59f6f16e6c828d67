"""The network at work: batch norm folded into its convolutions, in the fastest number format."""

import numpy as np
import torch
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
        return self.join_3(self.conv_3(x)).add_(self.join_7(self.conv_7(x)))


def fold(network: nn.Module) -> nn.Module:
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


class Predictor:
    """A network applied to whole images."""

    def __init__(self, network: HoverFast, device: str = "cpu", dtype: torch.dtype | None = None):
        """Take a network over: it is changed.

        Args:
            network: with weights.
            device: `cpu` or `cuda`.
            dtype: None: bfloat16 where the processor multiplies it, else float32; float16 on a GPU.
        """
        self.device = torch.device(device)
        self.multiple = 2 ** (network.depth - 1)
        if dtype is None:
            fast = self.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
            dtype = torch.float16 if self.device.type == "cuda" else torch.float32
            dtype = torch.bfloat16 if fast else dtype
        self.dtype = dtype
        folded = fold(network)
        self.network = folded.to(self.device, dtype).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict an image; what is missing to whole multiples is mirrored.

        Args:
            image: (H, W, 3) uint8 RGB at 0.25 µm/px.

        Returns:
            (H, W) float32, by how much nucleus outweighs background (logits' difference), and
            (2, H, W) float32 maps.
        """
        height, width = image.shape[:2]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            image = np.pad(image, ((0, down), (0, right), (0, 0)), "symmetric")
        x = torch.from_numpy(np.ascontiguousarray(image)).to(self.device)
        x = x.permute(2, 0, 1)[None].to(self.dtype).div_(255)
        logits, maps = self.network(x.contiguous(memory_format=torch.channels_last))
        odds = (logits[0, 1] - logits[0, 0])[:height, :width].float()
        return odds.cpu().numpy(), maps[0, :, :height, :width].float().cpu().numpy()
