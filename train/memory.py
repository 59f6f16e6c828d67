"""The peak memory of a step, by doing it with tensors that have shapes and no contents.

Every operation runs as in training, forward, backward and update; what its results would take is
added up while they live. So logits, heads, activations and the optimiser are all in it.
"""

import copy
import weakref
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import groupby

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from shards.schema import CROP_PX
from train.config import Config, MocoConfig
from train.method import Method
from train.methods import build_model
from train.moco import MoCo
from train.policy import POLICIES
from train.twopass import two_pass

LIBRARIES = 100 * 2**20  # workspaces of cuBLAS and what the allocator rounds up
ROOM = 0.95  # of a card that a batch may fill: memory that lies in pieces is no room
BLOCK = 512  # bytes that the allocator hands out at least


class NotPredicted(RuntimeError):
    """A step with fake tensors failed: this torch cannot do all of it."""


class Living(TorchDispatchMode):
    """Add up the bytes of the tensors that live, and remember the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Do an operation and count what it makes."""
        out = function(*args, **kwargs or {})
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return out


class Memory:
    """What a rank's step takes on a GPU, by the number of its images."""

    def __init__(self, config: Config):
        """Build the networks, on the CPU.

        Args:
            config: of the run.
        """
        self.config, self.ranks = config, dist.get_world_size()
        self._model = build_model(config)
        self._model.encoder.set_grad_checkpointing(config.activation_checkpointing)
        self._known: dict[int, int] = {}

    def peak(self, images: int) -> int:
        """Return the bytes that a step of so many images of this rank takes at most.

        Raises:
            NotPredicted: the step failed, as with torch 2.6 it does.
        """
        if images not in self._known:
            try:
                self._known[images] = self._measure(images)
            except RuntimeError as error:
                said = str(error).splitlines()[0]
                raise NotPredicted(f"not predicted by torch {torch.__version__}: {said}") from error
        return self._known[images]

    def _measure(self, images: int) -> int:
        config = replace(self.config, batch=images * self.ranks)
        model, living = copy.deepcopy(self._model), Living()
        model.config = config  # which `draws` reads
        empty = np.zeros((images, 3, CROP_PX, CROP_PX), np.uint8)
        drawn = model.draws(0, range(images), empty) if model.draws else None
        sides = [policy.view_px for policy in model.policies(POLICIES[config.policy])]
        with FakeTensorMode(allow_non_fake_inputs=True), living:
            model._apply(lambda t: torch.empty(t.shape, dtype=t.dtype))
            crops = torch.empty(images, 3, CROP_PX, CROP_PX, dtype=torch.uint8)
            views = [
                torch.empty(len(list(alike)) * images, 3, side, side)
                for side, alike in groupby(sides)
            ]
            optimizer = torch.optim.AdamW(model.parameter_groups(), lr=0.0, fused=True)
            trained = [p for p in model.parameters() if p.requires_grad]
            for parameter in trained:
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()  # makes its moments
            optimizer.zero_grad()
            values = model.schedule(0, optimizer)
            self._step(model, model.step_inputs(drawn, views, values))
            model.update(optimizer, values)
            del crops
        # DistributedDataParallel keeps buckets of all gradients.
        buckets = sum(p.numel() for p in trained) * 4 if self.ranks > 1 else 0
        return living.peak + buckets + LIBRARIES

    def _step(self, model: Method, inputs: tuple) -> None:
        """Do a forward and backward pass as train/step.py does on a GPU, with fused attention."""
        autocast = partial(
            torch.autocast, "cpu", torch.bfloat16, enabled=self.config.precision == "bf16"
        )
        if isinstance(model, MoCo) and model.config.two_pass:
            two_pass(model, *inputs, chunk=model.config.two_pass, autocast=autocast)
            return
        with autocast():
            loss = model(*inputs)["loss"]
        loss.backward()

    def largest(self, card: float) -> int:
        """Return the images of this rank that fit into a card of so many bytes; 0: none do."""
        room, known = ROOM * card, (64, 256, 1024)
        if self.peak(2) > room:
            return 0
        # weights, then what grows with the batch, then with its square (logits of all pairs)
        square, line, rest = np.polyfit(known, [self.peak(n) for n in known], 2)
        roots = np.roots([square, line, rest - room] if square > 1 else [line, rest - room])
        images = max(2, int(max(r.real for r in roots if abs(r.imag) < 1)))
        while self.peak(images) > room:
            images = max(2, int(0.97 * images))
        return images

    def advice(self, card: float) -> str:
        """Say what the largest batch for a card of so many bytes is."""
        images = self.largest(card)
        size = f"{card / 2**30:.0f} GiB"
        if not images:
            return f"no batch fits a card of {size}: take a smaller encoder or fewer prototypes"
        return (
            f"the largest batch that fits a card of {size} is {images} images a rank: --batch "
            f"{images * self.ranks} for {self.ranks} ranks"
        )


def out_of_memory(config: Config, device: torch.device) -> str:
    """Say what ran out, and the cure.

    Args:
        config: of the run.
        device: whose memory it was.
    """
    moco = isinstance(config, MocoConfig)
    others = "--two-pass (256, say) or --activation-checkpointing"
    others = others if moco else "--activation-checkpointing, or fewer --prototypes"
    here = config.batch // dist.get_world_size()
    card, advice = card_bytes(device), ""
    if card:
        with suppress(NotPredicted):
            advice = f": {Memory(config).advice(card)}"
    return (
        f"out of memory on {device} with {here} images a rank{advice}. Lower --batch, take more "
        f"ranks, or give {others}"
    )


def card_bytes(device: torch.device) -> int:
    """Return the memory of a GPU; 0 of a CPU."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
