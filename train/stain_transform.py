"""Stains of batches of images, in torch: Macenko's matrices of whole slides, LAB templates.

Macenko: estimate a slide's two stains from a pool of its pixels (`fit`; a crop of one nucleus
shows too little of them), then unmix, change and mix again. Constants and formulas are torchstain's
(`normalizers/macenko.py`, `augmentors/macenko.py`), but that 240 exp(-density) has the 1 taken off
again that the density adds, so that unmixing and mixing by one matrix changes nothing.

LAB: Reinhard's transfer of a channel's mean and sd to a template drawn from the data set's mixture
(RandStainNA, Shen et al. 2022), in the colour space of shards/colour.py.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shards.colour import WHITE as WHITE_POINT
from shards.colour import XYZ
from shards.stain import MIN_DENSITY, REFERENCE, REFERENCE_MAX, WHITE, Stain, macenko
from train.constants import constant

# A stain whose 99th percentile is below this share of the reference's is all but absent: scaled to
# a target's percentile, its noise would become the picture.
LEAST = 0.1
_MATRIX = XYZ / WHITE_POINT[:, None]  # of linear RGB, to CIE XYZ of which white is 1
TO_XYZ = tuple(map(tuple, _MATRIX.tolist()))
FROM_XYZ = tuple(map(tuple, np.linalg.inv(_MATRIX).tolist()))
MIN_SD = 1.0  # of L, a, b: an image as flat as this is not spread, nor is any image made flatter


class Stains(NamedTuple):
    """The stains of N images, or of one slide that all images are of (N = 1)."""

    matrix: Tensor  # (N, 2, 3) float, unit rows over RGB: haematoxylin, eosin
    maximum: Tensor  # (N, 2) float, 99th percentile of each one's concentration


def fit(images: Tensor, otherwise: np.ndarray = REFERENCE) -> Stain:
    """Estimate the stains of a slide from the pixels of many of its images.

    Never raises for want of stain: where the estimate is ill-posed (white, black, one stain),
    `otherwise` is returned and marked as `fallback`.

    Args:
        images: (N, 3, H, W) uint8.
        otherwise: (2, 3) unit rows, haematoxylin and eosin.
    """
    return macenko(images.permute(0, 2, 3, 1).reshape(-1, 3).cpu().numpy(), otherwise)


def stack(stains: list[Stain], device: torch.device | str = "cpu") -> Stains:
    """Put the stains of some images, or of one slide, on a device.

    Args:
        stains: one for each image; or a single one, for all.
        device: that the images are on.
    """
    arrays = [s.matrix for s in stains], [s.max_concentration for s in stains]
    return Stains(*(torch.tensor(np.stack(a), dtype=torch.float32, device=device) for a in arrays))


def unmix(images: Tensor, stains: Stains) -> Tensor:
    """Return the concentrations of haematoxylin and eosin, by least squares, not clipped.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        stains: of the images.

    Returns:
        (N, 2, H, W).
    """
    inverse = torch.linalg.pinv(stains.matrix.mT)  # (N, 2, 3)
    return (inverse @ density(images).flatten(2)).unflatten(2, images.shape[2:])


def density(images: Tensor) -> Tensor:
    """Return the optical density -ln((I + 1) / 240) of images in [0, 1], I of 0 to 255."""
    return -torch.log((images * 255 + 1) / WHITE)


def mix(concentrations: Tensor, stains: Stains) -> Tensor:
    """Return the images (N, 3, H, W) in [0, 1] that concentrations (N, 2, H, W) give."""
    absorbed = (stains.matrix.mT @ concentrations.flatten(2)).unflatten(2, concentrations.shape[2:])
    return ((WHITE * torch.exp(-absorbed) - 1) / 255).clamp(0, 1)


def restain(images: Tensor, source: Stains, target: Stains) -> Tensor:
    """Normalise images to other stains: each concentration to the target's 99th percentile.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        source: their slides' stains.
        target: the stains they shall have, such as `REFERENCE` of shards/stain.py or a slide's.

    Returns:
        (N, 3, H, W) in [0, 1]; what is no mixture of the source's stains is lost.
    """
    least = LEAST * torch.as_tensor(REFERENCE_MAX, dtype=images.dtype, device=images.device)
    scale = target.maximum / torch.maximum(source.maximum, least)  # (N, 2)
    return mix(unmix(images, source) * scale[..., None, None], target)


def augment(
    images: Tensor, source: Stains, factor: Tensor, shift: Tensor, glass: bool = False
) -> Tensor:
    """Change how much of each stain there is: concentration * factor + shift.

    Args:
        images: (N, 3, H, W) float in [0, 1].
        source: their slides' stains.
        factor: (N, 2) α, such as uniform in 1 ± 0.2 (torchstain), 1 ± 0.5 (tiatoolbox).
        shift: (N, 2) β, such as uniform in ± 0.2 (torchstain), ± 0.25 (tiatoolbox).
        glass: change pixels without stain too, as torchstain does; tiatoolbox leaves them.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    changed = unmix(images, source) * factor[..., None, None] + shift[..., None, None]
    changed = mix(changed, source)
    if glass:
        return changed
    stained = (density(images) >= MIN_DENSITY).any(1, keepdim=True)
    return torch.where(stained, changed, images)


