"""A benchmark in memory: crops of nuclei, what they are, and where they come from."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Nuclei cut at 0.25 µm/px, with labels and groups; unlabelled samples have label ''.

    Raises:
        ValueError: arrays of different lengths, no nuclei, or a label outside `classes`.
    """

    name: str  # names files, so letters, digits and _+=@.- only
    crops: np.ndarray  # (N, view_px, view_px, 3) uint8 RGB, the nucleus in the middle
    labels: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # in the order of tables and legends; () without labels
    groups: np.ndarray  # (N,) str: what nuclei share an origin, an image or a slide; '' if unknown
    group_kind: str = ""  # what a group is, in a word
    positive: str | None = None  # of two classes, the one AUPR counts
    notes: tuple[str, ...] = ()  # what was dropped or filled, with counts

    def __post_init__(self) -> None:
        if not len(self.crops) == len(self.labels) == len(self.groups):
            raise ValueError(
                f"{self.name}: {len(self.crops)} crops, {len(self.labels)} labels, "
                f"{len(self.groups)} groups; one of each is needed per nucleus"
            )
        if not len(self.crops):
            raise ValueError(f"{self.name}: no nucleus left ({'; '.join(self.notes) or 'empty'})")
        foreign = sorted(set(self.labels.tolist()) - set(self.classes) - {""})
        if foreign:
            raise ValueError(
                f"{self.name}: unknown label {foreign[0]!r}; known are {', '.join(self.classes)}"
            )

    def __len__(self) -> int:
        return len(self.crops)

    @cached_property
    def sha256(self) -> str:
        """The digest of crops, labels and groups: what a cached embedding depends on."""
        digest = hashlib.sha256(repr(self.crops.shape).encode())
        digest.update(np.ascontiguousarray(self.crops))
        for words in (self.labels, self.groups):
            digest.update("\0".join(words.tolist()).encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei per class, in the order of `classes`."""
        return {name: int((self.labels == name).sum()) for name in self.classes}

    def take(self, rows: np.ndarray) -> "Benchmark":
        """Return the nuclei of the given rows, (M,) integers."""
        return replace(
            self, crops=self.crops[rows], labels=self.labels[rows], groups=self.groups[rows]
        )
