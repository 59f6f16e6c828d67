"""Models that map an image to labelled nuclei, as TorchScript: InstanSeg's exports and their like.

The contract is that of InstanSeg's bioimage.io packages: in, (1, 3, H, W) float32 RGB of a stated
scale, each channel stretched between its 0.1 and 99.9 percentile; out, (1, C, H, W) instance
labels, nuclei first, 0 background. A TorchScript file is code: run none that you do not trust.
"""

from pathlib import Path

import cv2
import numpy as np
import torch

from extract.gpu import device, full_memory
from extract.segment.options import TorchScript
from shards.filetype import check_archive, check_file, describe
from shards.schema import MPP
from shards.stain import Stain

PERCENTILES = (0.1, 99.9)


class ScriptedSegmenter:
    """A scripted model that segments tiles of 0.25 µm/px."""

    def __init__(self, path: Path, asked: TorchScript):
        """Load the model onto the GPU, if there is one.

        Raises:
            ValueError: the file is no TorchScript, or the GPU's memory is full.
        """
        self.asked = asked
        self.device = device()
        check_file(path)
        check_archive(path)
        with full_memory():
            try:
                self.model = torch.jit.load(str(path), map_location=self.device).eval()
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"{path} is no TorchScript model, but {describe(path)} of another content; "
                    "torch.jit.save writes one"
                ) from error

    @torch.inference_mode()
    def __call__(self, rgb: np.ndarray, stain: Stain) -> np.ndarray:
        """Label the nuclei of a tile.

        Args:
            rgb: (H, W, 3) uint8 at 0.25 µm/px.
            stain: of the slide; not looked at.

        Returns:
            (H, W) int32, 0 background.

        Raises:
            ValueError: what the model gives is no label image of its input's size; or the GPU's
                memory is full.
        """
        height, width = rgb.shape[:2]
        shrink = self.asked.mpp / MPP
        size = (max(round(width / shrink), 1), max(round(height / shrink), 1))
        kind = cv2.INTER_AREA if shrink > 1 else cv2.INTER_CUBIC
        image = cv2.resize(rgb, size, interpolation=kind) if shrink != 1 else rgb
        pixels = torch.from_numpy(self._normalise(image)).permute(2, 0, 1)[None]
        with full_memory():
            x = pixels.to(self.device)
            found = self.model(x)
        if not isinstance(found, torch.Tensor) or found.shape[-2:] != x.shape[-2:]:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(
                f"the model returns {shape} for {tuple(x.shape)}; (1, C, H, W) labels are needed"
            )
        labels = found.reshape(-1, *found.shape[-2:])[0].round().to(torch.int32).cpu().numpy()
        if labels.min(initial=0) < 0:
            raise ValueError("the model gives negative numbers; labels are needed, 0 background")
        if shrink == 1:
            return labels
        return cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)

    def _normalise(self, image: np.ndarray) -> np.ndarray:
        """Return (H, W, 3) float32."""
        values = image.astype(np.float32)
        if self.asked.normalise == "255":
            return values / 255
        if self.asked.normalise == "none":
            return values
        low, high = np.percentile(values, PERCENTILES, axis=(0, 1)).astype(np.float32)
        return (values - low) / np.maximum(high - low, 1e-3)
