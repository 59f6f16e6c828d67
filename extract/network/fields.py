"""Fields with outlined nuclei that a segmenter is trained on and measured by.

A folder of fields holds `images/` or `slides/` (anything that OpenCV or OpenSlide reads, at 0.25
µm/px), `labels/NAME_inst.png` (uint16 instance ids) and, for fields whose nuclei are marked but not
told apart, `masks/NAME_mask.png`.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
import openslide

INSTANCES, FOREGROUND = "_inst.png", "_mask.png"
UNKNOWN = 65_535  # in a field's labels: nobody says what is there


@dataclass(frozen=True)
class Field:
    """An image and its nuclei.

    Attributes:
        name: of the image's file, without its ending.
        image: (H, W, 3) uint8 RGB at 0.25 µm/px.
        labels: (H, W) uint16 instance ids, 0 background; 0 and 1 where nuclei are not told apart.
        has_instances: whether the labels tell touching nuclei apart.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    has_instances: bool


def read_fields(folder: Path, leave_out: list[str] | None = None) -> list[Field]:
    """Read the labelled fields of a folder, in the order of their names.

    Args:
        folder: see the module.
        leave_out: patterns of names (`test_*`) that are not read.

    Raises:
        ValueError: there are none, an image is missing, or sizes differ.
    """
    labels = sorted((folder / "labels").glob("*" + INSTANCES))
    labels += sorted((folder / "masks").glob("*" + FOREGROUND))
    fields: dict[str, Field] = {}
    for path in labels:
        has_instances = path.name.endswith(INSTANCES)
        name = path.name.removesuffix(INSTANCES if has_instances else FOREGROUND)
        if name in fields or any(fnmatchcase(name, pattern) for pattern in leave_out or []):
            continue
        image = _image(folder, name)
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if ids is None or ids.ndim != 2 or ids.shape != image.shape[:2]:
            raise ValueError(f"{path} is no label image of {image.shape[1]}x{image.shape[0]} px")
        if not has_instances:
            ids = (ids > 0).astype(np.uint16)
        fields[name] = Field(name, image, ids.astype(np.uint16), has_instances)
    if not fields:
        raise ValueError(f"{folder} holds no labels/*{INSTANCES} and no masks/*{FOREGROUND}")
    return [fields[name] for name in sorted(fields)]


def _image(folder: Path, name: str) -> np.ndarray:
    """Read a field's image, (H, W, 3) uint8 RGB."""
    found = [p for kind in ("images", "slides") for p in (folder / kind).glob(name + ".*")]
    if len(found) != 1:
        raise ValueError(f"{folder}/images holds {len(found)} images of the field {name}")
    image = cv2.imread(str(found[0]), cv2.IMREAD_COLOR)
    if image is not None:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    slide = openslide.OpenSlide(str(found[0]))
    return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
