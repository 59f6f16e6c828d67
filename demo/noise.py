"""Make random fields with a length scale: the raw material of every texture in the picture."""

import cv2
import numpy as np


def smooth(
    rng: np.random.Generator, height: int, width: int, scale: float, octaves: int = 1
) -> np.ndarray:
    """Draw a field that varies over about `scale` px, each further octave half as wide and strong.

    Args:
        rng: of every draw.
        height: px.
        width: px.
        scale: distance over which the coarsest octave varies, px, at least 1.

    Returns:
        (height, width) float32, mean about 0 and standard deviation about 1.
    """
    field = np.zeros((height, width), np.float32)
    weight = 1.0
    for _ in range(octaves):
        rows, columns = int(height / scale) + 4, int(width / scale) + 4
        knots = rng.standard_normal((rows, columns), np.float32)
        if scale > 1:
            shift = rng.random(2) * scale
            matrix = np.array([[1 / scale, 0, 1 + shift[0] / scale], [0, 1 / scale, 1]], np.float64)
            matrix[1, 2] += shift[1] / scale
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            knots = cv2.warpAffine(knots, matrix, (width, height), flags=flags)
        field += weight * knots[:height, :width]
        scale, weight = max(scale / 2, 1.0), weight / 2
    return (field - field.mean()) / (field.std() + 1e-6)


def along(field: np.ndarray, u: np.ndarray, v: np.ndarray, doublings: int) -> np.ndarray:
    """Smear a field along a flow: noise becomes fibres.

    Each doubling averages the field with itself a step up and down the flow, the step twice as
    long as the last, so n doublings cost 2n look-ups and reach 2^n px either way.

    Args:
        field: (H, W) float32.
        u: (H, W) float32, x part of the flow's unit vectors.
        v: (H, W) float32, y part.

    Returns:
        (H, W) float32, mean 0, standard deviation 1.
    """
    height, width = field.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for n in range(doublings):
        step = 0.75 * 2**n
        ahead = cv2.remap(
            field, x + step * u, y + step * v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        behind = cv2.remap(
            field, x - step * u, y - step * v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        field = (field + ahead + behind) / 3
    return (field - field.mean()) / (field.std() + 1e-6)


def ramp(field: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map `low` to 0 and `high` to 1, smoothly, and hold the ends.

    Returns:
        float32 of the field's shape, in [0, 1].
    """
    t = np.clip((field - low) / (high - low), 0, 1).astype(np.float32)
    return t * t * (3 - 2 * t)
