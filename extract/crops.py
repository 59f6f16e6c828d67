"""Cut a slide's nuclei into a tar of crops, and assign every nucleus its fate."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import cv2
import numpy as np
import shapely

from extract.morphology import DENSITY_COLUMNS, stain_density
from extract.segment.detections import Outlines
from extract.slide import Slide
from shards.crop import cut, encode, inside, window_px
from shards.progress import Bar
from shards.schema import CODECS, CROP_PX, FATES, VIEW_PX, key
from shards.stain import Stain
from shards.write import TarWriter

SQUARE_PX = 512  # the slide is gone through in squares of this side, level-0 px
AREA_UM2 = (8.0, 600.0)  # a nucleus' area; below is debris, above a cluster or an artefact
BLANK_LEVEL = 225  # a pixel is white when its darkest channel is at least this
BLANK_SHARE = 0.9  # a crop is blank when this share of its band is white
BLUR_SQUARE = 4.0  # mean square of the Laplacian of a band's grey levels; sharp ones are far above
BAND_PX = 24  # rows, as wide as the view; on real crops it decides as the whole view does
BATCH = 64  # crops cut, looked at and encoded while they are in the processor's cache

KEPT, EDGE, SIZE, DUPLICATE, BLANK, BLUR, NOT_SAMPLED, UNREADABLE = range(len(FATES))


@dataclass(frozen=True)
class Crops:
    """Where the crops of N nuclei are, and what their pixels say.

    Attributes:
        offset: (N,) int64, of the crop in the tar; -1 where there is none.
        size: (N,) int32 bytes; -1 where there is none.
        density: (N, 4) float32, DENSITY_COLUMNS; NaN where no pixels were read.
        sha256: of the tar, hex.
    """

    offset: np.ndarray
    size: np.ndarray
    density: np.ndarray
    sha256: str


def assign_fates(
    slide: Slide, xy: np.ndarray, area_um2: np.ndarray, duplicate: np.ndarray
) -> np.ndarray:
    """Give each nucleus the fate that needs no pixels: duplicate, size, edge or kept.

    Args:
        xy: (N, 2) centres, level-0 px.
        area_um2: (N,) µm²; NaN where it is not known.
        duplicate: (N,) bool.

    Returns:
        (N,) int8 indices of FATES.
    """
    fate = np.full(len(xy), KEPT, np.int8)
    fate[~inside(xy, slide.width, slide.height, slide.mpp, CROP_PX)] = EDGE
    fate[(area_um2 < AREA_UM2[0]) | (area_um2 > AREA_UM2[1])] = SIZE
    fate[duplicate] = DUPLICATE
    return fate


def draw(fate: np.ndarray, name: str, seed: int) -> np.ndarray:
    """Return the nuclei that may be kept in a random order, a function of seed and slide alone.

    Args:
        fate: (N,) int8.

    Returns:
        (K,) indices.
    """
    return np.random.default_rng([seed, *name.encode()]).permutation(np.flatnonzero(fate == KEPT))


def write_crops(
    slide: Slide,
    name: str,
    xy: np.ndarray,
    fate: np.ndarray,
    codec: str,
    file: IO[bytes],
    cells: int | None = None,
    seed: int = 0,
    outlines: Outlines | np.ndarray | None = None,
    stain: Stain | None = None,
) -> Crops:
    """Cut the nuclei, drop blank, blurred and unreadable crops, and write the rest as a tar.

    The slide is read square by square; crops stand in the tar in that order. With `cells` as many
    are kept, uniformly drawn from those that pass: nuclei are looked at in the order of `draw`
    until there are enough, and the rest are `not sampled`. Paper, section 2.1: "we selected random
    nuclei from each WSI"; how many is left open, here all.

    Args:
        xy: (N, 2) centres, level-0 px.
        fate: (N,) int8, changed in place.
        cells: how many to keep; None: all.
        outlines: N shapely Polygons or None each, level-0 px; with `stain` they give the densities.

    Raises:
        ValueError: much of the slide is damaged.
        OSError: the slide or the tar fails.
    """
    offset, size = np.full(len(xy), -1, np.int64), np.full(len(xy), -1, np.int32)
    density = np.full((len(xy), len(DENSITY_COLUMNS)), np.nan, np.float32)
    waiting = np.flatnonzero(fate == KEPT) if cells is None else draw(fate, name, seed)
    tar, room = TarWriter(file), len(waiting) if cells is None else cells
    while room and len(waiting):
        chosen, waiting = waiting[:room], waiting[room:]
        for here in _squares(chosen, xy):
            polygons = None if outlines is None or stain is None else outlines[here]
            left, top, region = _read_around(slide, xy[here], polygons)
            readable = _readable(slide, xy[here])
            fate[here[~readable]] = UNREADABLE
            if polygons is not None and stain is not None:
                found = stain_density(region, polygons, (left, top), stain)
                density[here[readable]] = found[readable]
            here, images = here[readable], []
            for batch in np.split(here, range(BATCH, len(here), BATCH)):
                crops = cut(region, xy[batch] - (left, top), slide.mpp, CROP_PX)
                fate[batch] = _quality(crops)
                good = np.flatnonzero(fate[batch] == KEPT).tolist()
                images += [encode(crops[i], codec) for i in good]
            here = here[fate[here] == KEPT]
            names = [f"{key(name, nucleus)}.{CODECS[codec]}" for nucleus in here.tolist()]
            offset[here] = tar.extend(names, images)
            size[here] = [len(image) for image in images]
        room -= np.count_nonzero(fate[chosen] == KEPT)
    fate[waiting] = NOT_SAMPLED
    return Crops(offset, size, density, tar.close())


def _squares(nuclei: np.ndarray, xy: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the nuclei of each square that holds any, row by row of squares.

    Args:
        nuclei: (K,) indices.
        xy: (N, 2) centres of all, level-0 px.
    """
    column, row = (xy[nuclei] // SQUARE_PX).astype(int).T
    order = np.lexsort([nuclei, column, row])
    starts = np.flatnonzero(np.diff(row[order], prepend=-1) | np.diff(column[order], prepend=-1))
    yield from Bar(np.split(nuclei[order], starts[1:]), "crops", "squares", inner=True)


def _read_around(
    slide: Slide, xy: np.ndarray, polygons: np.ndarray | None
) -> tuple[int, int, np.ndarray]:
    """Read the region that holds some nuclei's windows, and their outlines where these are larger.

    Returns:
        Its left and top, level-0 px, and its pixels.
    """
    margin = np.ceil(window_px(slide.mpp, CROP_PX) / 2) + 1
    low, high = xy.min(0) - margin, xy.max(0) + margin
    if polygons is not None:
        bounds = shapely.bounds(polygons)  # (N, 4), NaN where there is no outline
        low = np.fmin.reduce([low, *bounds[:, :2]])
        high = np.fmax.reduce([high, *bounds[:, 2:]])
    left, top = np.maximum(np.floor(low).astype(int), 0)
    right, bottom = np.minimum(np.ceil(high).astype(int) + 1, (slide.width, slide.height))
    return left, top, slide.read(left, top, right - left, bottom - top)


def _readable(slide: Slide, xy: np.ndarray) -> np.ndarray:
    """Tell which nuclei's windows are made of sound tiles, (N,) bool."""
    side = window_px(slide.mpp, CROP_PX) + 2  # and what rounding or resampling may reach beyond
    return slide.whole(xy[:, 0] - side / 2, xy[:, 1] - side / 2, side)


def _quality(crops: np.ndarray) -> np.ndarray:
    """Tell which crops are blank or blurred by a band through the middle of what a model sees.

    Args:
        crops: (N, CROP_PX, CROP_PX, 3) uint8; few, or they leave the processor's cache.

    Returns:
        (N,) int8, KEPT, BLANK or BLUR.
    """
    fate = np.full(len(crops), KEPT, np.int8)
    top, left = (CROP_PX - BAND_PX) // 2, (CROP_PX - VIEW_PX) // 2
    bands = crops[:, top : top + BAND_PX, left : left + VIEW_PX].copy()
    grey = cv2.cvtColor(bands.reshape(-1, VIEW_PX, 3), cv2.COLOR_RGB2GRAY)
    # The bands lie one below the other as one long row; at their borders neighbours are wrong.
    row, edges = grey.reshape(-1).astype(np.int16), np.zeros(grey.size, np.int16)
    middle = edges[VIEW_PX:-VIEW_PX]
    np.multiply(row[VIEW_PX:-VIEW_PX], -4, out=middle)
    for step in (-VIEW_PX, -1, 1, VIEW_PX):
        middle += row[VIEW_PX + step : len(row) - VIEW_PX + step]
    edges = edges.reshape(-1, BAND_PX, VIEW_PX)[:, 1:-1, 1:-1].astype(np.float32)
    edges = edges.reshape(len(crops), -1)
    fate[np.einsum("ij,ij->i", edges, edges) < BLUR_SQUARE * edges.shape[1]] = BLUR
    # Grey is no darker than the darkest channel: only bright crops can be blank.
    grey = grey.reshape(len(crops), -1).astype(np.float32)
    mean = grey @ np.full(grey.shape[1], 1 / grey.shape[1], np.float32)
    bright = np.flatnonzero(mean >= BLANK_LEVEL * BLANK_SHARE - 1)
    if len(bright):
        white = bands[bright].min(axis=3) >= BLANK_LEVEL
        fate[bright[white.mean(axis=(1, 2)) >= BLANK_SHARE]] = BLANK
    return fate
