"""What a TIFF states of its samples and its scale, in OME-XML, ImageJ's description, or tags."""

import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import tifffile

from shards.scale import positive

MICRONS = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "Å": 1e-4, "in": 25400.0}
IMAGEJ = {"micron": 1.0, "microns": 1.0, "um": 1.0, "µm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
UNREADABLE = (tifffile.TiffFileError, struct.error, IndexError, KeyError, TypeError)  # by tifffile
UNITS = {2: ("inch", 25400.0), 3: ("centimeter", 1e4)}  # TIFF's ResolutionUnit, µm


def ome_properties(text: str, image: int = 0) -> dict[str, str]:
    """Return `ome.mpp-x`, `ome.mpp-y` (µm/px) and `ome.bits` of OME-XML, what it states of them.

    Args:
        text: an ImageDescription; of another kind it states nothing.
        image: which of its images.
    """
    if "<OME" not in text[:2000]:
        return {}
    try:
        root = ElementTree.fromstring(text.strip().encode())
    except ElementTree.ParseError:
        return {}
    found = [element for element in root.iter() if element.tag.endswith("}Pixels")]
    if image >= len(found):
        return {}
    stated, pixels = {}, found[image].attrib
    for axis in "XY":
        size = positive(pixels.get(f"PhysicalSize{axis}"))
        unit = MICRONS.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").replace("μ", "µ"))
        if size and unit:
            stated[f"ome.mpp-{axis.lower()}"] = repr(size * unit)
    if pixels.get("SignificantBits", "").isdecimal():
        stated["ome.bits"] = pixels["SignificantBits"]
    return stated


def tiff_properties(tiff: tifffile.TiffFile, page: tifffile.TiffPage, image: int) -> dict[str, str]:
    """Return what a TIFF states of its scale, by the names that `shards.scale.scale` knows.

    Args:
        tiff: open.
        page: of level 0.
        image: its number among the file's images, as OME-XML counts.
    """
    stated = ome_properties(tiff.ome_metadata or "", image)
    per = {}
    for axis in "XY":
        tag = page.tags.get(f"{axis}Resolution")
        if tag is not None and tag.value[0] and tag.value[1]:
            per[axis] = tag.value[0] / tag.value[1]
    unit = page.tags.get("ResolutionUnit")
    name, microns = UNITS.get(int(unit.value) if unit is not None else 2, ("", 0.0))
    imagej = IMAGEJ.get(str((tiff.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ"))
    for axis, value in per.items():
        if imagej:
            stated[f"imagej.mpp-{axis.lower()}"] = repr(imagej / value)
        elif microns:
            stated[f"tiff.mpp-{axis.lower()}"] = repr(microns / value)
            stated[f"tiff.{axis}Resolution"] = f"{value:g}"
            stated["tiff.ResolutionUnit"] = name
    return stated


def stated_bits(page: tifffile.TiffPage, properties: Mapping[str, str]) -> int | None:
    """Return the bits that a TIFF says its samples use; None: it says nothing."""
    if "ome.bits" in properties:
        return int(properties["ome.bits"])
    largest = page.tags.get("MaxSampleValue")
    if largest is None:
        return None
    value = largest.value
    return int(max(value) if isinstance(value, tuple) else value).bit_length()


def bits_of(path: Path) -> tuple[int, int | None]:
    """Return the bits a sample of a TIFF's first image is stored in, and those it states.

    (8, None) where tifffile cannot read its tags: OpenSlide, which could, is left to itself.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            depth = page.bitspersample
            stated = stated_bits(page, ome_properties(tiff.ome_metadata or ""))
    except UNREADABLE:
        return 8, None
    return int(max(depth) if isinstance(depth, tuple) else depth), stated
