"""Estimate a slide's haematoxylin and eosin after Macenko, and unmix pixels with them."""

from dataclasses import dataclass

import cv2
import numpy as np

WHITE = 240  # transmitted light of empty glass, grey value (torchstain's Io)
MIN_DENSITY = 0.15  # a pixel with any channel below this is glass, not stain (torchstain's beta)
PERCENTILE = 1.0  # the extreme angles are this percentile and its mirror (torchstain's alpha)
MIN_STAINED = 200  # pixels; fewer say nothing about two directions
MIN_ANGLE = 10.0  # degrees between the two stains; nearer ones cannot be told apart
MIN_COSINE = 0.94  # with a published stain (20°; TCGA stays under 14°): farther is ink or blood
MIN_RED = 0.12  # by which haematoxylin takes more red than eosin does (TCGA: 0.21 and more)
MAX_PIXELS = 1_000_000  # no more are needed; beyond, an even stride is taken

# Macenko's reference for H&E, (2, 3) rows over RGB, and its 99th percentiles (torchstain HERef).
REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
REFERENCE /= np.linalg.norm(REFERENCE, axis=1, keepdims=True)
REFERENCE_MAX = np.array([1.9705, 1.0308])
# Ruifrok & Johnston 2001, Anal. Quant. Cytol. Histol. 23: their eosin is 30° from the reference's,
# and slides are found between the two (a third of MIDOG21's in AMi-Br near this one).
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
RUIFROK /= np.linalg.norm(RUIFROK, axis=1, keepdims=True)

_DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / WHITE)


@dataclass(frozen=True)
class Stain:
    """The stains of one slide.

    Attributes:
        matrix: (2, 3) float64, unit rows over RGB: haematoxylin, eosin.
        max_concentration: (2,) float64, their 99th percentiles over the slide's tissue.
        fallback: whether the matrix is the reference, or another that was given for the case,
            because none could be estimated.
        lab_mean, lab_sd: (3,) float64 of the tissue's pixels in CIE L*a*b* (sRGB, D65; L 0 to 100,
            a and b signed); None where they were not measured.
    """

    matrix: np.ndarray
    max_concentration: np.ndarray
    fallback: bool
    lab_mean: np.ndarray | None = None
    lab_sd: np.ndarray | None = None


def optical_density(rgb: np.ndarray) -> np.ndarray:
    """Return -ln((I + 1) / 240) of each channel, float32 of the same shape.

    Above glass (I > 239) it is slightly negative, as in torchstain.

    Args:
        rgb: (..., 3) uint8.
    """
    return _DENSITY[rgb]


def macenko(pixels: np.ndarray, otherwise: np.ndarray = REFERENCE) -> Stain:
    """Estimate the stains as the extreme angles in the plane of the pixels' optical densities.

    Macenko 2009, with torchstain's constants (`normalizers/macenko.py`); the haematoxylin is the
    one with the larger red component. Where the estimate is ill-posed (few stained pixels, one
    stain, near-parallel or implausible vectors) `otherwise` is returned and marked.

    Args:
        pixels: (N, 3) uint8 RGB, of tissue; glass among them is dropped for the matrix but
            lowers the 99th percentiles.
        otherwise: (2, 3) unit rows, haematoxylin and eosin, of what is known beside the pixels.

    Raises:
        ValueError: the shape or type is another.
    """
    if pixels.ndim != 2 or pixels.shape[1] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be (N, 3) uint8, found {pixels.shape} {pixels.dtype}")
    pixels = pixels[:: max(1, len(pixels) // MAX_PIXELS)]
    density = optical_density(pixels).astype(np.float64)
    stained = density[(density >= MIN_DENSITY).all(axis=1)]
    if len(stained) < MIN_STAINED:
        return Stain(otherwise, REFERENCE_MAX, fallback=True)
    matrix = _extreme_directions(stained)
    fallback = not _plausible(matrix)
    if fallback:
        matrix = otherwise
    concentration = density @ np.linalg.pinv(matrix)  # (N, 2)
    high = np.percentile(concentration, 99, axis=0)
    if fallback:  # of a single stain the other's percentile is near 0: no scale to divide by
        high = np.maximum(high, REFERENCE_MAX / 4)
    return Stain(matrix, high, fallback)


def lab_statistics(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and sd of L*, a*, b* (as in `Stain`) over the pixels but glass, (3,) each.

    Args:
        pixels: (N, 3) uint8 RGB; glass is what absorbs less than MIN_DENSITY in every channel.
    """
    pixels = pixels[:: max(1, len(pixels) // MAX_PIXELS)]
    stained = pixels[(optical_density(pixels) >= MIN_DENSITY).any(axis=1)]
    if not len(stained):
        stained = pixels
    lab = cv2.cvtColor(stained[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return lab.mean(axis=0, dtype=np.float64), lab.std(axis=0, dtype=np.float64)


def concentrations(rgb: np.ndarray, stain: Stain) -> np.ndarray:
    """Unmix pixels by least squares into haematoxylin and eosin.

    Args:
        rgb: (..., 3) uint8.

    Returns:
        (..., 2) float32, not clipped: what is no mixture of the two may be negative.
    """
    return optical_density(rgb) @ np.linalg.pinv(stain.matrix).astype(np.float32)


def _extreme_directions(density: np.ndarray) -> np.ndarray:
    """Return the two unit directions at the robust ends of the fan of densities, (2, 3), H first.

    Args:
        density: (N, 3) of stained pixels.
    """
    _, vectors = np.linalg.eigh(np.cov(density.T))
    plane = vectors[:, [2, 1]]  # (3, 2), the larger first
    # Eigenvectors have no sign: point the first along the densities, so that no angle wraps.
    plane = plane * np.where(plane.sum(axis=0) < 0, -1, 1)
    angle = np.arctan2(*(density @ plane).T[::-1])
    ends = np.percentile(angle, [PERCENTILE, 100 - PERCENTILE])
    pair = np.stack([np.cos(ends), np.sin(ends)], axis=1) @ plane.T
    return pair[np.argsort(-pair[:, 0])]


def _plausible(matrix: np.ndarray) -> bool:
    """Tell whether two directions may be haematoxylin and eosin."""
    cosine = np.clip((matrix[0] * matrix[1]).sum(), -1, 1)
    apart = np.degrees(np.arccos(cosine)) >= MIN_ANGLE
    near = np.max([(matrix * known).sum(axis=1) for known in (REFERENCE, RUIFROK)], axis=0)
    redder = matrix[0, 0] - matrix[1, 0] >= MIN_RED
    return bool(apart and (near >= MIN_COSINE).all() and redder)
