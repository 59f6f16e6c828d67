"""Embed every nucleus of a slide, in memory that does not grow with their number."""

from pathlib import Path

import numpy as np

from evaluate.embeddings import FORMAT, array_path, write
from evaluate.endings import Encoder
from evaluate.slides.extraction import Nuclei
from shards.schema import VIEW_PX


def embed_slide(
    encoder: Encoder, nuclei: Nuclei, work: Path, overwrite: bool = False, side: int | None = None
) -> np.ndarray:
    """Return the nuclei's embeddings as a file mapped into memory, made unless it is there.

    `<work>/embeddings/<encoder>/<slide>.npy`, rows in the order of the slide's table, resumable,
    and a manifest of what they depend on (the encoder, the tar's digest).

    Args:
        nuclei: N of a slide.
        work: the folder of the files in between.
        side: of the crops that the encoder sees, px; None: as in a benchmark.

    Returns:
        (N, D) float32, read-only.

    Raises:
        ValueError: the encoder does not fit the crops, or a crop is broken.
    """
    manifest = {
        "format": FORMAT,
        "encoder": encoder.manifest(),
        "slide": nuclei.slide,
        "nuclei": len(nuclei),
        "tar_sha256": nuclei.record["sha256"],
    }
    order = np.argsort(nuclei.table["offset"].to_numpy(), kind="stable")  # as they lie in the tar
    # An encoder of wider crops gets them; all others see what they see in a benchmark.
    usual = max(VIEW_PX, encoder.input_px or 0)
    side = max(side or usual, encoder.input_px or 0)
    if side != usual:
        manifest["view_px"] = side

    def read(first: int, last: int) -> np.ndarray:
        return nuclei.crops(order[first:last], side)

    path = array_path(encoder, nuclei.slide, work)
    return write(encoder, path, manifest, read, len(nuclei), overwrite=overwrite, order=order)
