"""Nuclei in CellViT's and CellViT++'s cells.json and cell_detection.json, and in HoVer-Net's JSON.

CellViT's is an object with wsi_metadata, type_map and the array `cells`, plain or snappy. Contours
and centroids are (x, y) in level-0 px (boxes are (row, column) and not read); a contour is not
closed. HoVer-Net's is an object with `mag`, the objective's power at which it worked (null for a
tile, whose px are the tile's), and `nuc`, the nuclei by number; its types are its model's, whose
names the file does not give.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from extract.segment.detections import Rings
from extract.segment.items import Block

# The classes of PanNuke, which CellViT was trained on; files of old versions do not name them.
TYPES = {1: "Neoplastic", 2: "Inflammatory", 3: "Connective", 4: "Dead", 5: "Epithelial"}


def read_cells(blocks: Iterable[Block], left_out: Counter[str]) -> Iterator[Rings]:
    """Yield the nuclei of `cells`, in the file's order: as contours, or as centroids.

    Args:
        blocks: of cells.
        left_out: by reason, how many cells yield no nucleus; counted up.

    Raises:
        ValueError: a cell has neither contour nor centroid.
    """
    for block in blocks:
        named = block.header.get("type_map")
        default = {} if "mag" in block.header else TYPES
        types = {str(k): v for k, v in (named if isinstance(named, dict) else default).items()}
        sizes = np.diff(block.start)
        arrays, bare, labels = [], [], []
        for item in block.items:
            array, centre = item.get("contour"), item.get("centroid")
            if type(array) is int and sizes[array - block.base]:
                arrays.append(array - block.base)
            elif centre is not None:
                arrays.append(-1)
                bare.append(_place(item))
            elif "contour" in item:
                left_out["cells with an empty contour"] += 1
                continue
            else:
                raise ValueError(f"a cell has neither contour nor centroid: {str(item)[:120]}")
            kind = item.get("type")
            labels.append(None if kind is None else types.get(str(kind), str(kind)))
        # The cells' arrays stand in the cells' order, so the vertices need no sorting.
        chosen = np.array(arrays, np.int64)
        lengths = np.ones(len(chosen), np.int64)
        outlined = chosen >= 0
        lengths[outlined] = sizes[chosen[outlined]]
        points = np.empty((lengths.sum(), 2))
        of_outline = np.repeat(outlined, lengths)
        points[of_outline] = block.xy
        if bare:
            points[~of_outline] = np.array(bare, float)
        yield Rings(points, lengths, labels)


def _place(item: dict) -> list[float]:
    """Return a cell's centroid (x, y)."""
    centre = item["centroid"]
    if not (
        isinstance(centre, list)
        and len(centre) == 2
        and all(isinstance(v, int | float) and math.isfinite(v) for v in centre)
    ):
        raise ValueError(f"the centroid of a cell is no pair of numbers: {str(item)[:120]}")
    return centre
