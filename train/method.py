"""What a method gives to the training loop; train/moco.py and train/dino.py are the two."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from train.network import Encoder
from train.policy import Policy


class Method(nn.Module, ABC):
    """A student and a teacher, an encoder each, and how they are trained."""

    exported: Literal["student", "teacher"]  # whose encoder is the run's result
    encoder: Encoder  # the student's
    teacher_encoder: Encoder
    config: Any  # the method's own, of train/config.py

    @classmethod
    @abstractmethod
    def build(cls, config: Any) -> "Method":
        """Build the networks; their weights are a function of the seed alone."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return AdamW's groups of parameters."""

    @abstractmethod
    def policies(self, policy: Policy) -> list[Policy]:
        """Return how each view of an image is drawn, those of equal size beside each other."""

    @abstractmethod
    def schedule(self, step: int, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Set the optimiser for a step; return the values that change with steps."""

    @property
    def draws(self) -> Callable[[int, range, np.ndarray], Any] | None:
        """What makes, in the loader, what a step needs beside views.

        From step, rows and their crops, (N, 3, 60, 60) uint8.
        """
        return None

    @abstractmethod
    def step_inputs(
        self, drawn: Any, views: Sequence[Tensor], values: dict[str, float]
    ) -> tuple[Any, ...]:
        """Return what `forward` takes, on the views' device.

        Args:
            drawn: of `draws`.
            views: (V * N, 3, H, H) for each run of `policies` that are equal.
            values: of `schedule`.
        """

    @abstractmethod
    def update(self, optimizer: torch.optim.Optimizer, values: dict[str, float]) -> None:
        """Change the networks, when the gradients are there.

        Args:
            optimizer: of the parameter groups.
            values: of `schedule`.
        """

    @property
    @abstractmethod
    def first_checked(self) -> float:
        """The steps after which embeddings are checked for collapse."""

    @property
    @abstractmethod
    def chance(self) -> tuple[str, float]:
        """A term of the log, and its value where all is alike to the networks."""

    @abstractmethod
    def flops(self) -> int:
        """Return the floating-point operations of a step for one image of its batch."""

    @abstractmethod
    def compared_with(self, ranks: int) -> tuple[str, str]:
        """Return a word and a phrase on what an image is compared with."""

    @property
    def exported_encoder(self) -> Encoder:
        """The encoder that is the run's result."""
        return self.encoder if self.exported == "student" else self.teacher_encoder


@torch.no_grad()
def move_teacher(pairs: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Move teachers: teacher = momentum * teacher + (1 - momentum) * student.

    Args:
        pairs: a teacher and its student each.
        momentum: from 0 to 1.
    """
    teacher, student = [], []
    for one, other in pairs:
        teacher += one.parameters()
        student += other.parameters()
    # in few launches, whatever the number of parameters; torch's own optimisers use these too
    torch._foreach_mul_(teacher, momentum)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_add_(teacher, student, alpha=1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
