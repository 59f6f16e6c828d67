"""The files that other programs open, by their endings: each written from a slide's nuclei."""

from pathlib import Path
from typing import Any

import numpy as np

from evaluate.classes.calls import Calls
from evaluate.classes.picture import LONGEST_PX, overview
from evaluate.classes.tissue import view
from evaluate.endings import Encoder
from evaluate.principal import components as principal_components
from evaluate.slides.annotations import about, columns, labels, morphology, spatial, xy
from evaluate.slides.extraction import Nuclei
from evaluate.slides.h5ad import write_h5ad
from evaluate.slides.parquet import write_parquet
from evaluate.slides.qupath import scanned_part, write_qupath


def write_file(
    path: Path,
    encoder: Encoder,
    nuclei: Nuclei,
    embeddings: np.ndarray,
    components: int = 10,
    calls: Calls | None = None,
) -> None:
    """Write a slide's nuclei as its name's ending says.

    Args:
        path: of the file, its ending one of WRITERS.
        encoder: whose embeddings they are.
        nuclei: N.
        embeddings: (N, D) float32.
        components: principal components among QuPath's measurements.
        calls: what a classifier says of the N, if one was asked.
    """
    WRITERS[path.suffix](path, encoder, nuclei, embeddings, components, calls)


def _h5ad(path: Path, encoder, nuclei, embeddings, components: int, calls: Calls | None) -> None:
    uns: dict[str, Any] = {"lemon": about(encoder, nuclei, calls), "spatial": spatial(nuclei)}
    obsm, kinds = {"spatial": xy(nuclei)}, {}
    if calls:
        kinds["class"] = calls.classifier.classes
        uns["class_colors"] = np.array(list(calls.classifier.colours.values()))  # as scanpy has it
        obsm["probabilities"] = calls.probabilities
    write_h5ad(path, embeddings, nuclei.keys(), columns(nuclei, calls), obsm, uns, kinds)


def _parquet(path: Path, encoder, nuclei, embeddings, components: int, calls: Calls | None) -> None:
    write_parquet(path, nuclei, embeddings, about(encoder, nuclei, calls), calls)


def _geojson(path: Path, encoder, nuclei, embeddings, components: int, calls: Calls | None) -> None:
    measured = morphology(nuclei)
    scores = principal_components(embeddings, min(components, *embeddings.shape))
    measured |= {f"PC{i + 1} {encoder.name}": column for i, column in enumerate(scores.T)}
    named, colours = labels(nuclei), None
    if calls:
        named, colours = calls.labels, calls.classifier.colours
        measured |= {"probability": calls.probability} | calls.each()
    origin = scanned_part(nuclei.record.get("path"))
    keys, outlines = nuclei.keys(), nuclei.outlines()
    write_qupath(path, keys, outlines, xy(nuclei), named, measured, origin, colours)


def _png(path: Path, encoder, nuclei, embeddings, components: int, calls: Calls | None) -> None:
    if calls is None:
        raise ValueError(f"{path}: a picture shows classes: give --classifier")
    from shards.write import atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        overview(nuclei, calls, view(nuclei.record, LONGEST_PX)).save(file, "PNG")


WRITERS = {".h5ad": _h5ad, ".parquet": _parquet, ".geojson": _geojson, ".png": _png}
