"""Patches to train on: turned, resized, restained, blurred, with what the network should say."""

import cv2
import numpy as np
from scipy.ndimage import find_objects

from extract.network.fields import UNKNOWN, Field

PATCH_PX = 256
SCALE = (0.75, 1.33)  # of a patch against its field, log-uniform
EDGE_PX = 96  # how near the field's edge a patch's centre may lie
# Optical densities of haematoxylin, eosin and a rest (Ruifrok and Johnston 2001).
STAINS = np.array([[0.65, 0.704, 0.286], [0.072, 0.99, 0.105], [0.268, 0.57, 0.776]], np.float32)
STAIN_SCALE, STAIN_SHIFT = 0.45, 0.06
BRIGHTNESS, CONTRAST, GAMMA = 0.12, 0.25, 0.35
BLUR_SIGMA = 1.6  # px
NOISE = 12.0  # grey levels
JPEG_QUALITY = (40, 95)


def draw_patch(
    fields: list[Field], weights: np.ndarray, key: tuple[int, ...], size: int = PATCH_PX
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw a patch, a pure function of the key.

    Args:
        fields: to draw from.
        weights: (len(fields),) probabilities.
        key: seed, step, place in the batch.
        size: side, px.

    Returns:
        What `targets` returns, after the image (size, size, 3) uint8.
    """
    rng = np.random.default_rng(key)
    field = fields[rng.choice(len(fields), p=weights)]
    image, labels = _turn(field, rng, size)
    return _recolour(image, rng), *targets(labels, field.has_instances)


def targets(labels: np.ndarray, has_instances: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the network's targets (hoverfast/training_utils.py, make_maps).

    Args:
        labels: (H, W) uint16 ids.
        has_instances: whether touching nuclei have ids of their own.

    Returns:
        (H, W) int64: 1 nucleus, 0 background, -100 unknown; (2, H, W) float32 maps; (H, W) float32:
        1 where the maps are known.
    """
    height, width = labels.shape
    unknown = labels == UNKNOWN
    ids = np.where(unknown, 0, labels).astype(np.int32)
    nuclei = np.where(unknown, -100, ids > 0).astype(np.int64)
    maps = np.zeros((2, height, width), np.float32)
    if not has_instances:
        return nuclei, maps, np.zeros((height, width), np.float32)
    boxes = find_objects(ids)
    span = np.zeros((len(boxes) + 1, 4), np.float32)  # left, width - 1, top, height - 1
    cut = np.zeros(len(boxes) + 1, bool)
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        rows, columns = box
        span[number, :2] = columns.start, columns.stop - columns.start - 1
        span[number, 2:] = rows.start, rows.stop - rows.start - 1
        cut[number] = (
            rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        )
    y, x = np.nonzero(ids)
    left, across, top, down = span[ids[y, x]].T
    maps[0, y, x] = 2 * (x - left) / np.maximum(across, 1) - 1
    maps[1, y, x] = 2 * (y - top) / np.maximum(down, 1) - 1
    known = (~unknown & ~cut[ids]).astype(np.float32)
    return nuclei, maps * known, known


def _turn(field: Field, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a patch at any angle and scale, mirrored half of the time."""
    height, width = field.labels.shape
    centre = rng.uniform((EDGE_PX, EDGE_PX), (width - EDGE_PX, height - EDGE_PX))
    angle = rng.uniform(0, 2 * np.pi)
    scale = np.exp(rng.uniform(*np.log(SCALE)))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.array([[cos, -sin], [sin, cos]])
    turn[:, 0] *= rng.choice((-1, 1))
    matrix = np.column_stack([turn, centre - turn @ np.full(2, (size - 1) / 2)])
    flags = cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(
        field.image, matrix, (size, size), None, flags | cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101
    )
    labels = cv2.warpAffine(
        field.labels,
        matrix,
        (size, size),
        None,
        flags | cv2.INTER_NEAREST,
        cv2.BORDER_CONSTANT,
        UNKNOWN,
    )
    return image, labels


def _recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary stains, light, sharpness and noise as laboratories and scanners do."""
    values = image.astype(np.float32)
    if rng.random() < 0.85:
        density = -np.log((values + 1) / 256)
        amounts = density.reshape(-1, 3) @ np.linalg.inv(STAINS)
        amounts *= 1 + rng.uniform(-STAIN_SCALE, STAIN_SCALE, 3).astype(np.float32)
        amounts += rng.uniform(-STAIN_SHIFT, STAIN_SHIFT, 3).astype(np.float32)
        values = 256 * np.exp(-(amounts @ STAINS).reshape(values.shape)) - 1
    if rng.random() < 0.5:
        gain = 1 + rng.uniform(-CONTRAST, CONTRAST)
        values = (values - 128) * gain + 128 + 255 * rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    values = np.clip(values, 0, 255)
    if rng.random() < 0.3:
        values = 255 * (values / 255) ** np.exp(rng.uniform(-GAMMA, GAMMA))
    if rng.random() < 0.4:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, BLUR_SIGMA))
    if rng.random() < 0.3:
        values = values + rng.uniform(0, NOISE) * rng.standard_normal(values.shape, np.float32)
    image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(*JPEG_QUALITY))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR)
        assert decoded is not None
        image = np.asarray(decoded, np.uint8)
    return image
