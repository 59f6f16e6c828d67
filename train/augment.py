"""Augmentation of whole batches, on any device, by the policies of train/policy.py.

`draw` decides everything, on the CPU, as a pure function of (seed, step, view, place in the global
batch): whatever the number of ranks and workers, a sample meets the same augmentation. `apply`
does the arithmetic, on the crops' device, with no data-dependent shape and no host sync.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.schema import CROP_PX, VIEW_PX
from train.policy import Policy

ATTEMPTS = 10  # of torchvision's RandomResizedCrop and RandomErasing to find a box that fits
SINGLES = 20  # uniform numbers beside the attempts that a view takes
GREY = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale


Draws = dict[str, Tensor]


def draw(policy: Policy, view: int, seed: int, step: int, batch: int, rows: range) -> Draws:
    """Draw one view's augmentations for some rows of a global batch.

    Args:
        policy: what to draw from.
        view: 0 or 1.
        seed: of the run.
        step: of the run.
        batch: size of the global batch.
        rows: the places in it that are wanted.

    Returns:
        CPU tensors over the N rows: affine (N, 2, 3) from the view to the crop in normalised
        coordinates; jitter (N, 4) factors; order: 16 index tensors, for each of 4 turns and each
        of 4 operations the rows that have it then; grey, solarize (N,) bool; erase (N, 4) box as
        top, left, height, width; sigma (N,), 0 where not blurred.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step * 2 + view]))
    u = generator.random((batch, 4 * ATTEMPTS + SINGLES))[rows.start : rows.stop]  # (N, 60)
    u = iter(np.split(u, [ATTEMPTS, 2 * ATTEMPTS, 3 * ATTEMPTS, 4 * ATTEMPTS], axis=1))
    crop_area, crop_ratio, erase_area, erase_ratio, rest = u
    one = iter(rest.T)  # (N,) each

    boxes = _boxes(crop_area, crop_ratio, policy.scale, policy.ratio, next(one), next(one))
    none = boxes[:, 2] == 0  # no attempt fitted: the whole view (torchvision's central crop)
    boxes[none] = (0, 0, VIEW_PX, VIEW_PX)
    angle = 2 * np.pi * next(one) * policy.rotate
    flip = np.where(next(one) < policy.flip_p, -1.0, 1.0)

    b, c, s, h = policy.jitter
    factors = [_between(next(one), max(0, 1 - x), 1 + x) for x in (b, c, s)]
    factors.append(_between(next(one), -h, h))
    turns = np.argsort(np.stack([next(one) for _ in range(4)], axis=1), axis=1)  # (N, 4)
    turns[next(one) >= policy.jitter_p] = -1
    order = [torch.from_numpy(np.flatnonzero(turns[:, t] == o)) for t in range(4) for o in range(4)]

    erase = _boxes(
        erase_area, erase_ratio, policy.erase_scale, policy.erase_ratio, next(one), next(one), True
    )
    erase[next(one) >= policy.erase_p] = 0
    sigma = _between(next(one), *policy.blur_sigma)
    sigma[next(one) >= policy.blur_p[view]] = 0
    return {
        "affine": torch.from_numpy(_affine(boxes, angle, flip)),
        "jitter": torch.from_numpy(np.stack(factors, axis=1).astype(np.float32)),
        "order": order,
        "grey": torch.from_numpy(next(one) < policy.grey_p),
        "erase": torch.from_numpy(erase),
        "sigma": torch.from_numpy(sigma.astype(np.float32)),
        "solarize": torch.from_numpy(next(one) < policy.solarize_p[view]),
    }


def _between(u: np.ndarray, low: float, high: float) -> np.ndarray:
    """Spread uniform numbers over [low, high)."""
    return low + (high - low) * u


def _boxes(
    area: np.ndarray,
    ratio: np.ndarray,
    scale: tuple[float, float],
    ratios: tuple[float, float],
    top: np.ndarray,
    left: np.ndarray,
    strict: bool = False,
) -> np.ndarray:
    """Draw boxes as torchvision's RandomResizedCrop (or, strict, RandomErasing) does.

    Args:
        area, ratio: (N, ATTEMPTS) uniform.
        scale: share of the view's area.
        ratios: of width to height (for erasing: height to width, which is symmetric in law).
        top, left: (N,) uniform.
        strict: the box must be smaller than the view, not only fit.

    Returns:
        (N, 4) int64 top, left, height, width; zeros where no attempt fitted.
    """
    size = VIEW_PX**2 * _between(area, *scale)  # px²
    aspect = np.exp(_between(ratio, *np.log(ratios)))
    width = np.round(np.sqrt(size * aspect)).astype(np.int64)
    height = np.round(np.sqrt(size / aspect)).astype(np.int64)
    largest = VIEW_PX - strict
    fits = (width <= largest) & (height <= largest) & (width > 0) & (height > 0)
    first = np.arange(len(area)), fits.argmax(axis=1)
    width, height = width[first] * fits[first], height[first] * fits[first]
    return np.stack(
        [
            (top * (VIEW_PX - height + 1)).astype(np.int64),
            (left * (VIEW_PX - width + 1)).astype(np.int64),
            height,
            width,
        ],
        axis=1,
    )


