"""Augmentation of whole batches, on any device, by the policies of train/policy.py.

`draw` decides everything, on the CPU, as a pure function of (seed, step, view, place in the global
batch): whatever the number of ranks and workers, a sample meets the same augmentation. `apply`
does the arithmetic, on the crops' device, for all views of one policy at once (`join`): a GPU is
launched as often for ten views as for one. Which rows an operation touches is known on the CPU, so
no shape waits for a GPU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from shards.schema import CROP_PX, VIEW_PX
from train.constants import constant
from train.counter_random import STAIN, generator_for
from train.policy import Policy
from train.stain_transform import draw_templates, reinhard

ATTEMPTS = 10  # of torchvision's RandomResizedCrop and RandomErasing to find a box that fits
SINGLES = 20  # uniform numbers beside the attempts that a view takes
GREY = (0.2989, 0.587, 0.114)  # torchvision's rgb_to_grayscale
CPU_CHUNK = 64  # crops at once on a CPU, so that what is worked on stays in its cache


class Draws(NamedTuple):
    """Augmentations of N crops in one view, or in V views, then N is V * N; on the CPU."""

    affine: Tensor  # (N, 2, 3) float32, from the view to the crop, for torch's affine_grid
    # (N, 9 or 15) float32: 4 jitter factors; erased top, left, height, width; sigma; LAB template
    values: Tensor
    # The rows that each operation of `plan` touches, ascending, behind each other: one tensor, so
    # that one copy takes them to the device; and how many each touches.
    rows: Tensor  # (R,) int64
    counts: list[int]


def plan(policy: Policy) -> list[tuple[Callable[[Tensor, Tensor], Tensor], slice]]:
    """Return the operations after the geometry, in order, and the columns of values each reads.

    Each sample meets its four jitters in an order of its own, so all four stand in all four turns.
    """
    jitter = [(o, slice(i, i + 1)) for i, o in enumerate((brightness, contrast, saturation, hue))]
    return [
        *[(reinhard, slice(9, 15))] * bool(policy.stain),
        *jitter * 4,
        (to_grey, slice(0)),
        (partial(erase, value=policy.erase_value), slice(4, 8)),
        (partial(blur, kernel=policy.blur_kernel), slice(8, 9)),
        (solarize, slice(0)),
    ]


def draw(policy: Policy, view: int, seed: int, step: int, batch: int, rows: range) -> Draws:
    """Draw one view's augmentations for some rows of a global batch.

    Args:
        policy: what to draw from.
        view: 0 or 1; more are local crops, drawn as second views are.
        seed: of the run.
        step: of the run.
        batch: size of the global batch.
        rows: the places in it that are wanted.
    """
    generator = generator_for(seed, step, view)
    u = generator.random((batch, 4 * ATTEMPTS + SINGLES))[rows.start : rows.stop]  # (N, 60)
    area, ratio, erased_area, erased_ratio = np.split(u[:, : 4 * ATTEMPTS], 4, axis=1)  # (N, 10)
    one = iter(u[:, 4 * ATTEMPTS :].T)  # (N,) each

    boxes = _boxes(area, ratio, policy.scale, policy.ratio, next(one), next(one))
    none = boxes[:, 2] == 0  # no attempt fitted: the whole view (torchvision's central crop)
    boxes[none] = (0, 0, VIEW_PX, VIEW_PX)
    angle = 2 * np.pi * next(one) * policy.rotate
    flip = np.where(next(one) < policy.flip_p, -1.0, 1.0)

    b, c, s, h = policy.jitter
    factors = [_between(next(one), max(0, 1 - x), 1 + x) for x in (b, c, s)]
    factors.append(_between(next(one), -h, h))
    turns = np.argsort(np.stack([next(one) for _ in range(4)], axis=1), axis=1)  # (N, 4)
    turns[next(one) >= policy.jitter_p] = -1

    erased = _boxes(
        erased_area,
        erased_ratio,
        policy.erase_scale,
        policy.erase_ratio,
        next(one),
        next(one),
        side=policy.view_px,
        strict=True,
        tall=policy.erase_ratio_of == "height/width",
    )
    erasing = (next(one) < policy.erase_p) & (erased[:, 2] > 0)
    sigma = _between(next(one), *policy.blur_sigma)
    blurring = next(one) < policy.blur_p[min(view, 1)]
    touched = [turns[:, turn] == operation for turn, operation in product(range(4), repeat=2)]
    touched += [next(one) < policy.grey_p, erasing, blurring]
    touched += [next(one) < policy.solarize_p[min(view, 1)]]
    columns = [*factors, erased, sigma]
    if policy.stain:  # from a stream of its own, so that all else is drawn as without it
        assert policy.mixture is not None, "policy_for fills it in"
        templates = draw_templates(policy.mixture, generator_for(seed, step, view, STAIN), batch)
        columns.append(templates[rows.start : rows.stop])
        touched.insert(0, np.ones(len(rows), bool))
    values = np.column_stack(columns).astype(np.float32)
    every = [np.flatnonzero(t) for t in touched]
    return Draws(
        torch.from_numpy(_affine(boxes, angle, flip)),
        torch.from_numpy(values),
        torch.from_numpy(np.concatenate(every)),
        [len(rows) for rows in every],
    )


def join(views: Sequence[Draws]) -> Draws:
    """Join draws of one policy for the same N crops: all rows of the first view come first."""
    if len(views) == 1:
        return views[0]
    count, parts = len(views[0].affine), zip(*(v.rows.split(v.counts) for v in views), strict=True)
    rows = [torch.cat([r + i * count for i, r in enumerate(part)]) for part in parts]
    return Draws(
        torch.cat([v.affine for v in views]),
        torch.cat([v.values for v in views]),
        torch.cat(rows),
        [len(r) for r in rows],
    )


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
    side: int = VIEW_PX,
    strict: bool = False,
    tall: bool = False,
) -> np.ndarray:
    """Draw boxes as torchvision's RandomResizedCrop (or, strict, RandomErasing) does.

    Args:
        area, ratio: (N, ATTEMPTS) uniform.
        scale: share of the view's area.
        ratios: of width to height.
        top, left: (N,) uniform.
        side: of the view, px.
        strict: the box must be smaller than the view, not only fit.
        tall: the ratios are of height to width.

    Returns:
        (N, 4) int64 top, left, height, width; zeros where no attempt fitted.
    """
    size = side**2 * _between(area, *scale)  # px²
    aspect = np.exp(_between(ratio, *np.log(ratios)))
    width = np.round(np.sqrt(size * aspect)).astype(np.int64)
    height = np.round(np.sqrt(size / aspect)).astype(np.int64)
    if tall:
        width, height = height, width
    largest = side - strict
    fits = (width <= largest) & (height <= largest) & (width > 0) & (height > 0)
    first = np.arange(len(area)), fits.argmax(axis=1)
    width, height = width[first] * fits[first], height[first] * fits[first]
    return np.stack(
        [
            (top * (side - height + 1)).astype(np.int64),
            (left * (side - width + 1)).astype(np.int64),
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
    """Make one view of each crop, or several.

    Args:
        crops: (N, 3, 60, 60) uint8.
        draws: from `draw`, or from `join` for V views.
        policy: the one drawn for.

    Returns:
        (V * N, 3, H, H) float32 in [0, 1], H = policy.view_px, on the crops' device: all first
        views, then all second ones.
    """
    with _float32_products():
        if crops.device.type != "cpu":
            return _apply(crops, draws, policy)
        side, count = policy.view_px, len(crops)
        out = torch.empty((len(draws.affine), 3, side, side))
        for first, start in product(range(0, len(out), count), range(0, count, CPU_CHUNK)):
            stop = min(start + CPU_CHUNK, count)
            part = slice(first + start, first + stop)
            out[part] = _apply(crops[start:stop], _part(draws, part), policy)
        return out


@contextmanager
def _float32_products() -> Iterator[None]:
    """Multiply matrices in true float32, whatever the networks may: TF32 moves pixels."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _apply(crops: Tensor, draws: Draws, policy: Policy) -> Tensor:
    """Do what `apply` does, at once."""
    affine, values, rows = (d.to(crops.device, non_blocking=True) for d in draws[:3])
    side, n = policy.view_px, len(crops)
    grid = affine.view(-1, 3) @ _view_grid(side, crops.device)  # (2 * V * N, H * H), affine_grid's
    # A crop's views below each other, so that it is sampled once for all: (N, V * H, H, 2).
    grid = grid.view(-1, n, 2, side, side).permute(1, 0, 3, 4, 2).reshape(n, -1, side, 2)
    x = F.grid_sample(crops.float(), grid, align_corners=False)  # (N, 3, V * H, H), bilinear
    x = x.unflatten(2, (-1, side)).permute(2, 0, 1, 3, 4).reshape(-1, 3, side, side)
    x = x.contiguous().mul_(1 / 255)
    for (operation, columns), some in zip(plan(policy), rows.split(draws.counts), strict=True):
        if len(some) == len(x):
            x = operation(x, values[:, columns])
        elif len(some):
            x.index_copy_(0, some, operation(x[some], values[some, columns]))
    return x


