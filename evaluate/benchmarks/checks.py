"""Whether a benchmark's nuclei lie in their images, are classes, and stand there once."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.class_name import are_numbers

OUTSIDE = 0.01  # share of nuclei beyond their image from which on it is no border's matter
MOST_OUTSIDE = 0.5  # likewise of a slide's cells, where an image may show a part of them
FEW = 2  # of them are said, whatever their share
CORNER = 30  # nuclei from which on it is said that all lie in the upper left quarter
NO_CLASS = ("", "nan", "na", "n/a", "none", "null", "<na>", "#n/a")  # in any case
NAMED = 5  # of what is listed, for a line on a screen


@dataclass
class Places:
    """Nuclei against the sizes of their images, image after image; then `notes` judges."""

    source: str  # what gives the places, for errors
    total: int = 0
    outside: int = 0
    faults: list[str] = field(default_factory=list)  # of images with more than a few outside
    first: str = ""  # one that lies outside
    swapped: bool = True  # whether all lie within if x is y
    corner: bool = True  # whether all lie in the upper left quarters

    def look(self, image: str, xy: np.ndarray, width: int, height: int) -> None:
        """Count those of an image, (N, 2) float in its px, that lie outside it."""
        xy = xy[np.isfinite(xy).all(axis=1)]
        if not len(xy):
            return
        out = beyond(xy, width, height)
        found = int(out.sum())
        self.total, self.outside = self.total + len(xy), self.outside + found
        self.swapped &= not beyond(xy[:, ::-1], width, height).any()
        self.corner &= bool((xy < (width / 2, height / 2)).all())
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        if found and not self.first:
            self.first = f"{image}, {xy[out][0][0]:g}, {xy[out][0][1]:g}"
        if many(found, len(xy)):
            self.faults.append(
                f"{found} of {len(xy)} of {image} ({width}x{height} px; they reach from "
                f"{left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f})"
            )

    def notes(self) -> list[str]:
        """Return what is to be said of them all.

        Raises:
            ValueError: more than a few lie outside, of one image or of all.
        """
        if self.faults or many(self.outside, self.total):
            cure = (
                "x and y swapped, for the other way round all lie within"
                if self.swapped
                else "coordinates of another scale, or x and y swapped, or other images'"
            )
            where = self.faults[0] if self.faults else f"one of {self.first}"
            raise ValueError(
                f"{self.source}: {self.outside} of {self.total} nuclei lie outside their image, "
                f"{where}: {cure}"
            )
        said = []
        if self.outside:
            said.append(
                f"{self.outside} of {self.total} nuclei lie outside their image (the first: "
                f"{self.first})"
            )
        if self.corner and self.total >= CORNER:
            said.append(
                f"all {self.total} nuclei lie in the upper left quarter of their images: see "
                "that the coordinates are px of the images"
            )
        return said


def check_inside(name: str, image: Path, xy: np.ndarray, size: tuple[int, int]) -> list[str]:
    """Refuse cells, (C, 2) float px, most of which lie outside their slide; it may show a part.

    Returns:
        A note where they keep to its upper left quarter, as those of another scale do.

    Raises:
        ValueError: they are another slide's, or of another scale.
    """
    outside = int(beyond(xy, *size).sum())
    if outside > MOST_OUTSIDE * len(xy):
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        raise ValueError(
            f"{name}: {outside} of {len(xy)} cells lie outside {image} ({size[0]}x{size[1]} px; "
            f"they reach from {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f}): another image, "
            "or its alignment (*he_imagealignment.csv) is absent or another's"
        )
    if len(xy) < CORNER or (xy >= np.array(size) / 2).any():
        return []
    return [
        f"{name}: all {len(xy)} cells lie in the upper left quarter of {image.name}: see that "
        "they and its alignment are of one scale"
    ]


def many(outside: int, total: int) -> bool:
    """Tell whether more lie outside than what happens at borders."""
    return outside > max(FEW, OUTSIDE * total)


def beyond(xy: np.ndarray, width: int, height: int) -> np.ndarray:
    """Tell which places, (N, 2) float with pixel centres at whole numbers, leave an image."""
    return np.any((xy < -0.5) | (xy > (width - 0.5, height - 0.5)), axis=1)


def no_class(labels: np.ndarray) -> tuple[np.ndarray, Counter]:
    """Empty the labels that stand for a missing value.

    Args:
        labels: (N,) str.

    Returns:
        (N,) str, and how often each word (`nan`, `NA`, …; '' as 'empty') stood for none.
    """
    none = np.isin(np.char.lower(np.char.strip(labels)), NO_CLASS)
    words = Counter(word.strip() or "empty" for word in labels[none].tolist())
    return np.where(none, "", labels), words


def check_classes(source: str, images: np.ndarray, xy: np.ndarray, labels: np.ndarray) -> None:
    """Refuse labels that number the nuclei of each image.

    Args:
        images: (N,) str.
        xy: (N, 2) float; rows of one place count once.
        labels: (N,) str, '' where there is none.

    Raises:
        ValueError: no two nuclei of an image, several of which there are, bear the same number.
    """
    rows = np.flatnonzero(labels != "")
    of, words = images[rows].tolist(), labels[rows].tolist()
    once = list(dict.fromkeys(zip(of, *xy[rows].T.tolist(), words, strict=True)))
    if are_numbers([label for *_, label in once], [image for image, *_ in once]):
        raise ValueError(
            f"{source}: its column label numbers the nuclei ({', '.join(words[:3])}, …), and a "
            "class is wanted: call the column of classes label, and this one otherwise"
        )


def look_alikes(labels: np.ndarray) -> list[str]:
    """Return a warning for each set of classes that differ only as written.

    Such are `Tumour` and `tumour`, `1` and `1.0`, `plasma cell` and `plasma_cell`.
    """
    counts = Counter(labels[labels != ""].tolist())
    alike: dict[object, list[str]] = {}
    for word in sorted(counts):
        alike.setdefault(_plain(word), []).append(word)
    return [
        f"classes {', '.join(f'{w!r} ({counts[w]:,})' for w in words)} differ only in how they "
        "are written: taken as different; write them alike if they are one"
        for words in alike.values()
        if len(words) > 1
    ]


def _plain(word: str) -> object:
    try:
        return float(word)
    except ValueError:
        return re.sub(r"[\s_-]+", " ", word.casefold()).strip()


def find_twins(
    source: str, images: np.ndarray, xy: np.ndarray, labels: np.ndarray, refuse: bool = True
) -> tuple[np.ndarray | None, list[str]]:
    """Find nuclei that are given more than once: the same image and place.

    Args:
        images: (N,) str, equal for one image under whatever name.
        xy: (N, 2) float.
        refuse: whether rows of one nucleus that bear different labels are an error; else they are
            said.

    Returns:
        (N,) int, equal for rows of one nucleus, or None if each stands there once; and notes.

    Raises:
        ValueError: the rows of one nucleus bear different labels.
    """
    if not len(xy):
        return None, []
    picture = np.unique(images, return_inverse=True)[1]
    places = np.column_stack([picture, np.round(xy, 2)])
    _, first, twin, times = np.unique(
        places, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    twin = twin.ravel()
    if (times == 1).all():
        return None, []
    differ = np.flatnonzero(labels != labels[first[twin]])
    if len(differ) and refuse:
        row, before = differ[0], first[twin[differ[0]]]
        raise ValueError(
            f"{source}: {len(set(twin[differ].tolist()))} nuclei stand there twice with different "
            f"labels; the first: {images[row]}, {xy[row][0]:g}, {xy[row][1]:g} is "
            f"{str(labels[before])!r} and {str(labels[row])!r}; leave one row of each"
        )
    said = [
        f"{int((times - 1).sum())} of {len(xy)} rows repeat a nucleus (same image, same place): "
        "kept, in one fold"
    ]
    if len(differ):
        said.append(f"{len(differ)} of them bear another label than the row they repeat")
    return twin, said


def listed(names: list[str]) -> str:
    """Return a few names for a line on a screen."""
    return ", ".join(names[:NAMED]) + (f" … ({len(names)} in all)" if len(names) > NAMED else "")


def counted(words: Counter) -> str:
    """Return words and how often each is there: nan 10, NA 3."""
    return ", ".join(f"{word} {n:,}" for word, n in words.most_common())
