"""A benchmark in memory: crops of nuclei, what they are, and where they come from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Nuclei cut at 0.25 µm/px, with labels or targets, and where they come from.

    Two kinds: classification has `labels` and `classes`; regression (HEST) has `targets` and
    `target_names`, with labels '' and classes (). `batch_variables` holds every grouping the
    publisher gives, the default one (`groups`) among them: leave-one-slide-out goes by
    `batch_variables["slide"]`, leave-one-patient-out by `batch_variables["patient"]`.

    Tasks on the same nuclei (NuCLS super, main, raw) are a benchmark each, of the rows that bear a
    label; they share `part_of`, so that embeddings are made once: those of a task are
    `embed(task.part_of)[task.rows]`.

    Of a nucleus that its table gives several times, every row stays and `twins` says which rows
    are one: folds keep them together.

    Raises:
        ValueError: arrays of different lengths, no nuclei, or a label outside `classes`.
    """

    name: str  # names files, so letters, digits and _+=@.- only
    crops: np.ndarray  # (N, view_px, view_px, 3) uint8 RGB, the nucleus in the middle
    labels: np.ndarray  # (N,) str; '' where there is none
    classes: tuple[str, ...]  # in the order of tables and legends; () without labels
    groups: np.ndarray  # (N,) str: the image, slide or patient a nucleus is of; '' if unknown
    group_kind: str = ""  # what a group is, in a word
    positive: str | None = None  # of two classes, the one AUPR counts
    notes: tuple[str, ...] = ()  # what was dropped or filled, with counts
    left_out: Mapping[str, int] = field(default_factory=dict)  # why -> nuclei that are not here
    twins: np.ndarray | None = None  # (N,) int, the same for rows of one nucleus; None: none are
    batch_variables: Mapping[str, np.ndarray] = field(
        default_factory=dict
    )  # kind -> (N,) str, '' unknown
    targets: np.ndarray | None = None  # (N, T) float32, e.g. transcripts as counted, untransformed
    target_names: tuple[str, ...] = ()  # T genes
    part_of: "Benchmark | None" = None  # all nuclei that several tasks share
    rows: np.ndarray | None = None  # (N,) int, this benchmark's nuclei in `part_of`

    def __post_init__(self) -> None:
        lengths = {"labels": self.labels, "groups": self.groups, **self.batch_variables}
        if self.targets is not None:
            lengths["targets"] = self.targets
        if self.twins is not None:
            lengths["twins"] = self.twins
        if any(len(values) != len(self.crops) for values in lengths.values()):
            found = ", ".join(f"{len(values)} {name}" for name, values in lengths.items())
            raise ValueError(
                f"{self.name}: {len(self.crops)} crops, {found}; one of each is needed per nucleus"
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
        """The digest of what results depend on: of all but names and notes."""
        digest = hashlib.sha256(repr(self.crops.shape).encode())
        digest.update(np.ascontiguousarray(self.crops).data)
        for words in (self.labels, self.groups):
            digest.update("\0".join(words.tolist()).encode())
        for kind, words in self.batch_variables.items():
            digest.update("\0".join([kind, *words.tolist()]).encode())
        if self.targets is not None:
            digest.update("\0".join(self.target_names).encode())
            digest.update(np.ascontiguousarray(self.targets).data)
        if self.twins is not None:  # folds depend on them
            digest.update(b"twins" + np.ascontiguousarray(self.twins, "<i8").tobytes())
        return digest.hexdigest()

    def used(self) -> str:
        """Say how many nuclei are here, and why others are not, in half a line."""
        if not any(self.left_out.values()):
            return f"{len(self):,} nuclei"
        reasons = "; ".join(f"{n:,} {why}" for why, n in self.left_out.items() if n)
        total = len(self) + sum(self.left_out.values())
        return f"{len(self):,} nuclei of {total:,} (not used: {reasons})"

    def counts(self) -> dict[str, int]:
        """Return the number of nuclei per class, in the order of `classes`."""
        return {name: int((self.labels == name).sum()) for name in self.classes}

    def take(self, rows: np.ndarray) -> "Benchmark":
        """Return the nuclei of the given rows, (M,) integers."""
        return replace(
            self,
            crops=self.crops[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            batch_variables={kind: words[rows] for kind, words in self.batch_variables.items()},
            targets=None if self.targets is None else self.targets[rows],
            twins=None if self.twins is None else self.twins[rows],
            rows=None if self.rows is None else self.rows[rows],
        )

    def task(
        self, name: str, labels: np.ndarray, classes: tuple[str, ...], positive: str | None = None
    ) -> "Benchmark":
        """Return the nuclei that bear a label in one of several tasks, as a benchmark.

        Args:
            name: of the task, put behind this benchmark's.
            labels: (N,) str, '' for nuclei that are none of the task's.
            classes: of the task.
            positive: of two classes, the one AUPR counts.
        """
        rows = np.flatnonzero(labels != "")
        none = {f"no class of {name}": len(self) - len(rows)} if len(rows) < len(self) else {}
        return replace(
            self.take(rows),
            left_out={**self.left_out, **none},
            name=f"{self.name}-{name}",
            labels=labels[rows],
            classes=classes,
            positive=positive,
            part_of=self,
            rows=rows,
        )
