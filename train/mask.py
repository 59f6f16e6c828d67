"""What the student is not shown: masked patches, and residual branches that are dropped."""

import numpy as np
import torch
from torch import Tensor

from train.counter_random import KEEP, MASK, generator_for

LEAST = 4  # patches that a block is meant to cover
ASPECT = 0.3  # of a block, least; its inverse the most
ATTEMPTS = 10  # in a row that may fail to place a block


def draw_masks(
    seed: int,
    step: int,
    images: int,
    rows: np.ndarray,
    probability: float,
    ratios: tuple[float, float],
    grid: int,
) -> Tensor:
    """Draw iBOT's block-wise masks for some images of a global batch.

    The law of dinov2's data/masking.py and data/collate.py: a share `probability` of the images is
    masked; their ratios lie in as many equal bins over `ratios`, one in each. There a GPU's batch
    is so divided, here the global batch.

    Args:
        seed: of the run.
        step: of the run.
        images: global views in the global batch.
        rows: indices among them that are wanted.
        probability: that an image is masked.
        ratios: least and greatest share of patches masked.
        grid: patches along a side.

    Returns:
        (len(rows), grid * grid) bool.
    """
    numbers = generator_for(seed, step, stream=MASK)
    count = int(images * probability)
    turn = numbers.permutation(images)[rows]  # the first `count` are masked
    edges = np.linspace(*ratios, count + 1)
    ratio = np.append(edges, edges[-1])[np.minimum(turn, count)]
    ratio = ratio + numbers.random(images)[rows] * (ratios[1] - ratios[0]) / max(count, 1)
    target = np.where(turn < count, (grid**2 * ratio).astype(np.int64), 0)

    mask = np.zeros((len(rows), grid, grid), bool)
    left, failed, at = target.copy(), np.zeros(len(rows), np.int64), np.arange(grid)
    while ((left > 0) & (failed < ATTEMPTS)).any():
        area, aspect, top, side = numbers.random((images, 4))[rows].T
        room = np.minimum(left, grid // 2 * grid)  # a block newly covers at most half, rounded down
        area = LEAST + (room - LEAST) * area
        aspect = np.exp((2 * aspect - 1) * np.log(ASPECT))
        height, width = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        top, side = np.floor(top * (grid - height + 1)), np.floor(side * (grid - width + 1))
        down = (at >= top[:, None]) & (at < (top + height)[:, None])  # (N, grid)
        across = (at >= side[:, None]) & (at < (side + width)[:, None])
        block = down[:, :, None] & across[:, None, :] & ~mask
        new = block.sum((1, 2))
        fits = (height < grid) & (width < grid) & (new > 0) & (new <= room)
        fits &= failed < ATTEMPTS
        mask[fits] |= block[fits]
        left -= new * fits
        failed = np.where(fits, 0, failed + 1)
    return torch.from_numpy(mask.reshape(len(rows), -1))


def draw_kept(
    seed: int, step: int, batch: int, rows: range, views: int, depth: int, drop: float
) -> Tensor:
    """Draw which residual branches of which view are kept (stochastic depth).

    Args:
        seed: of the run.
        step: of the run.
        batch: images in the global batch.
        rows: places in it that are wanted.
        views: of an image.
        depth: blocks, of two branches each.
        drop: probability that a branch is dropped, the same in all blocks.

    Returns:
        (views * len(rows), depth, 2) bool, the first views first.
    """
    numbers = generator_for(seed, step, stream=KEEP).random((batch, views, depth, 2))
    kept = numbers[rows.start : rows.stop] >= drop
    return torch.from_numpy(kept.swapaxes(0, 1).reshape(-1, depth, 2))
