"""Constants as tensors, each put on a device once: a copy from pageable memory waits for a GPU."""

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers, nested in tuples, as a tensor that nobody may write into."""
    return torch.tensor(values, dtype=dtype).to(device)