@cache
def _view_grid(side: int, device: torch.device) -> Tensor:
    """Return the homogeneous x, y, 1 of a view's pixel centres in [-1, 1], (3, side * side)."""
    at = (2 * torch.arange(side, device=device) + 1) / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).view(3, -1)


def _part(draws: Draws, chunk: slice) -> Draws:
    """Return the draws of a slice of the rows."""
    every = draws.rows.split(draws.counts)
    ends = [np.searchsorted(rows.numpy(), (chunk.start, chunk.stop)) for rows in every]
    rows = torch.cat([r[a:b] for r, (a, b) in zip(every, ends, strict=True)]) - chunk.start
    counts = [int(b - a) for a, b in ends]
    return Draws(draws.affine[chunk], draws.values[chunk], rows, counts)


def grey(x: Tensor) -> Tensor:
    """Return the (N, 1, H, W) grey of (N, 3, H, W) images."""
    r, g, b = x.unbind(1)
    return (r * GREY[0]).add_(g, alpha=GREY[1]).add_(b, alpha=GREY[2])[:, None]


# Operations on images (N, 3, H, W) in [0, 1] that they may write into, and their values (N, k).


def to_grey(x: Tensor, _: Tensor) -> Tensor:
    """Take the colour out."""
    return x.copy_(grey(x))


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with black; factor (N, 1)."""
    return x.mul_(factor[..., None, None]).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey; factor (N, 1)."""
    mean = grey(x).mean((1, 2, 3))[:, None, None, None]
    factor = factor[..., None, None]
    return x.mul_(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's grey; factor (N, 1)."""
    factor = factor[..., None, None]
    pale = grey(x).mul_(1 - factor)
    return x.mul_(factor).add_(pale).clamp_(0, 1)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue in HSV; shift (N, 1), a share of the circle.

    With hue h in sixths of the circle, value v and chroma c, a channel is v - c * f(h + o), where
    o is 5, 3, 1 for red, green, blue and f a trapezium of period 6 about 2.
    """
    r, g, b = x.unbind(1)  # (N, H, W)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    # lerp by 0 or 1 instead of where, which is 10 times slower on a CPU
    green, red = ((value == channel).to(x.dtype) for channel in (g, r))
    sector = torch.lerp(r - g + 4 * chroma, b - r + 2 * chroma, green).lerp_(g - b, red)
    sector.div_(chroma.clamp(min=1e-12)).add_(6 * shift[..., None])
    sector.sub_(torch.floor(sector / 6).mul_(6))  # in [0, 6)
    offset = constant((3.0, 1.0, -1.0), x.device, x.dtype).view(1, 3, 1, 1)  # o - 2
    k = torch.add(sector[:, None], offset, out=x)  # (N, 3, H, W) in [-1, 9)
    k = torch.minimum((k - 6).abs_(), k.abs_(), out=x)  # distance from the trapezium's middle
    return k.neg_().add_(2).clamp_(0, 1).mul_(-chroma[:, None]).add_(value[:, None])


def erase(x: Tensor, box: Tensor, value: float) -> Tensor:
    """Fill a box with a value; box (N, 4) top, left, height, width, px."""
    top, left, height, width = box[..., None, None].unbind(1)  # (N, 1, 1) each
    at = torch.arange(x.shape[-1], device=x.device)
    rows, columns = at.view(1, -1, 1), at.view(1, 1, -1)
    inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    return x.masked_fill_(inside[:, None], value)


def blur(x: Tensor, sigma: Tensor, kernel: int) -> Tensor:
    """Blur each image by its own Gaussian, borders reflected, as torchvision's gaussian_blur.

    The filter is a banded matrix applied to rows and columns.

    Args:
        x: (N, 3, H, H).
        sigma: (N, 1) px, above 0.
        kernel: odd number of taps.
    """
    side = x.shape[-1]
    taps, place = _bands(side, kernel, x.device, x.dtype)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2)  # (N, kernel)
    weights = weights / weights.sum(1, keepdim=True)
    band = (weights @ place.reshape(kernel, -1)).view(-1, side, side).transpose(1, 2)  # (N, H, H)
    for _ in range(2):  # the rows of all channels in one product; turned over, the columns
        x = torch.bmm(x.reshape(-1, 3 * side, side), band).view(-1, 3, side, side).transpose(2, 3)
    return x


@cache
def _bands(
    side: int, kernel: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return a filter's taps (kernel,), and where each reaches, (kernel, side, side)."""
    taps = torch.arange(kernel) - kernel // 2
    reach = torch.arange(side)[:, None] + taps  # (side, kernel)
    reach = (side - 1) - ((side - 1) - reach.abs()).abs()  # reflected at both borders
    place = F.one_hot(reach, side).to(dtype).transpose(0, 1)
    return taps.to(device), place.to(device)


def solarize(x: Tensor, _: Tensor) -> Tensor:
    """Invert what is at least half bright (PIL's threshold 128)."""
    return torch.where(x >= 128 / 255, 1 - x, x)
