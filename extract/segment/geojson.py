"""Nuclei in GeoJSON: HoverFast's, QuPath's, CellViT's, HEST's, and what people make of it.

- HoverFast: an array of Features, one a line; `object_type`, a centroid within the geometry.
- QuPath 0.4 to 0.6 (its QuPathTypeAdapters, ROITypeAdapters and PathClassTypeAdapter): an array, a
  FeatureCollection, one Feature, or `root` with all within; a cell's nucleus stands in
  `nucleusGeometry`, an object's children in its properties' `childObjects`, a derived class as
  `names`; an object may be a MultiPolygon and have holes. Tiles, TMA cores and, among detections,
  annotations are regions, no nuclei. Before 0.4 a class has a `parentClass`, before 0.3 an object's
  type stands in its `id`.
- CellViT and HEST: an array with one MultiPolygon or MultiPoint Feature a class (or chunk), which
  holds thousands of nuclei.
- shapely and geopandas, when they have mended outlines: GeometryCollections.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from extract.segment.detections import (
    ANNOTATION,
    DETECTION,
    NUCLEUS_OF_CELL,
    PLAIN,
    WHOLE_CELL,
    Rings,
)
from extract.segment.items import AS_TEXT, Block
from shards.class_name import class_name

NO_CLASS = ("Nuclei", "_chunked")  # names (or their ends) that say nothing of a nucleus' class
# QuPath's types of object, as it has written them since version 0.2
CELL = {"cell", "PathCellObject"}
# of which every Feature is a single nucleus
ONE_OBJECT = CELL | {"detection", "PathDetectionObject"}
REGION = {"annotation", "PathAnnotationObject", "unknown"}
NO_NUCLEI = {
    **dict.fromkeys(("tile", "PathTileObject"), "tiles"),
    **dict.fromkeys(("tmaCore", "tma_core", "TMACoreObject"), "TMA cores"),
    **dict.fromkeys(("root", "PathRootObject"), "root objects"),
}
LEGACY = {"PathTileObject", "PathCellObject", "PathDetectionObject", "PathAnnotationObject"}
LEGACY |= {"TMACoreObject", "PathRootObject"}
# geometries of nuclei -> whether each position is one
IS_PLACE = {"Polygon": False, "MultiPolygon": False, "Point": True, "MultiPoint": True}
SHAPES = {*IS_PLACE, "LineString", "MultiLineString", "GeometryCollection"}
PROPER = {name.lower(): name for name in SHAPES}  # programs write "polygon" as well

# why an object yields no nucleus
NO_GEOMETRY = "objects without a geometry"
EMPTY = "empty geometries"
PARTS = "smaller parts of nuclei"
LOOSE = "lines and points in collections"


def read_features(blocks: Iterable[Block], left_out: Counter[str]) -> Iterator[Rings]:
    """Yield the nuclei of Features, in the file's order.

    Args:
        blocks: of Features, or of geometries.
        left_out: by reason, how many objects yield no nucleus; counted up.

    Raises:
        ValueError: something in the array is neither.
    """
    labels: dict[str | None, str | None] = {None: None}
    for block in blocks:
        arrays, owner, found = [], [], []
        items = block.items
        top = block.base + len(block.start) - 1
        for item in items:  # it grows by the objects' children
            try:
                properties = item.get("properties") or {}
                nucleus = item.get("nucleusGeometry")
                geometry = nucleus or item.get("geometry")
                of = properties.get("objectType") or properties.get("object_type")
                if of is None:
                    of = _legacy_type(item, properties)
                children = properties.get("childObjects") or properties.get("children")
                if children:
                    items += [child for child in children if isinstance(child, dict)]
                if of in NO_NUCLEI:
                    left_out[NO_NUCLEI[of]] += 1
                    continue
                if geometry is None:
                    if "root" in item:
                        items.append(item["root"])
                        continue
                    if item.get("type") is None or _kind(item) not in SHAPES:
                        _check_feature(item)
                        left_out[NO_GEOMETRY] += 1
                        continue
                    geometry = item
                is_place = IS_PLACE.get(_kind(geometry))
                if is_place is None:
                    own = _polygons(geometry, left_out)
                    if not own:
                        continue
                else:
                    own = (geometry.get("coordinates"),)
                if any(type(array) is not int and array for array in own):
                    raise ValueError(f"{AS_TEXT}: {str(own[0])[:60]}…")
                label = properties.get("classification")
                if label is not None:
                    name = label.get("name") if type(label) is dict else None
                    if type(name) is not str or "parentClass" in label:
                        name = class_name(label)
                    if name not in labels:
                        labels[name] = None if not name or name.endswith(NO_CLASS) else name
                    label = labels[name]
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"an object is no GeoJSON Feature: {str(item)[:120]}") from error
            for array in own:
                # one begun long before its own children is a region's, and has been given away
                if type(array) is int and block.base <= array < top:
                    arrays.append(array)
                    owner.append(len(found))
            kind = PLAIN
            if of in REGION:
                kind = ANNOTATION
            elif nucleus is not None:
                kind = NUCLEUS_OF_CELL
            elif of in CELL and "objectType" in properties:
                kind = WHOLE_CELL
            elif of in ONE_OBJECT:
                kind = DETECTION
            found.append((of in ONE_OBJECT or is_place is None, bool(is_place), kind, label))
        if found:
            single, places, kinds, of_each = zip(*found, strict=True)
            yield _rings(
                block,
                np.array(arrays, np.int64),
                np.array(owner, np.int64),
                np.array(single),
                np.array(places),
                np.array(kinds, np.uint8),
                of_each,
                left_out,
            )


def _legacy_type(item: dict, properties: dict) -> str | None:
    """Return an object's type where QuPath 0.2 kept it, or under the name it also reads."""
    if item.get("id") in LEGACY:
        return item["id"]
    of = properties.get("type")
    return of if isinstance(of, str) and of in ONE_OBJECT | REGION | NO_NUCLEI.keys() else None