def draw_templates(mixture: dict, generator: np.random.Generator, count: int) -> np.ndarray:
    """Draw LAB templates from a Gaussian mixture, means and sds of a template jointly.

    Args:
        mixture: `weights` (K,), `means` (K, 6), `covariances` (K, 6, 6), as in dataset.json.
        generator: of which `count` uniform numbers and 6 * `count` normal ones are taken.
        count: how many.

    Returns:
        (count, 6) float: mean L, a, b, then sd L, a, b.
    """
    weights = np.cumsum(mixture["weights"])
    chosen = np.searchsorted(weights / weights[-1], generator.random(count), side="right")
    roots = np.linalg.cholesky(np.array(mixture["covariances"]))  # (K, 6, 6)
    normal = generator.standard_normal((count, 6, 1))
    return np.array(mixture["means"])[chosen] + (roots[chosen] @ normal)[..., 0]


def reinhard(x: Tensor, template: Tensor) -> Tensor:
    """Give each image the mean and sd of a template in each channel of LAB.

    RandStainNA (`randstainna.py`) does so in 8 bits of OpenCV's LAB; here in float. Where a
    Gaussian gives an sd near 0 or below, which the official code lets turn the picture over,
    MIN_SD is taken.

    Args:
        x: (N, 3, H, W) in [0, 1].
        template: (N, 6) mean L, a, b, then sd L, a, b.

    Returns:
        (N, 3, H, W) in [0, 1]; colours that sRGB has not are clipped.
    """
    lab = to_lab(x)
    mean = lab.mean((2, 3), keepdim=True)
    lab = lab.sub_(mean)
    sd = lab.square().mean((2, 3), keepdim=True).sqrt_().clamp_(min=MIN_SD)
    to_mean, to_sd = template[..., None, None].split(3, dim=1)
    return from_lab(lab.mul_(to_sd.clamp(min=MIN_SD) / sd).add_(to_mean))


def to_lab(x: Tensor) -> Tensor:
    """Convert sRGB images (N, 3, H, W) in [0, 1] to CIE L*a*b*, D65 (as shards/colour.py)."""
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).pow(2.4), x / 12.92)
    matrix = constant(TO_XYZ, x.device, x.dtype)
    t = (matrix @ linear.flatten(2)).view_as(x)
    root = t.clamp(min=0.008856).pow(1 / 3)
    f = torch.where(t > 0.008856, root, 7.787 * t + 16 / 116)
    fx, fy, fz = f.unbind(1)
    return torch.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], dim=1)


def from_lab(lab: Tensor) -> Tensor:
    """Convert CIE L*a*b* images (N, 3, H, W) to sRGB in [0, 1], clipped."""
    lightness, a, b = lab.unbind(1)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], dim=1)
    t = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787)
    matrix = constant(FROM_XYZ, lab.device, lab.dtype)
    linear = (matrix @ t.flatten(2)).view_as(lab).clamp_(0, 1)
    curved = 1.055 * linear.clamp(min=0.0031308).pow(1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear)
