"""A GPU that is none: torch's fake tensors on device cuda, and modes that see what a step does."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
COPIES = {"_to_copy", "copy_"}
WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "item", "equal", "masked_select"}
PUTS = {"index_put", "index_put_", "_index_put_impl_"}  # a number among them is copied there
WAITS |= {"_linalg_svd", "_linalg_eigh", "unique_dim", "_unique2"}

VIEWS = {torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default}


class Waited(Exception):
    """The host would have waited for the device."""


class Made(TorchFunctionMode):
    """Refuse tensors made on the device from Python's numbers or numpy's."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        there = device is not None and torch.device(device).type == "cuda"
        if there and function in (torch.tensor, torch.as_tensor, torch.asarray):
            raise Waited(f"{function.__name__}{args} on {device}")
        return function(*args, **kwargs)


class Launches(TorchDispatchMode):
    """Count operations on the device; refuse what waits for it, and copies that block."""

    def __init__(self, pinned: set[int]):
        """Take the addresses of what is pinned, as the loader would have it."""
        super().__init__()
        self.counts, self.pinned, self.copied = Counter(), pinned, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        out = function(*args, **kwargs)
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if is_tensor(t)]
        devices = {t.device.type for t in [*tensors, out] if is_tensor(t)}
        if name in WAITS and "cuda" in devices:
            raise Waited(name)
        if name in PUTS and devices == {"cpu", "cuda"}:
            raise Waited(f"{name} of a number")
        if name in COPIES and devices == {"cpu", "cuda"}:
            source = args[1] if name == "copy_" else args[0]
            hidden = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
            pinned = not isinstance(source, FakeTensor) and source.data_ptr() in self.pinned
            if not (pinned and hidden):
                raise Waited(f"{name} of {tuple(source.shape)} from {source.device}")
            self.copied += 1
        if "cuda" in devices and launched(function):
            self.counts[name] += 1
        return out


def launched(function: torch._ops.OpOverload) -> bool:
    """Tell whether an operation does work, not only look at the same memory or take some."""
    if function.namespace not in ("aten", "c10d") or function in VIEWS:
        return False
    if "empty" in function.overloadpacket.__name__:
        return False
    aliases = [r.alias_info for r in function._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def is_tensor(x: object) -> bool:
    return isinstance(x, torch.Tensor)


def tensors_of(nest: object) -> Iterator[torch.Tensor]:
    return filter(is_tensor, torch.utils._pytree.tree_leaves(nest))


def to_gpu(model: nn.Module) -> None:
    """Put a model on the fake device, within the mode of fake tensors; gradients too."""
    model._apply(lambda t: torch.empty_like(t, device=CUDA))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


@contextmanager
def fake_gpu() -> Iterator[None]:
    """Make tensors fake; those of the CPU that were there before may be used."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