def _check_feature(item: dict) -> None:
    """Raise a KeyError for what is no Feature."""
    if str(item.get("type")).lower() != "feature":
        item["geometry"]


def _kind(geometry: dict) -> str:
    """Return a geometry's type as GeoJSON writes it."""
    of = geometry["type"]
    return of if of in SHAPES else PROPER.get(str(of).lower(), str(of))


def _polygons(geometry: dict, left_out: Counter[str]) -> list[int | None]:
    """Return the arrays of the polygons in a collection; count it, if there are none."""
    if (kind := _kind(geometry)) != "GeometryCollection":
        left_out[f"{kind}s"] += 1
        return []
    found, loose, inside = [], 0, [geometry]
    for part in inside:
        if _kind(part) == "GeometryCollection":
            inside += part.get("geometries") or []
        elif IS_PLACE.get(_kind(part)) is False:
            found.append(part.get("coordinates"))
        else:
            loose += 1
    if not found:
        left_out["GeometryCollections without a polygon"] += 1
    elif loose:
        left_out[LOOSE] += loose
    return found


def _rings(
    block: Block,
    arrays: np.ndarray,
    of_array: np.ndarray,
    single: np.ndarray,
    places: np.ndarray,
    kinds: np.ndarray,
    labels: Sequence[str | None],
    left_out: Counter[str],
) -> Rings:
    """Find the outer rings of F features.

    Args:
        block: with the features' coordinates.
        arrays: (A,) numbers of the features' arrays of coordinates.
        of_array: (A,) whose they are.
        single: (F,) whether it is one nucleus, however many polygons it has.
        places: (F,) whether its positions are nuclei without outlines.
        kinds: (F,) of Rings.
        labels: (F,) of each.
        left_out: counted up.
    """
    feature = np.full(len(block.start) - 1, -1)  # of each array; -1: not asked for
    feature[arrays - block.base] = of_array
    lengths = np.diff(block.start)
    owner = np.repeat(feature, lengths)  # (V,) feature of each vertex
    is_place = (owner >= 0) & places[owner]
    ends = np.flatnonzero((block.closes >= 2) | is_place)  # of rings, and places are rings of one
    firsts = np.concatenate([[0], ends[:-1] + 1])
    # A ring is an outer one where its array begins, or after the end of a polygon.
    begins = np.zeros(len(block.xy) + 1, bool)
    begins[block.start[:-1]] = True
    outer = begins[firsts[: len(ends)]] | (block.closes[firsts[: len(ends)] - 1] >= 3)
    outer = (outer | is_place[ends]) & (owner[ends] >= 0)
    firsts, ends = firsts[: len(ends)][outer], ends[outer]
    of = owner[ends]
    parts = np.bincount(of, minlength=len(single))
    empty = int(np.count_nonzero(parts == 0))
    if empty:
        left_out[EMPTY] += empty
    several = single & (parts > 1)
    if several.any():
        keep = ~several[of]
        for f in np.flatnonzero(several):
            mine = np.flatnonzero(of == f)
            keep[max(mine, key=lambda r: _area(block.xy[firsts[r] : ends[r] + 1]))] = True
        left_out[PARTS] += int(np.count_nonzero(~keep))
        firsts, ends, of = firsts[keep], ends[keep], of[keep]
    lengths = ends + 1 - firsts
    of_each = [labels[f] for f in of]
    if lengths.sum() == len(block.xy):  # the usual case: nothing but outer rings
        return Rings(block.xy, lengths, of_each, kinds[of])
    marks = np.zeros(len(block.xy) + 1, np.int8)
    marks[firsts] += 1
    marks[ends + 1] -= 1
    return Rings(block.xy[np.cumsum(marks[:-1]) > 0], lengths, of_each, kinds[of])


def _area(ring: np.ndarray) -> float:
    """Return the area within a ring (K, 2)."""
    x, y = (ring - ring[0]).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
