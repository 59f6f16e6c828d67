"""A benchmark of slides' cells and their transcripts, a regression: cells drawn and cut alike.

A reader of a publisher's files yields a `Slide` each; all else is here.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import rankdata

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import check_inside
from evaluate.benchmarks.picture import open_picture


@dataclass(frozen=True, eq=False)
class Slide:
    """One slide, its C cells and what was counted in them."""

    name: str
    image: Path
    mpp: float
    xy: np.ndarray  # (C, 2) float, level-0 px
    genes: np.ndarray  # (G,) str, in alphabetical order
    counts: csr_array  # (C, G)
    notes: tuple[str, ...]
    batch_variables: Mapping[str, str] = field(default_factory=dict)  # kind -> of all its cells


def build(
    name: str,
    slides: Iterable[Slide],
    view_px: int,
    cells: int,
    genes: int,
    seed: int,
    what: str = "slide",
) -> Benchmark:
    """Cut random cells of each slide and count their transcripts of the genes most expressed.

    Args:
        slides: one at a time; the counts of all are held, as genes are chosen by them.
        cells: drawn per slide, uniformly among those whose window lies within.
        genes: kept, see `top_genes`.
        what: a slide's pixels are called.

    Returns:
        With `targets`, transcripts as counted; groups are the slides.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: an image does not open, most cells lie outside theirs, the slides share too
            few genes, or no cell is left.
    """
    slides = list(slides)
    chosen = top_genes([(slide.genes, slide.counts) for slide in slides], genes)
    notes = [f"{slide.name}: {note}" for slide in slides for note in slide.notes]
    crops, targets, leaving, spare = [], [], 0, 0
    batch_variables: dict[str, list[str]] = {}
    for slide in slides:
        draw = np.random.default_rng([seed, zlib.crc32(slide.name.encode())])
        with open_picture(slide.image, slide.name) as picture:
            notes += check_inside(slide.name, slide.image, slide.xy, picture.size)
            # All that lie within are found first, so that the draw is uniform among them.
            rows = np.flatnonzero(picture.inside(slide.xy, slide.mpp, view_px))
            drawn = np.sort(draw.choice(rows, min(cells, len(rows)), replace=False))
            crops.append(picture.cut(slide.xy[drawn], slide.mpp, view_px)[1])
        column = np.searchsorted(slide.genes, chosen)
        targets.append(slide.counts[drawn][:, column].toarray().astype(np.float32))
        for kind, word in {"slide": slide.name, **slide.batch_variables}.items():
            batch_variables.setdefault(kind, []).extend([word] * len(drawn))
        outside = len(slide.xy) - len(rows)
        leaving, spare = leaving + outside, spare + len(rows) - len(drawn)
        notes.append(
            f"{slide.name}: {len(drawn)} of {len(rows)} cells drawn, {outside} whose window "
            f"leaves the {what}; {slide.mpp:g} µm/px"
        )
    named = {kind: np.array(words, np.str_) for kind, words in batch_variables.items()}
    return Benchmark(
        name=name,
        crops=np.concatenate(crops),
        labels=np.full(len(named["slide"]), "", np.str_),
        classes=(),
        groups=named["slide"],
        group_kind="slide",
        notes=tuple(notes),
        batch_variables=named,
        targets=np.concatenate(targets),
        target_names=tuple(chosen.tolist()),
        left_out={f"whose window leaves the {what}": leaving, "not drawn": spare},
    )


def top_genes(slides: list[tuple[np.ndarray, csr_array]], count: int) -> np.ndarray:
    """Return the names of the genes whose mean expression ranks highest over all slides.

    Args:
        slides: (G,) str genes and (C, G) counts of each.
        count: of genes.

    Raises:
        ValueError: fewer are on all panels.
    """
    common = slides[0][0]
    for panel, _ in slides[1:]:
        common = np.intersect1d(common, panel)
    if len(common) < count:
        raise ValueError(f"{len(common)} genes are on all slides' panels, fewer than {count}")
    ranks = np.zeros(len(common))
    for panel, matrix in slides:
        mean = np.asarray(matrix.mean(axis=0)).ravel()
        ranks += rankdata(-mean[np.searchsorted(panel, common)])
    return common[np.argsort(ranks, kind="stable")[:count]]
