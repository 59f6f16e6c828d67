"""Segment a slide tile by tile, so that no nucleus is cut or counted twice at a seam.

Tiles overlap by a margin wider than a nucleus. A nucleus belongs to the tile whose core holds its
centroid; where two tiles drew one nucleus differently, both drawings are kept as candidates near
the seam and the later one that covers an earlier one is marked a duplicate.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import shapely

from extract.morphology import outlines
from extract.segment.detections import Detections, Outlines
from extract.slide import Slide
from shards.crop import window_px
from shards.progress import Bar
from shards.schema import MPP
from shards.stain import Stain, lab_statistics, macenko
from shards.tissue import pale_tissue, stained_tissue

CORE_PX = 1024  # side of a tile without its margin, px at MPP
MARGIN_PX = 64  # 16 µm: no nucleus whose centroid is in the core reaches beyond it
SEAM_PX = 8  # 2 µm: how far over a seam a centroid may lie and still be a candidate
OVERLAP = 0.5  # of the smaller outline: from there on two outlines are one nucleus

TISSUE_MPP = 8.0  # µm/px of the thumbnail in which tissue is sought
STAIN_TILES = 16  # regions that a slide's stain is estimated from
STAIN_TILE_PX = 512


# From (H, W, 3) uint8 at 0.25 µm/px and the slide's stain to (H, W) int32 labels, or to a function
# that gives them: what may be done while the next tile is looked at.
Segmenter = Callable[[np.ndarray, Stain], "np.ndarray | Callable[[], np.ndarray]"]


def segment_by_tiles(
    slide: Slide,
    segment: Segmenter,
    seed: int,
    mask: np.ndarray | None = None,
    core_px: int | None = None,
) -> tuple[Detections, Stain | None]:
    """Find a slide's nuclei with a segmenter of images.

    The next tile is read, and the one before outlined, while one is segmented.

    Args:
        mask: (H, W) bool over the whole slide, where nuclei are sought; None: in its tissue.
        core_px: side of a tile without its margin, px at 0.25 µm/px; None: CORE_PX.

    Returns:
        The nuclei in the tiles' order, and the slide's stain (None: no tissue).
    """
    tissue, sampled = find_tissue(slide) if mask is None else (mask, mask)
    tiles = list(tissue_tiles(slide, tissue, core_px))
    if not tiles:
        none = Outlines.none()
        return Detections(none, none.centres(), np.empty(0, bool)), None
    stain = estimate_stain(slide, sampled, seed)
    polygons, owners, seams = [], [], []
    found_by_tile = _segment_tiles(slide, tiles, segment, stain)
    for number, ((x, y, width, height), found) in enumerate(zip(tiles, found_by_tile, strict=True)):
        centre = _centres(found)  # (N, 2)
        reach = SEAM_PX * MPP / slide.mpp
        outside = np.maximum(
            np.maximum(x - centre[:, 0], centre[:, 0] - (x + width - 1)),
            np.maximum(y - centre[:, 1], centre[:, 1] - (y + height - 1)),
        )  # (N,) px beyond the core; a seam runs half a pixel outside it
        near = outside <= reach
        if mask is not None:
            near &= within(mask, centre, slide)
        polygons.append(found[near])
        owners.append(np.full(near.sum(), number))
        seams.append(outside[near])
    found = np.concatenate(polygons)
    twice = _duplicates(found, np.concatenate(owners), np.concatenate(seams))
    return Detections(Outlines.pack(found), _centres(found), twice), stain


def find_tissue(slide: Slide) -> tuple[np.ndarray, np.ndarray]:
    """Mark a slide's tissue, and what of it its stain is to be estimated from.

    Returns:
        (H, W) bool twice, over the whole slide; the second leaves fat out where there is other.
    """
    thumbnail, mpp = slide.thumbnail(TISSUE_MPP)
    stained = stained_tissue(thumbnail, mpp)
    tissue = stained | pale_tissue(thumbnail, mpp, stained)
    return tissue, stained if stained.any() else tissue


def tissue_tiles(
    slide: Slide, tissue: np.ndarray, core_px: int | None = None
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the cores (x, y, width, height, level-0 px) that hold any tissue, row by row.

    Args:
        tissue: (H, W) bool over the whole slide.
        core_px: side of a core, px at 0.25 µm/px; None: CORE_PX.
    """
    core = round((core_px or CORE_PX) * MPP / slide.mpp)
    down_y, down_x = tissue.shape[0] / slide.height, tissue.shape[1] / slide.width
    for y in range(0, slide.height, core):
        for x in range(0, slide.width, core):
            width, height = min(core, slide.width - x), min(core, slide.height - y)
            rows = slice(int(y * down_y), int(np.ceil((y + height) * down_y)))
            columns = slice(int(x * down_x), int(np.ceil((x + width) * down_x)))
            if tissue[rows, columns].any():
                yield x, y, width, height


