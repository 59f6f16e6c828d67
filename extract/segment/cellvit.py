"""Nuclei in CellViT's and CellViT++'s cells.json and cell_detection.json, plain or snappy.

An object with wsi_metadata, type_map and the array `cells`. Contours and centroids are (x, y) in
level-0 px (boxes are (row, column) and not read); a contour is not closed.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from extract.segment.detections import Rings
from extract.segment.items import Block

# The classes of PanNuke, which CellViT was trained on; files of old versions do not name them.
TYPES = {1: "Neoplastic", 2: "Inflammatory", 3: "Connective", 4: "Dead", 5: "Epithelial"}


def read_cells(blocks: Iterable[Block]) -> Iterator[Rings]:
    """Yield the nuclei of `cells`, in the file's order: as contours, or as centroids.

    Args:
        blocks: of cells.

    Raises:
        ValueError: a cell has neither contour nor centroid.
    """
    for block in blocks:
        named = block.header.get("type_map")
        types = {int(k): v for k, v in named.items()} if isinstance(named, dict) else TYPES
        arrays, bare, labels = [], [], []
        for item in block.items:
            if "contour" in item:
                arrays.append(item["contour"] - block.base)
            elif "centroid" in item:
                arrays.append(-1)
                bare.append(item["centroid"])
            else:
                raise ValueError(f"a cell has neither contour nor centroid: {str(item)[:120]}")
            kind = item.get("type")
            labels.append(None if kind is None else types.get(int(kind), str(kind)))
        # The cells' arrays stand in the cells' order, so the vertices need no sorting.
        chosen = np.array(arrays)
        lengths = np.ones(len(chosen), np.int64)
        outlined = chosen >= 0
        lengths[outlined] = np.diff(block.start)[chosen[outlined]]
        empty = outlined & (lengths == 0)
        if empty.any():
            raise ValueError(f"the contour of a cell is empty: {block.items[empty.argmax()]}")
        points = np.empty((lengths.sum(), 2))
        of_outline = np.repeat(outlined, lengths)
        points[of_outline] = block.xy
        if bare:
            points[~of_outline] = np.array(bare, float)
        yield Rings(points, lengths, labels)
