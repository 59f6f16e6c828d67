"""Which cells go where in a mix, and what is sorted and written at a time: no image is read."""

import hashlib
import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from shards.cells import finished_slides
from shards.errors import dead_link
from shards.order import permute
from shards.selection import read_selection

VERSION = 2  # of the shuffle: another one puts the same cells elsewhere
THREADS = 4  # spill files, and groups of shards, in work at a time
SHUFFLE = 0x6D6978  # keeps this permutation apart from those of shards/order.py


@dataclass(frozen=True)
class SlideRows:
    """Some consecutive cells of one slide: rows [start, stop) of its chosen nuclei."""

    slide: int  # number in Layout.slides
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """A mix: a pure function of the cells folder, the selection and the settings.

    Attributes:
        cells: the folder.
        slides: as `finished_slides` gives them, those with chosen cells only.
        chosen: slide id -> (n,) sorted nuclei; None: all that were kept.
        samples_per_shard: crops in a shard; the last may hold fewer.
        seed: of the shuffle.
        first: (S + 1,) number of each slide's first cell among all; the last is how many.
        spills: the cells of each spill file, which take at most a thread's share of the memory.
        groups: the shards that pass 2 makes at a time, likewise.
        bytes: that its cells take in tars, about.
        source: what determines the data set, for `dataset.json`.
    """

    cells: Path
    slides: list[dict]
    chosen: dict[str, np.ndarray] | None
    samples_per_shard: int
    seed: int
    first: np.ndarray
    spills: list[list[SlideRows]]
    groups: list[range]
    bytes: int
    source: dict

    @property
    def samples(self) -> int:
        """Cells in all."""
        return int(self.first[-1])

    @property
    def shards(self) -> int:
        """Shards in all."""
        return -(-self.samples // self.samples_per_shard)

    def positions(self, rows: SlideRows) -> np.ndarray:
        """Return where some cells go: (n,) places in the data set."""
        low = int(self.first[rows.slide])
        cells = np.arange(low + rows.start, low + rows.stop)
        return permute(cells, self.samples, (self.seed, SHUFFLE))

    def tar(self, slide: int) -> Path:
        """Return the tar of a slide, by its number."""
        return self.cells / f"{self.slides[slide]['slide']}.tar"

    def samples_of(self, shard: int) -> range:
        """Return the places that a shard holds."""
        start = shard * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, self.samples))


def lay_out(
    cells: Path, selection: Path | None, samples_per_shard: int, seed: int, memory: float
) -> Layout:
    """Lay out a mix.

    Args:
        samples_per_shard: crops in a shard.
        memory: GB that all threads may take, beside the 0.4 of Python and its libraries.

    Raises:
        FileNotFoundError: no such folder, no finished slide, or a slide's tar is gone.
        ValueError: an unusable setting, several codecs, or cells that are not there.
    """
    if samples_per_shard < 1:
        raise ValueError(f"--samples-per-shard {samples_per_shard}: at least 1 is needed")
    if seed < 0:
        raise ValueError(f"--seed {seed}: a whole number from 0 on is needed")
    slides = finished_slides(cells)
    chosen = read_selection(selection, slides, cells) if selection else None
    if chosen is not None:
        slides = [s for s in slides if s["slide"] in chosen]
    codecs = sorted({s["codec"] for s in slides})
    if len(codecs) > 1:
        raise ValueError(f"{cells} holds crops of several codecs ({', '.join(codecs)})")
    counts = [len(chosen[s["slide"]]) if chosen else s["cells"] for s in slides]
    first = np.concatenate([[0], np.cumsum(counts)])
    sizes = _bytes(cells, slides) * counts // [s["cells"] for s in slides]
    # A thread holds its cells once as they were read and, in part or whole, once more in order.
    share = memory * 1e9 / 2 / THREADS
    a_shard = sizes.sum() / first[-1] * min(samples_per_shard, first[-1])
    if a_shard > share:
        raise ValueError(
            f"a shard of {samples_per_shard} samples takes {a_shard / 1e9:.2f} GB, more than "
            f"{1 / 2 / THREADS:.2f} of --memory {memory}: give a smaller --samples-per-shard or "
            "more --memory"
        )
    shards = -(-int(first[-1]) // samples_per_shard)
    together = max(1, int(share // a_shard))
    source = {
        "version": VERSION,
        "cells": [s["slide"] for s in slides],
        "samples_per_shard": samples_per_shard,
        "seed": seed,
        "digest": _digest(slides, chosen),
        "selected": chosen is not None,
    }
    return Layout(
        cells=cells,
        slides=slides,
        chosen=chosen,
        samples_per_shard=samples_per_shard,
        seed=seed,
        first=first,
        spills=_spills(sizes, counts, share),
        groups=[range(s, min(s + together, shards)) for s in range(0, shards, together)],
        bytes=int(sizes.sum()),
        source=source,
    )


def _spills(sizes: np.ndarray, counts: list[int], share: float) -> list[list[SlideRows]]:
    """Share the slides' cells out among spill files: several small slides, or part of a large."""
    spills: list[list[SlideRows]] = []
    room = 0.0
    for slide, (size, count) in enumerate(zip(sizes.tolist(), counts, strict=True)):
        parts = min(count, max(1, -(-size // int(share))))
        edges = [count * i // parts for i in range(parts + 1)]
        for start, stop in pairwise(edges):
            if not spills or size / parts > room:
                spills.append([])
                room = share
            spills[-1].append(SlideRows(slide, start, stop))
            room -= size / parts
    return spills


def _bytes(cells: Path, slides: list[dict]) -> np.ndarray:
    """Return the sizes of the slides' tars, (S,) int64."""
    sizes = []
    for slide in slides:
        path = cells / f"{slide['slide']}.tar"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing{dead_link(path)}; extract that slide again")
        sizes.append(path.stat().st_size)
    return np.array(sizes, np.int64)


def _digest(slides: list[dict], chosen: dict[str, np.ndarray] | None) -> str:
    """Return a sha256 over which crops go in."""
    digest = hashlib.sha256(json.dumps(slides, sort_keys=True).encode())
    for slide, nuclei in sorted((chosen or {}).items()):
        digest.update(f"\n{slide} {len(nuclei)}\n".encode() + nuclei.astype("<i4").tobytes())
    return digest.hexdigest()