def _affine(boxes: np.ndarray, angle: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Fuse rotation, crop and flip into one map from the view to the stored crop.

    The view's box lies in a 40-px square that turns about the crop's centre; its corners reach
    20 * sqrt(2) = 28.3 px from there, within the crop's 30.

    Args:
        boxes: (N, 4) top, left, height, width in the square, px.
        angle: (N,) rad.
        flip: (N,) -1 or 1.

    Returns:
        (N, 2, 3) float32 for torch's affine_grid, align_corners=False.
    """
    top, left, height, width = boxes.T.astype(np.float64)
    x = np.stack([flip * width / 2, 0 * width, left + width / 2 - VIEW_PX / 2], axis=1)  # (N, 3)
    y = np.stack([0 * height, height / 2, top + height / 2 - VIEW_PX / 2], axis=1)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    turned = np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)  # (N, 2, 3)
    return (turned / (CROP_PX / 2)).astype(np.float32)


def apply(crops: Tensor, draws: Draws, policy: Policy) -> Tensor:
    """Make one view of each crop.

    Args:
        crops: (N, 3, 60, 60) uint8.
        draws: from `draw`.
        policy: the one drawn for.

    Returns:
        (N, 3, 40, 40) float32 in [0, 1], on the crops' device.
    """
    device = crops.device
    on = {k: v.to(device, non_blocking=True) for k, v in draws.items() if k != "order"}
    grid = F.affine_grid(on["affine"], [len(crops), 3, VIEW_PX, VIEW_PX], align_corners=False)
    x = F.grid_sample(crops.float() / 255, grid, align_corners=False)  # (N, 3, 40, 40) bilinear
    for i, rows in enumerate(draws["order"]):
        if len(rows):  # known on the CPU
            rows = rows.to(device, non_blocking=True)
            x[rows] = JITTER[i % 4](x[rows], on["jitter"][rows, i % 4].view(-1, 1, 1, 1))
    x = torch.where(on["grey"].view(-1, 1, 1, 1), grey(x), x)
    x = torch.where(_inside(on["erase"]), policy.erase_value, x)
    x = blur(x, on["sigma"], policy.blur_kernel)
    if any(policy.solarize_p):
        x = torch.where(on["solarize"].view(-1, 1, 1, 1) & (x >= 128 / 255), 1 - x, x)
    return x


def grey(x: Tensor) -> Tensor:
    """Return the (N, 1, H, W) grey of (N, 3, H, W) images."""
    r, g, b = x.unbind(1)
    return (GREY[0] * r + GREY[1] * g + GREY[2] * b)[:, None]


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend (N, 3, H, W) images with black; factor (N, 1, 1, 1)."""
    return (x * factor).clamp(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend (N, 3, H, W) images with their mean grey; factor (N, 1, 1, 1)."""
    return torch.lerp(grey(x).mean((1, 2, 3), keepdim=True), x, factor).clamp(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend (N, 3, H, W) images with their grey; factor (N, 1, 1, 1)."""
    return torch.lerp(grey(x), x, factor).clamp(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of (N, 3, H, W) images in HSV by a share (N, 1, 1, 1) of the circle."""
    r, g, b = x.unbind(1)  # (N, H, W)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    divisor = torch.where(chroma == 0, 1, chroma)
    sector = torch.where(
        value == r,
        (g - b) / divisor,
        torch.where(value == g, 2 + (b - r) / divisor, 4 + (r - g) / divisor),
    )
    sector = sector + 6 * shift.view(-1, 1, 1)  # (N, H, W), in sixths of the circle
    offset = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
    k = (offset + sector[:, None]) % 6  # (N, 3, H, W)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def _inside(boxes: Tensor) -> Tensor:
    """Return the (N, 1, 40, 40) bool masks of (N, 4) boxes top, left, height, width."""
    top, left, height, width = boxes.view(-1, 4, 1, 1).unbind(1)  # (N, 1, 1) each
    at = torch.arange(VIEW_PX, device=boxes.device)
    rows, columns = at.view(1, -1, 1), at.view(1, 1, -1)
    mask = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    return mask[:, None]


def blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur each image by its own Gaussian, borders reflected, as torchvision's gaussian_blur.

    The filter is a banded matrix applied to rows and columns.

    Args:
        x: (N, 3, H, H).
        sigma: (N,) px; 0 leaves an image as it is.
        kernel: odd number of taps.
    """
    side, half = x.shape[-1], kernel // 2
    taps = torch.arange(-half, half + 1, device=x.device)
    weights = torch.exp(-0.5 * (taps / sigma[:, None].clamp(min=1e-3)) ** 2)  # (N, kernel)
    weights = weights / weights.sum(1, keepdim=True)
    reach = torch.arange(side, device=x.device)[:, None] + taps  # (side, kernel)
    reach = (side - 1) - ((side - 1) - reach.abs()).abs()  # reflected at both borders
    place = F.one_hot(reach, side).to(x.dtype).transpose(0, 1)  # (kernel, side, side)
    band = (weights @ place.reshape(kernel, -1)).view(-1, 1, side, side)  # (N, 1, H, H)
    return band @ x @ band.transpose(2, 3)


JITTER = (brightness, contrast, saturation, hue)  # the order of a policy's `jitter`
