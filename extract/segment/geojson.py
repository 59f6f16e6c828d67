"""Nuclei in GeoJSON: HoverFast's, QuPath's, CellViT's and HEST's.

- HoverFast: an array of Features, one a line; `object_type`, a centroid within the geometry.
- QuPath: a FeatureCollection or an array; a cell's nucleus stands in `nucleusGeometry`; an object
  may be a MultiPolygon and have holes.
- CellViT and HEST: an array with one MultiPolygon or MultiPoint Feature a class (or chunk), which
  holds thousands of nuclei.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from extract.segment.detections import Rings
from extract.segment.items import Block

NO_CLASS = ("Nuclei", "_chunked")  # names (or their ends) that say nothing of a nucleus' class
ONE_OBJECT = ("cell", "detection")  # QuPath's types of which every Feature is a single nucleus
# geometries of nuclei -> whether each position is one
IS_PLACE = {"Polygon": False, "MultiPolygon": False, "Point": True, "MultiPoint": True}


def read_features(blocks: Iterable[Block]) -> Iterator[Rings]:
    """Yield the nuclei of Features, in the file's order; other geometries are no nuclei.

    Args:
        blocks: of Features.

    Raises:
        ValueError: something in the array is no Feature.
    """
    labels: dict[str | None, str | None] = {None: None}
    for block in blocks:
        found = []
        for item in block.items:
            try:
                geometry = item.get("nucleusGeometry") or item["geometry"]
                is_place = IS_PLACE.get(geometry["type"])
                if is_place is None:
                    continue
                properties = item.get("properties") or {}
                name = (properties.get("classification") or {}).get("name")
                if name not in labels:
                    labels[name] = None if name.endswith(NO_CLASS) else name
                of = properties.get("objectType") or properties.get("object_type")
                found.append((geometry["coordinates"], of in ONE_OBJECT, is_place, labels[name]))
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"an object is no GeoJSON Feature: {str(item)[:120]}") from error
        if found:
            arrays, single, places, of_each = zip(*found, strict=True)
            yield _rings(block, np.array(arrays), np.array(single), np.array(places), of_each)


def _rings(
    block: Block,
    arrays: np.ndarray,
    single: np.ndarray,
    places: np.ndarray,
    labels: Sequence[str | None],
) -> Rings:
    """Find the outer rings of F features.

    Args:
        block: with the features' coordinates.
        arrays: (F,) number of each feature's array of coordinates.
        single: (F,) whether it is one nucleus, however many polygons it has.
        places: (F,) whether its positions are nuclei without outlines.
        labels: (F,) of each.
    """
    feature = np.full(len(block.start) - 1, -1)  # of each array; -1: not asked for
    feature[arrays - block.base] = np.arange(len(arrays))
    owner = np.repeat(feature, np.diff(block.start))  # (V,) feature of each vertex
    is_place = (owner >= 0) & places[owner]
    ends = np.flatnonzero((block.closes >= 2) | is_place)  # of rings, and places are rings of one
    firsts = np.concatenate([[0], ends[:-1] + 1])
    # A ring is an outer one where its array begins, or after the end of a polygon.
    outer = (np.diff(owner[ends], prepend=-2) != 0) | (block.closes[firsts - 1] >= 3)
    outer = (outer | is_place[ends]) & (owner[ends] >= 0)
    firsts, ends = firsts[outer], ends[outer]
    of = owner[ends]
    parts = np.bincount(of, minlength=len(arrays))
    several = single & (parts > 1)
    if several.any():
        keep = ~several[of]
        for f in np.flatnonzero(several):
            mine = np.flatnonzero(of == f)
            keep[max(mine, key=lambda r: _area(block.xy[firsts[r] : ends[r] + 1]))] = True
        firsts, ends, of = firsts[keep], ends[keep], of[keep]
    lengths = ends + 1 - firsts
    if lengths.sum() == len(block.xy):  # the usual case: nothing but outer rings
        return Rings(block.xy, lengths, [labels[f] for f in of])
    marks = np.zeros(len(block.xy) + 1, np.int8)
    marks[firsts] += 1
    marks[ends + 1] -= 1
    points = block.xy[np.cumsum(marks[:-1]) > 0]
    return Rings(points, lengths, [labels[f] for f in of])


def _area(ring: np.ndarray) -> float:
    """Return the area within a ring (K, 2)."""
    x, y = ring.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
