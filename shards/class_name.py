"""What an object's class is called, however a program wrote it; and what is no class."""

from collections import Counter
from collections.abc import Sequence

MIN_OBJECTS = 5  # objects of an image, no two alike, from which on their numbers are no classes


def class_name(label: object) -> str | None:
    """Return a classification as QuPath shows it: a derived class' names after its base's.

    Args:
        label: a name; a list of names; or QuPath's object with `name` or `names`, before its
            version 0.4 with a `parentClass`.
    """
    parent = None
    if isinstance(label, dict):
        names = label.get("names")
        parent = class_name(label.get("parentClass"))
        label = label.get("name") if names is None else names
    if isinstance(label, list):
        label = ": ".join(filter(None, map(class_name, label)))
    name = "" if label is None else str(label)
    return (f"{parent}: {name}" if parent and name else name or parent) or None


def are_numbers(labels: Sequence[str | None], of: Sequence[str] | None = None) -> bool:
    """Tell whether what should be classes are the objects' own numbers: 1, 2, 3, … in an image.

    scikit-image's regionprops_table and StarDist call such a column `label`.

    Args:
        labels: (N,) of each object.
        of: (N,) its image; None: all are of one.
    """
    try:
        if not all(label and float(label).is_integer() for label in labels):
            return False
    except (ValueError, OverflowError):
        return False
    images = [""] * len(labels) if of is None else of
    alone = len(set(zip(images, labels, strict=True))) == len(labels)
    return alone and max(Counter(images).values(), default=0) >= MIN_OBJECTS
