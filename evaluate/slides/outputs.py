"""The files that other programs open, by their endings: each written from a slide's nuclei."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluate.classes.calls import Calls
from evaluate.classes.picture import LONGEST_PX, overview, with_legend
from evaluate.classes.tissue import view
from evaluate.endings import Encoder
from evaluate.principal import components as principal_components
from evaluate.slides.annotations import about, columns, labels, morphology, spatial, xy
from evaluate.slides.extraction import Nuclei
from evaluate.slides.h5ad import frames, plain, write_h5ad
from evaluate.slides.parquet import write_parquet
from evaluate.slides.qupath import scanned_part, write_qupath
from evaluate.slides.spatial_data import check_store, write_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detail:
    """How much goes into a file."""

    components: int = 10  # principal ones among QuPath's measurements
    whole_image: bool = False  # in SpatialData every pixel of the slide instead of a small picture


def check_writable(path: Path, calls: bool) -> None:
    """Refuse, before any work, a file that cannot be written.

    Args:
        path: the file to be.
        calls: whether a classifier is asked.

    Raises:
        ValueError: no such ending, a picture of classes without them, or no library for it.
        FileExistsError: what is there is not this program's.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"--out {path}: the name must end in one of {', '.join(WRITERS)}")
    if path.suffix == ".png" and not calls:
        raise ValueError(f"--out {path}: a picture shows classes: give --classifier")
    if path.suffix == ".zarr":
        check_store(path)


def write_file(
    path: Path,
    encoder: Encoder,
    nuclei: Nuclei,
    embeddings: np.ndarray,
    calls: Calls | None = None,
    detail: Detail = Detail(),
) -> None:
    """Write a slide's nuclei as its name's ending says.

    Args:
        path: of the file, its ending one of WRITERS.
        embeddings: (N, D) float32.
        calls: what a classifier says of the N, if one was asked.
        detail: of what goes in.
    """
    WRITERS[path.suffix](path, encoder, nuclei, embeddings, calls, detail)


def _annotated(nuclei: Nuclei, calls: Calls | None) -> tuple[dict, dict, dict]:
    """Return obsm, uns of the classes, and the classes in their order, as AnnData has them."""
    obsm, uns, kinds = {"spatial": xy(nuclei)}, {}, {}
    if calls:
        kinds["class"] = calls.classifier.classes
        uns["class_colors"] = np.array(list(calls.classifier.colours.values()))  # as scanpy has it
        obsm["probabilities"] = calls.probabilities
    return obsm, uns, kinds


def _h5ad(path: Path, encoder, nuclei, embeddings, calls: Calls | None, detail: Detail) -> None:
    obsm, uns, kinds = _annotated(nuclei, calls)
    uns |= {"lemon": about(encoder, nuclei, calls), "spatial": spatial(nuclei)}
    write_h5ad(path, embeddings, nuclei.keys(), columns(nuclei, calls), obsm, uns, kinds)


def _zarr(path: Path, encoder, nuclei, embeddings, calls: Calls | None, detail: Detail) -> None:
    from anndata import AnnData

    obsm, uns, kinds = _annotated(nuclei, calls)
    named = columns(nuclei, calls)
    obs, var = frames(nuclei.keys(), named, embeddings.shape[1], kinds)
    uns["lemon"] = plain(about(encoder, nuclei, calls))
    table = AnnData(np.asarray(embeddings), obs=obs, var=var, obsm=obsm, uns=uns)
    slide = nuclei.record.get("path")
    if slide is None or not Path(slide).is_file():
        log.warning("%s: no picture: the slide is no longer at %s", path, slide)
        slide = None
    write_store(path, nuclei, table, slide and Path(slide), detail.whole_image)


def _parquet(path: Path, encoder, nuclei, embeddings, calls: Calls | None, detail: Detail) -> None:
    write_parquet(path, nuclei, embeddings, about(encoder, nuclei, calls), calls)


def _geojson(path: Path, encoder, nuclei, embeddings, calls: Calls | None, detail: Detail) -> None:
    measured = morphology(nuclei)
    scores = principal_components(embeddings, min(detail.components, *embeddings.shape))
    measured |= {f"PC{i + 1} {encoder.name}": column for i, column in enumerate(scores.T)}
    named, colours = labels(nuclei), None
    if calls:
        named, colours = calls.labels, calls.classifier.colours
        measured |= {"probability": calls.probability} | calls.each()
    origin = scanned_part(nuclei.record.get("path"))
    keys, outlines = nuclei.keys(), nuclei.outlines()
    write_qupath(path, keys, outlines, xy(nuclei), named, measured, origin, colours)


def _png(path: Path, encoder, nuclei, embeddings, calls: Calls | None, detail: Detail) -> None:
    check_writable(path, calls is not None)
    assert calls
    from shards.write import atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = overview(nuclei, calls, view(nuclei.record, LONGEST_PX))
    with atomic(path) as file:
        with_legend(picture, calls).save(file, "PNG")


WRITERS: dict[str, Callable] = {
    ".h5ad": _h5ad,
    ".zarr": _zarr,
    ".parquet": _parquet,
    ".geojson": _geojson,
    ".png": _png,
}
