"""A benchmark of fields: images, each with its nuclei's places and classes, cut alike.

A reader of a publisher's files yields a `Field` an image; all else is here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import shapely

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import Places, find_twins
from evaluate.benchmarks.picture import Picture, open_picture, strays
from evaluate.benchmarks.rule import Rule

RULES = 3  # scales that are named


@dataclass(frozen=True, eq=False)
class Field:
    """One image and its N nuclei."""

    name: str
    image: Path | np.ndarray  # a file, or (H, W, 3) uint8
    xy: np.ndarray  # (N, 2) float, px
    labels: np.ndarray  # (N,) str, '' where there is none; or (N, T) of tasks, by the first
    mpp: float
    batch_variables: Mapping[str, str] = field(default_factory=dict)  # kind -> of all its nuclei


def build(
    name: str,
    source: str,
    fields: Iterable[Field],
    view_px: int,
    kinds: tuple[str, ...],
    notes: list[str],
    left_out: Counter[str],
    window: str = "1",
    what: str = "field",
    centre: str = "centroid",
) -> tuple[Benchmark, np.ndarray]:
    """Cut every nucleus whose whole window lies in its field.

    Args:
        kinds: the fields' batch variables that are kept, that of the groups first; the field's own
            name is one called `what`.
        notes: of the reader, which may add to them until the last field is read.
        left_out: likewise, why -> nuclei that no field holds, or without a label.

    Returns:
        The nuclei that have a label, without classes, as a benchmark; and their labels, (N,) or
        (N, T) str.

    Raises:
        FileNotFoundError: an image is absent.
        ValueError: an image does not open, a nucleus has no place, more than a few lie outside
            their image, or none is left.
    """
    places, scales, count, total, blank = Places(source), Counter(), 0, 0, 0
    crops, labels, xy, names, files = [], [], [], [], []
    batch_variables: dict[str, list[str]] = {kind: [] for kind in kinds}
    for one in fields:
        rule = Rule(one.mpp, window, centre, view_px)
        if bad := np.flatnonzero(~np.isfinite(one.xy).all(axis=1)).tolist():
            x, y = one.xy[bad[0]]
            raise ValueError(
                f"{source}: nucleus {bad[0] + 1} of {one.name} has no place ({x}, {y}); give it "
                "one, or leave it out"
            )
        files += [one.image] if isinstance(one.image, Path) else []
        count, total = count + 1, total + len(one.xy)
        none = np.atleast_2d(one.labels.T)[0] == ""
        blank += int(none.sum())
        scales[str(replace(rule, mpp=round(one.mpp, 3)))] += 1
        opened = (
            Picture(one.image)
            if isinstance(one.image, np.ndarray)
            else open_picture(one.image, source)
        )
        with opened as picture:
            places.look(one.name, one.xy, *picture.size)
            kept = np.flatnonzero(rule.keep(one.xy, *picture.size) & ~none)
            found, windows = picture.cut(one.xy[kept], one.mpp, view_px)
        kept = kept[found]
        crops.append(windows)
        labels.append(one.labels[kept])
        xy.append(one.xy[kept])
        names += [one.name] * len(kept)
        for kind in kinds:
            own = one.name if kind == what else one.batch_variables[kind]
            batch_variables[kind] += [own] * len(kept)
    rules = "; ".join(
        words if len(scales) == 1 else f"{n} of {words}" for words, n in scales.most_common(RULES)
    )
    rules += " …" if len(scales) > RULES else ""
    leaving = total - blank - len(names)
    said = [
        f"{count} {what}s, {total} nuclei; {rules}",
        f"{leaving} of {total} nuclei dropped: their window leaves the {what}",
        *places.notes(),
        *notes,
        *strays(files, by_stem=True),
    ]
    if not names:
        raise ValueError(f"{source}: no nucleus left ({'; '.join(said)})")
    named = np.concatenate(labels)
    groups = {kind: np.array(words, np.str_) for kind, words in batch_variables.items()}
    first = np.atleast_2d(named.T)[0]
    twins, again = find_twins(
        source, np.array(names, np.str_), np.concatenate(xy), first, refuse=False
    )
    whole = Benchmark(
        name=name,
        crops=np.concatenate(crops),
        labels=np.full(len(named), "", np.str_),
        classes=(),
        groups=groups[kinds[0]],
        group_kind=kinds[0],
        notes=(*said, *again),
        batch_variables=groups,
        left_out={f"whose window leaves the {what}": leaving, **left_out},
        twins=twins,
    )
    return whole, named


def middle(shape: shapely.Geometry | None) -> tuple[tuple[float, float] | None, int]:
    """Return the centroid of an outline's largest part, and how many parts it has.

    Args:
        shape: an outline; one that crosses itself has the area of its lobes once made valid.

    Returns:
        None and 0 where there is no area.
    """
    if shape is None or not np.isfinite(shapely.get_coordinates(shape)).all():
        return None, 0
    parts = [p for p in shapely.get_parts(shapely.make_valid(shape)) if p.area]
    if not parts:
        return None, 0
    centre = max(parts, key=lambda part: part.area).centroid
    return (centre.x, centre.y), len(parts)
