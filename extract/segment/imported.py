"""Take the nuclei that another program has segmented: `--segmenter import --from DIR`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely
from scipy.spatial import KDTree

from extract.crops import AREA_UM2
from extract.segment.detections import (
    ANNOTATION,
    DETECTION,
    NUCLEUS_OF_CELL,
    WHOLE_CELL,
    Detections,
    Growing,
    Outlines,
)
from extract.segment.duplicates import find_duplicates
from extract.segment.matching import own_file
from extract.segment.mend import mend
from extract.segment.nuclei_file import NucleiFile, open_nuclei
from extract.segment.options import Import
from extract.segment.owners import OTHERS
from extract.slide import Slide
from extract.slides import Entry
from shards.scale import positive

OUTSIDE = 0.01  # share of nuclei outside the slide from which on it is another slide's file
NOMINAL = 0.25  # share by which µm/px may differ from what an objective's power stands for
DEGREES = 2  # within which a slide lies, if its places are longitude and latitude
NEAREST_UM = 3.0  # nuclei whose nearest neighbours are nearer, at the median, are too small
SAMPLE = 2_000  # nuclei by which the scale is judged


def segment(slide: Slide, entry: Entry, asked: Import) -> tuple[Detections, dict]:
    """Read a slide's nuclei from the file that belongs to it.

    Returns:
        The nuclei, and what to record: version (the file's kind), file, remarks.

    Raises:
        FileNotFoundError: no file belongs to the slide.
        ValueError: several do; the file cannot be read; its scale or origin cannot be known, or
            its nuclei do not fit the slide.
    """
    path = own_file(entry.nuclei, asked.source, entry, "--from")
    file = open_nuclei(path, entry)
    mpp = asked.mpp or file.mpp
    if file.unsure and not asked.mpp:
        raise ValueError(f"{path}: {file.unsure}")
    origin = asked.origin or file.origin
    left, top = bounds(slide)
    if (left or top) and origin is None:
        raise ValueError(
            f"{path}: a {file.kind} may count from the corner of the slide or from that of the "
            f"part that was scanned (OpenSlide's bounds, here at {left}, {top}; QuPath does); "
            "say which: --from-origin slide or --from-origin bounds"
        )
    factor = mpp / slide.mpp if mpp else _from_power(file, slide, path)
    detections = gather(file, factor, bounds(slide, origin), slide.mpp)
    remarks = _check(detections, slide, path, explicit=asked.mpp is not None)
    left_out = {reason: count for reason, count in file.left_out.items() if count}
    if left_out:
        counts = [f"{n} {reason}" for reason, n in left_out.items() if reason != OTHERS]
        if counts:
            remarks.append(f"passed over, for they are no nuclei: {', '.join(counts)}")
    remarks += file.remarks
    if mpp:
        remarks.append(f"coordinates taken as units of {mpp:g} µm")
    elif file.mag:
        remarks.append(f"coordinates taken as px at {file.mag:g}X, {factor:g} px of level 0 each")
    if file.kind == "HoverFast":
        remarks.append("HoverFast reports no nucleus near its frame's top and left border (64 px)")
    if origin == "bounds" and (left or top):
        remarks.append(f"coordinates counted from the slide's bounds at {left}, {top}")
    about = {"version": file.kind, "file": str(path.absolute()), "remarks": remarks}
    return detections, about | {"left_out": left_out}


def _from_power(file: NucleiFile, slide: Slide, path: Path) -> float:
    """Return the level-0 px in a unit of a file whose numbers are px at an objective's power."""
    if not file.mag:
        return 1.0
    names = ("openslide.objective-power", "aperio.AppMag")
    for power in (positive(slide.properties.get(name)) for name in names):
        if power:
            return power / file.mag
    if abs(10 / slide.mpp / file.mag - 1) < NOMINAL:  # 40X is 0.25 µm/px
        return 1.0
    raise ValueError(
        f"{path}: its places are px at {file.mag:g}X, and the slide ({slide.mpp:.4g} µm/px) does "
        "not say its objective's power; say with --from-mpp how many µm a unit is"
    )


def bounds(slide: Slide, origin: str | None = "bounds") -> tuple[int, int]:
    """Return where OpenSlide's bounds begin, level-0 px; (0, 0) for another origin."""
    if origin != "bounds":
        return 0, 0
    x, y = (slide.properties.get(f"openslide.bounds-{axis}", 0) for axis in "xy")
    return int(x), int(y)


def gather(file: NucleiFile, scale: float, origin: tuple[int, int], mpp: float) -> Detections:
    """Read all nuclei of a file into level-0 px of the full frame, duplicates marked.

    Args:
        scale: level-0 px in a unit of its numbers.
        origin: (x, y) from where they count, level-0 px.
        mpp: of the slide, µm/px.

    Raises:
        ValueError: the file cannot be read to its end.
    """
    points, start = Growing(2, dtype=np.float32), Growing(dtype=np.int64)
    centres, kinds, labels = Growing(2, dtype=np.float64), Growing(dtype=np.uint8), []
    known: dict[str | None, str | None] = {}  # one string a class, not one a nucleus
    start.add(np.zeros(1, np.int64))
    for rings in file.nuclei:
        outlines, xy = rings.outlines(scale)
        start.add(outlines.start[1:] + start.whole()[-1])
        points.add(outlines.points + np.asarray(origin, np.float32))
        centres.add(xy + origin)
        kinds.add(np.zeros(len(xy), np.uint8) if rings.kinds is None else rings.kinds)
        labels += [known.setdefault(label, label) for label in rings.labels]
    outlines, xy = Outlines(points.whole(), start.whole()), centres.whole()
    named = labels if any(label is not None for label in known) else None
    detections = Detections(outlines, xy, np.zeros(len(xy), bool), named)
    detections = _nuclei(detections, kinds.whole(), file)
    outlines, xy, mended = mend(detections.polygons, detections.xy)
    if mended:
        file.remarks.append(f"outlines that crossed themselves and were mended: {mended}")
    return replace(
        detections, polygons=outlines, xy=xy, duplicate=find_duplicates(outlines, xy, mpp)
    )


def _nuclei(found: Detections, kinds: np.ndarray, file: NucleiFile) -> Detections:
    """Leave out what is no nucleus, given what else the file holds.

    Args:
        kinds: (N,) of Rings.
        file: of which they are; its `left_out` is counted up.
    """
    keep = np.ones(len(kinds), bool)
    if (kinds == NUCLEUS_OF_CELL).any():
        keep[kinds == WHOLE_CELL] = False
        file.left_out["cells without a nucleus"] += int((kinds == WHOLE_CELL).sum())
    if (kinds >= DETECTION).any():
        keep[kinds == ANNOTATION] = False
        file.left_out["annotations among detections"] += int((kinds == ANNOTATION).sum())
    return found if keep.all() else found.where(keep)


def _check(detections: Detections, slide: Slide, path: Path, explicit: bool) -> list[str]:
    """Say what of the nuclei does not fit the slide.

    Args:
        detections: in the slide's px.
        explicit: whether the scale was given, so that a doubtful one is only remarked upon.
    """
    remarks, xy = [], detections.xy
    if not len(xy):
        return ["the file holds no nuclei"]
    outside = ((xy < -0.5) | (xy > (slide.width - 0.5, slide.height - 0.5))).any(axis=1).sum()
    if outside > OUTSIDE * len(xy):
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        raise ValueError(
            f"{path}: {outside} of {len(xy)} nuclei lie outside the slide ({slide.width}x"
            f"{slide.height} px at {slide.mpp:.4g} µm/px; they reach from {left:.0f}, {top:.0f} "
            f"to {right:.0f}, {bottom:.0f}): "
            + (
                _of_a_map(xy, slide)
                or "another slide's file, or coordinates of another scale (--from-mpp says how "
                "many µm a unit is)"
            )
        )
    if outside:
        remarks.append(f"{outside} nuclei lie outside the slide (fate: edge)")
    doubt = _doubtful_scale(detections, slide.mpp)
    if doubt and not explicit:
        if found := _of_a_map(xy, slide):
            raise ValueError(f"{path}: {doubt}: {found}")
        raise ValueError(
            f"{path}: {doubt}: its coordinates are hardly px of level 0; say with --from-mpp how "
            f"many µm a unit is (1 for µm; {slide.mpp:.4g} to take them as level-0 px after all)"
        )
    if doubt:
        remarks.append(doubt)
    bare = len(xy) - int(detections.polygons.present.sum())
    if bare:
        remarks.append(f"{bare} nuclei are places without outlines: no area, no fate by size")
    return remarks


def _of_a_map(xy: np.ndarray, slide: Slide) -> str:
    """Say how places (N, 2) that do not fit are a map's, as programs for maps write them; or ''."""
    if (np.abs(xy) <= (180, 90)).all() and (np.ptp(xy, axis=0) < DEGREES).all():
        return (
            "degrees of longitude and latitude, as programs for maps (GDAL, QGIS) write them? "
            "Export in px of the slide, without a projection"
        )
    if (xy[:, 1] <= 0).all() and (np.abs(xy) < (slide.width, slide.height)).all():
        return "its y are negative, counted upwards as in QGIS; give them counted downwards"
    return ""


def _doubtful_scale(detections: Detections, mpp: float) -> str:
    """Say why the nuclei's sizes or distances cannot be right, or nothing."""
    chosen = np.random.default_rng(0).permutation(len(detections.xy))
    present = detections.polygons.present
    drawn = np.sort(chosen[present[chosen]][:SAMPLE])
    if len(drawn):
        area = np.median(shapely.area(detections.polygons[drawn])) * mpp**2
        if not AREA_UM2[0] <= area <= AREA_UM2[1]:
            return f"its outlines are {area:.3g} µm² at the median, no nucleus' size"
    elif len(chosen) > 1:
        near = KDTree(detections.xy).query(detections.xy[chosen[:SAMPLE]], k=2)[0][:, 1]
        if np.median(near) * mpp < NEAREST_UM:
            return f"its nuclei are {np.median(near) * mpp:.2g} µm apart at the median"
    return ""
