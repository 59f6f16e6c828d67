"""MoNuSAC (Verma et al. 2021): outlined nuclei of four classes in fields of 71 TCGA patients.

Tested on small folders in the publisher's layout only.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import shapely

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.fields import Field, build, middle
from shards.filetype import check_file
from shards.folder import visible

LAYOUT = "a folder a slide: TCGA-*_N.xml, each with a .tif or .svs of the same name"
CLASSES = ("epithelial", "lymphocyte", "macrophage", "neutrophil")
AMBIGUOUS = "ambiguous"  # areas of the test set that count for nobody


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return any(_image(file) for file in _files(path)[:5])


def load(path: Path, view_px: int = 40, mpp: float | None = None) -> list[Benchmark]:
    """Cut every nucleus whose window lies in its field; groups are the patients.

    The centre is the centroid of the outline. Training and test set may lie side by side.

    Args:
        path: the publisher's folder, or one that holds both.
        mpp: of all fields, µm/px; None: each file's `MicronsPerPixel`.

    Raises:
        FileNotFoundError: a field without its image.
        ValueError: a file does not open, a class is unknown, a scale is absent, or nuclei lie
            outside their field.
    """
    notes: list[str] = []
    left_out: Counter[str] = Counter()
    fields = _read(path, mpp, left_out)
    kinds = ("patient", "slide", "field")
    whole, labels = build("monusac", "*.xml", fields, view_px, kinds, notes, left_out)
    return [replace(whole, labels=labels, classes=CLASSES)]


def _read(path: Path, mpp: float | None, left_out: Counter[str]) -> Iterator[Field]:
    for file in _files(path):
        image = _image(file)
        if image is None:
            raise FileNotFoundError(f"{file} has no image beside it: {file.stem}.tif or .svs")
        root = _root(file)
        try:
            scale = mpp or float(root.attrib["MicronsPerPixel"])
        except (KeyError, ValueError) as error:
            raise ValueError(f"{file}: no scale ({error}); give --mpp (40X is 0.25)") from error
        xy, labels = _nuclei(file, root, left_out)
        slide = file.stem.rpartition("_")[0] or file.stem
        patient = "-".join(slide.split("-")[:3])
        yield Field(file.stem, image, xy, labels, scale, {"slide": slide, "patient": patient})


def _nuclei(
    file: Path, root: ElementTree.Element, left_out: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the outlined nuclei of a file: (N, 2) px, (N,) str."""
    xy, labels = [], []
    for layer in root.iter("Annotation"):
        attribute = layer.find("Attributes/Attribute")
        word = (attribute.get("Name") or "").strip() if attribute is not None else ""
        regions = layer.findall("Regions/Region")
        label = word.lower()
        if label == AMBIGUOUS:
            left_out["ambiguous"] += len(regions)
            continue
        if label not in CLASSES and regions:
            raise ValueError(f"{file}: unknown class {word!r}; known are {', '.join(CLASSES)}")
        for region in regions:
            try:
                ring = [
                    (float(v.attrib["X"]), float(v.attrib["Y"]))
                    for v in region.findall("Vertices/Vertex")
                ]
                if not np.isfinite(ring).all():
                    raise ValueError("nan or infinite")
            except (KeyError, ValueError) as error:
                raise ValueError(f"{file}: a Vertex without X or Y, numbers: {error}") from error
            place, _ = middle(shapely.Polygon(ring) if len(ring) >= 3 else None)
            if place is None:
                left_out["without an outline"] += 1
                continue
            xy.append(place)
            labels.append(label)
    return np.array(xy, float).reshape(-1, 2), np.array(labels, np.str_)


def _root(file: Path) -> ElementTree.Element:
    check_file(file)
    text = file.read_bytes()
    if b"<!ENTITY" in text:  # which may unfold without end
        raise ValueError(f"{file} declares entities; the publisher's files have none")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{file} is no XML: {error}") from error
    if root.tag != "Annotations":
        raise ValueError(f"{file} holds <{root.tag}>, not ImageScope's <Annotations>")
    return root


def _files(path: Path) -> list[Path]:
    return visible([*path.glob("*.xml"), *path.glob("*/*.xml"), *path.glob("*/*/*.xml")])


def _image(file: Path) -> Path | None:
    found = [file.with_suffix(suffix) for suffix in (".tif", ".svs")]
    return next((image for image in found if image.is_file()), None)
