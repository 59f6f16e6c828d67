"""What goes along with a slide's embeddings: positions, labels, measures, the slide's picture."""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from evaluate.classes.calls import Calls
from evaluate.endings import Encoder
from evaluate.slides.extraction import MORPHOLOGY, Nuclei
from shards.schema import MPP

THUMBNAIL_PX = 2000  # longer side of the picture that goes along
NUCLEUS_UM = 8.0  # diameter at which squidpy draws a nucleus


def about(encoder: Encoder, nuclei: Nuclei, calls: Calls | None = None) -> dict:
    """Return what a reader of the embeddings should know, as JSON."""
    record = nuclei.record
    known = calls and {
        "name": calls.classifier.name,
        "sha256": calls.classifier.sha256,
        "classes": list(calls.classifier.classes),
        "colours": list(calls.classifier.colours.values()),
        "min_probability": calls.least,
        "training": calls.classifier.facts["training"]["benchmark"],
    }
    return {
        "slide": nuclei.slide,
        "project": record["project"],
        "path": record.get("path"),
        "mpp": nuclei.described.get("mpp"),  # of the slide
        "crop_mpp": MPP,  # what the encoder was shown
        "coordinates": "x, y of the nucleus' centre, level-0 px of the slide's full frame",
        "nuclei": {"detected": sum(record["fates"].values()), **record["fates"]},
        "segmenter": nuclei.described.get("segmenter"),
        "segmenter_version": nuclei.described.get("segmenter_version"),
        "stain": nuclei.described.get("stain"),
        "encoder": encoder.manifest(),
        **({"classifier": known} if known else {}),
        "tar_sha256": record["sha256"],
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "extract_versions": record.get("versions", {}),
    }


def xy(nuclei: Nuclei) -> np.ndarray:
    """Return the nuclei's centres, (N, 2) float32, level-0 px."""
    return np.stack([nuclei.table[axis].to_numpy() for axis in "xy"], axis=1)


def labels(nuclei: Nuclei) -> np.ndarray:
    """Return what the segmenter says each nucleus is, (N,) str, '' where it says nothing."""
    return np.array(nuclei.table["label"].fill_null("").to_pylist(), np.str_)


def morphology(nuclei: Nuclei) -> dict[str, np.ndarray]:
    """Return what the extract stage measured, name -> (N,) float32, NaN where unknown."""
    table = nuclei.table
    return {
        name: table[name].to_numpy().astype(np.float32, copy=False)
        for name in MORPHOLOGY
        if table[name].null_count < len(table)
    }


def columns(nuclei: Nuclei, calls: Calls | None = None) -> dict[str, np.ndarray]:
    """Return obs: nucleus, slide, project, label, what a classifier says, and the morphology."""
    named = {"slide": nuclei.slide, "project": nuclei.record["project"] or ""}
    return {
        "nucleus": nuclei.table["nucleus"].to_numpy(),
        **{name: np.full(len(nuclei), text) for name, text in named.items()},
        "label": labels(nuclei),
        **(calls.columns() if calls else {}),
        **morphology(nuclei),
    }


def spatial(nuclei: Nuclei) -> dict:
    """Return what squidpy and scanpy draw cells over: the slide's thumbnail and its scale.

    Nothing where the slide's file is no longer where it was extracted from.
    """
    from shards.scans.scan import open_scan

    path = nuclei.record.get("path")
    if path is None or not Path(path).is_file():
        return {}
    slide = open_scan(Path(path))
    image = slide.thumbnail(THUMBNAIL_PX)
    scale = image.shape[1] / slide.width
    diameter = NUCLEUS_UM / (nuclei.described.get("mpp") or MPP)
    factors = {"tissue_hires_scalef": scale, "spot_diameter_fullres": diameter}
    return {nuclei.slide: {"images": {"hires": image}, "scalefactors": factors}}
