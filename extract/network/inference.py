"""The network at work on whole images, in the fastest number format."""

import numpy as np
import torch

from extract.network.architecture import HoverFast
from extract.network.bands import BandedNetwork
from extract.network.folding import fold


class Predictor:
    """A network applied to whole images."""

    def __init__(
        self,
        network: HoverFast,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ):
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
        self.banded = BandedNetwork(self.network, dtype) if self.device.type == "cpu" else None

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
        x = x.permute(2, 0, 1)[None]  # channels last
        logits, maps = self.banded(x) if self.banded else self.network(x.to(self.dtype).div_(255))
        odds = (logits[0, 1] - logits[0, 0])[:height, :width].float()
        return odds.cpu().numpy(), maps[0, :, :height, :width].float().cpu().numpy()
