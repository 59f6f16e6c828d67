"""What the student is not shown: masked patches, and residual branches that are dropped."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shards.schema import VIEW_PX
from train.architecture import PATCH_PX
from train.config import DinoConfig
from train.counter_random import KEEP, MASK, generator_for

LEAST = 4  # patches that a block is meant to cover
ASPECT = 0.3  # of a block, least; its inverse the most
ATTEMPTS = 10  # in a row that may fail to place a block


class Hidden(NamedTuple):
    """What a step hides from the student, on the CPU; rows are counted here, not on a GPU.

    Of a step of N images of this rank with L local crops each, P patches a view, M of them masked.
    """

    masks: Tensor  # (2 * N, P) bool
    patches: Tensor  # (M,) int64, the masked ones of 2 * N * P
    share: Tensor  # (M,) float32, each one's weight: 1 over how many its view has
    # Global views' rows that keep each branch of each block, behind each other, and how many
    # each keeps; None: all are kept. Then local crops'.
    kept: Tensor | None = None
    counts: list[int] | None = None
    local_kept: Tensor | None = None
    local_counts: list[int] | None = None


def draw_hidden(
    config: DinoConfig, depth: int, step: int, rows: range, crops: np.ndarray | None = None
) -> Hidden:
    """Draw masks and dropped branches of a step.

    Args:
        config: of the run.
        depth: blocks of the encoder.
        step: of the run.
        rows: this rank's places in the global batch.
        crops: not used (`Method.draws`).
    """
    c, count = config, len(rows)
    places = np.concatenate([np.array(rows), np.array(rows) + c.batch])
    ratios, grid = (c.mask_ratio_least, c.mask_ratio_most), VIEW_PX // PATCH_PX
    masks = draw_masks(c.seed, step, 2 * c.batch, places, c.mask_probability, ratios, grid)
    patches = masks.flatten().nonzero()[:, 0]
    share = (1 / masks.sum(1, keepdim=True).clamp(min=1)).expand_as(masks).flatten()[patches]
    if not c.drop_path:
        return Hidden(masks, patches, share)
    views = 2 + c.local_crops
    kept = draw_kept(c.seed, step, c.batch, rows, views, depth, c.drop_path)
    here, there = kept_rows(kept[: 2 * count]), kept_rows(kept[2 * count :])
    return Hidden(masks, patches, share, *here, *there)


def kept_rows(kept: Tensor) -> tuple[Tensor, list[int]]:
    """Return the rows that keep each branch, behind each other, and how many each keeps.

    Args:
        kept: (N, depth, 2) bool.
    """
    branches = kept.flatten(1).T  # (2 * depth, N)
    return branches.nonzero()[:, 1], branches.sum(1).tolist()


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
