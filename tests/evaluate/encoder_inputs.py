"""What the tests of encoders put in: smooth crops, normalised as a network wants them."""

import cv2
import numpy as np
import torch

from evaluate.encoders import open_encoders


def smooth_crops() -> np.ndarray:
    """Return (6, 40, 40, 3) uint8, so smooth that bicubic filters do not leave 0-255."""
    noise = np.random.default_rng(0).uniform(60, 200, (6, 40, 40, 3))
    return np.stack([cv2.GaussianBlur(crop, (0, 0), 2) for crop in noise]).round().astype(np.uint8)


def normalised(crops: np.ndarray, mean, std) -> torch.Tensor:
    x = (crops / 255 - np.array(mean)) / np.array(std)
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))


def opened(word: str):
    (encoder,) = open_encoders([word], batch=4)
    return encoder