def estimate_stain(slide: Slide, tissue: np.ndarray, seed: int) -> Stain:
    """Estimate a slide's stain and colour from the pixels of some regions of its tissue.

    Args:
        tissue: (H, W) bool over the whole slide, with some True.
    """
    rows, columns = np.nonzero(tissue)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:STAIN_TILES]
    width, height = min(STAIN_TILE_PX, slide.width), min(STAIN_TILE_PX, slide.height)
    pixels = []
    for row, column in zip(rows[chosen], columns[chosen], strict=True):
        x = int((column + 0.5) * slide.width / tissue.shape[1] - width / 2)
        y = int((row + 0.5) * slide.height / tissue.shape[0] - height / 2)
        x = min(max(x, 0), slide.width - width)
        y = min(max(y, 0), slide.height - height)
        pixels.append(slide.read(x, y, width, height)[::2, ::2].reshape(-1, 3))
    pixels = np.concatenate(pixels)
    mean, sd = lab_statistics(pixels)
    return replace(macenko(pixels), lab_mean=mean, lab_sd=sd)


def _segment_tiles(
    slide: Slide, tiles: list[tuple[int, int, int, int]], segment: Segmenter, stain: Stain
) -> Iterator[np.ndarray]:
    """Yield the (N,) outlines found in each core and its margin, in level-0 px, in order."""
    bar = Bar(tiles, "segment", "tiles", inner=True)
    with bar, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as tracer:
        coming = reader.submit(_read_tile, slide, tiles[0])
        tracing: deque[Future[np.ndarray]] = deque()
        for following in [*tiles[1:], None]:
            image, place = coming.result()
            if following is not None:
                coming = reader.submit(_read_tile, slide, following)
            tracing.append(tracer.submit(_trace, segment(image, stain), place))
            if len(tracing) > 1:
                yield tracing.popleft().result()
                bar.update()
        yield tracing.popleft().result()
        bar.update()


def _read_tile(
    slide: Slide, core: tuple[int, int, int, int]
) -> tuple[np.ndarray, tuple[np.ndarray, tuple[int, int]]]:
    """Read a core and its margin at 0.25 µm/px.

    Returns:
        (H, W, 3) uint8, and where it lies: level-0 px in one of its px (x, y), and its corner.
    """
    x, y, width, height = core
    margin = round(MARGIN_PX * MPP / slide.mpp)
    left, top = max(x - margin, 0), max(y - margin, 0)
    right, bottom = min(x + width + margin, slide.width), min(y + height + margin, slide.height)
    image = slide.read(left, top, right - left, bottom - top)
    shrink = window_px(slide.mpp, 1)  # level-0 px in a px of the segmenter's image
    if shrink != 1:
        size = (max(round(image.shape[1] / shrink), 1), max(round(image.shape[0] / shrink), 1))
        kind = cv2.INTER_AREA if shrink > 1 else cv2.INTER_CUBIC
        image = cv2.resize(image, size, interpolation=kind)
    ratio = np.array([(right - left) / image.shape[1], (bottom - top) / image.shape[0]])
    return image, (ratio, (left, top))


def _trace(
    labels: np.ndarray | Callable[[], np.ndarray], place: tuple[np.ndarray, tuple[int, int]]
) -> np.ndarray:
    """Return the (N,) outlines of a tile's labels, in level-0 px."""
    ratio, corner = place
    # Edges, not centres, coincide in both frames: hence the halves.
    return shapely.transform(
        outlines(labels() if callable(labels) else labels),
        lambda xy: (xy + 0.5) * ratio - 0.5 + corner,
    )


def within(mask: np.ndarray, xy: np.ndarray, slide: Slide) -> np.ndarray:
    """Tell which points (N, 2) of a slide a mask over it marks, (N,) bool."""
    size = np.array([slide.width, slide.height])
    column, row = ((np.clip(xy, 0, size - 1) + 0.5) / size * mask.shape[::-1]).astype(int).T
    return mask[row, column]


def _centres(polygons: np.ndarray) -> np.ndarray:
    """Return the centroids of (N,) shapely Polygons, (N, 2)."""
    return shapely.get_coordinates(shapely.centroid(polygons))


def _duplicates(polygons: np.ndarray, owner: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Mark the second drawings of nuclei that lie on a seam.

    Of two overlapping outlines from two tiles the one whose centroid lies deeper in its own tile's
    core stays; of equals, the earlier.

    Args:
        polygons: (N,) shapely Polygons.
        owner: (N,) number of the tile each comes from.
        outside: (N,) how far its centroid lies outside its tile's core; negative within.

    Returns:
        (N,) bool.
    """
    duplicate = np.zeros(len(polygons), bool)
    candidates = np.flatnonzero(outside > -2 * MARGIN_PX)
    tree = shapely.STRtree(polygons[candidates])
    a, b = candidates[tree.query(polygons[candidates], predicate="intersects")]
    pair = (owner[a] != owner[b]) & (a < b)
    a, b = a[pair], b[pair]
    shared = shapely.area(shapely.intersection(polygons[a], polygons[b]))
    one = shared > OVERLAP * np.minimum(shapely.area(polygons[a]), shapely.area(polygons[b]))
    a, b = a[one], b[one]
    worse = np.where(outside[a] > outside[b], a, b)
    better = np.where(outside[a] > outside[b], b, a)
    # Best first, so that only an outline that itself stays can push another out.
    for i in np.lexsort([worse, outside[better]]):
        duplicate[worse[i]] |= not duplicate[better[i]]
    return duplicate
