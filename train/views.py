"""The views of a batch, on the device, as the encoders take them."""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from train import augment
from train.batches import Batch
from train.policy import Policy


def make_views(
    batch: Batch, policies: Sequence[Policy], device: torch.device, mean: Tensor, std: Tensor
) -> list[Tensor]:
    """Return the normalised views of a batch, those of one policy beside each other together.

    Args:
        batch: crops (N, 3, 60, 60) uint8 and the draws of each run of equal policies.
        policies: of each view, as they were drawn for.
        device: to work on.
        mean: (1, 3, 1, 1), of pixels in [0, 1].
        std: likewise.

    Returns:
        (views * N, 3, V, V) float32 for each policy, V = policy.view_px: all first views, then all
        second ones.
    """
    crops = batch.crops.to(device, non_blocking=True)
    kinds = [policy for policy, _ in groupby(policies)]
    return [
        augment.apply(crops, draws, policy).sub_(mean).div_(std)
        for draws, policy in zip(batch.draws, kinds, strict=True)
    ]
