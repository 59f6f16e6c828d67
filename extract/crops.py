"""Cut a slide's nuclei into a tar of crops, and settle every nucleus' fate."""

from typing import BinaryIO

import cv2
import numpy as np
from tqdm import tqdm

from extract.slide import Slide
from shards.crop import cut, encode, inside, window_px
from shards.schema import CODECS, CROP_PX, FATES, key
from shards.write import TarWriter

REGION_PX = 1024  # side of the regions the slide is read in, level-0 px
AREA_UM2 = (8.0, 600.0)  # a nucleus' area; below is debris, above a cluster or an artefact
BLANK_LEVEL = 225  # a pixel is white when its darkest channel is at least this
BLANK_SHARE = 0.9  # a crop is blank when this share of it is white
BLUR_VARIANCE = 4.0  # of the Laplacian of a crop's grey, grey levels²; sharp ones are far above

KEPT, EDGE, SIZE, DUPLICATE, BLANK, BLUR, NOT_SAMPLED = range(len(FATES))


def settle_fates(
    slide: Slide, xy: np.ndarray, area_um2: np.ndarray, duplicate: np.ndarray
) -> np.ndarray:
    """Give each nucleus the fate that needs no pixels: duplicate, size, edge or kept.

    Args:
        slide: open.
        xy: (N, 2) centres, level-0 px.
        area_um2: (N,) µm².
        duplicate: (N,) bool.

    Returns:
        (N,) int8 indices of FATES.
    """
    fate = np.full(len(xy), KEPT, np.int8)
    fate[~inside(xy, slide.width, slide.height, slide.mpp, CROP_PX)] = EDGE
    fate[(area_um2 < AREA_UM2[0]) | (area_um2 > AREA_UM2[1])] = SIZE
    fate[duplicate] = DUPLICATE
    return fate


def sample(fate: np.ndarray, cells: int | None, name: str, seed: int) -> None:
    """Leave `cells` of the kept nuclei, uniformly drawn; the rest become `not sampled`.

    Paper, section 2.1: "we selected random nuclei from each WSI"; how many is left open, here all.

    Args:
        fate: (N,) int8, changed in place.
        cells: how many; None: all.
        name: the slide's id; with the seed it determines the draw.
        seed: of the draw.
    """
    kept = np.flatnonzero(fate == KEPT)
    if cells is None or len(kept) <= cells:
        return
    draw = np.random.default_rng([seed, *name.encode()]).permutation(kept)
    fate[draw[cells:]] = NOT_SAMPLED


def write_crops(
    slide: Slide, name: str, xy: np.ndarray, fate: np.ndarray, codec: str, file: BinaryIO
) -> tuple[np.ndarray, np.ndarray, str]:
    """Cut the kept nuclei, drop blank and blurred crops, and write the rest as a tar.

    The slide is read region by region, each once; crops stand in the tar in that order.

    Args:
        slide: open.
        name: the slide's id.
        xy: (N, 2) centres, level-0 px.
        fate: (N,) int8; blank and blurred ones are changed in place.
        codec: of CODECS.
        file: of the tar, open for writing.

    Returns:
        (N,) int64 offsets and (N,) int32 sizes of the crops in the tar, -1 where there is none,
        and the tar's sha256.
    """
    offset, size = np.full(len(xy), -1, np.int64), np.full(len(xy), -1, np.int32)
    tar = TarWriter(file)
    kept = np.flatnonzero(fate == KEPT)
    row, column = (xy[kept, 1] // REGION_PX).astype(int), (xy[kept, 0] // REGION_PX).astype(int)
    kept = kept[np.lexsort([kept, column, row])]
    place = (xy[kept] // REGION_PX).astype(int)
    starts = np.flatnonzero(np.any(np.diff(place, axis=0, prepend=-1), axis=1))
    margin = int(np.ceil(window_px(slide.mpp, CROP_PX) / 2)) + 1
    for here in tqdm(np.split(kept, starts[1:]), "crops", leave=False, disable=None):
        if not len(here):
            continue
        left, top = np.maximum(np.floor(xy[here].min(0)).astype(int) - margin, 0)
        right, bottom = np.ceil(xy[here].max(0)).astype(int) + 1 + margin
        right, bottom = min(right, slide.width), min(bottom, slide.height)
        region = slide.read(left, top, right - left, bottom - top)
        crops = cut(region, xy[here] - (left, top), slide.mpp, CROP_PX)
        for nucleus, crop in zip(here, crops, strict=True):
            fate[nucleus] = _look(crop)
            if fate[nucleus] == KEPT:
                data = encode(crop, codec)
                offset[nucleus] = tar.add(f"{key(name, nucleus)}.{CODECS[codec]}", data)
                size[nucleus] = len(data)
    return offset, size, tar.close()


def _look(crop: np.ndarray) -> int:
    """Tell whether a crop is blank, blurred or kept.

    Args:
        crop: (CROP_PX, CROP_PX, 3) uint8.
    """
    if (crop.min(axis=2) >= BLANK_LEVEL).mean() >= BLANK_SHARE:
        return BLANK
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if cv2.Laplacian(grey, cv2.CV_64F).var() < BLUR_VARIANCE:
        return BLUR
    return KEPT
