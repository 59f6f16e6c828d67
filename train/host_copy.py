"""Copies of tensors on the host, that nobody waits for until they are wanted."""

from collections.abc import Sequence

import torch
from torch import Tensor


class HostCopy:
    """Copy tensors as they are now; the device goes on, and so does who asked for the copy.

    From a GPU the copies go to pinned memory, in the order of its work: what is written to the
    tensors later does not reach them. torch keeps pinned memory for the next copy.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        """Begin to copy tensors, on one device or on the CPU."""
        self._copies, self._event = [], None
        for tensor in tensors:
            if tensor.is_cuda:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                self._copies.append(copy.copy_(tensor.detach(), non_blocking=True))
                self._event = self._event or torch.cuda.Event()
            else:
                self._copies.append(tensor.detach().clone())
        if self._event:
            self._event.record()

    def wait(self) -> list[Tensor]:
        """Return the copies, once they are there."""
        if self._event:
            self._event.synchronize()
        return self._copies
