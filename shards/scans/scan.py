"""A slide's file, opened by whichever reader knows it; the one door for every stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import openslide

from shards.filetype import check_file, describe
from shards.scans.dicom import DicomScan, volume_of
from shards.scans.image import SUFFIXES as IMAGES
from shards.scans.image import open_image
from shards.scans.openslide_scan import OpenSlideScan
from shards.scans.presence import check_present
from shards.scans.tiff import open_tiff

DICOM = "a DICOM file"
TIFFS = ("a TIFF", "a BigTIFF")
ENCODED = ("a PNG image", "a JPEG image")


class Scan(Protocol):
    """An open slide.

    Attributes:
        width, height: of level 0, px.
        properties: by OpenSlide's names where it reads the file; what says the scale among them
            (`shards.scale.scale`).
        tile_px: width and height in which level 0 is stored; (0, 0): in one piece.
    """

    width: int
    height: int

    @property
    def properties(self) -> Mapping[str, str]: ...

    @property
    def tile_px(self) -> tuple[int, int]: ...

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a region within level 0, (height, width, 3) uint8 RGB over white.

        Raises:
            ValueError: it is damaged.
            FileNotFoundError: the file vanished.
        """
        ...

    def reduced(self, shrink: float, most: float) -> np.ndarray | None:
        """Read the whole at the smallest level that is reduced by at most `shrink`, (H, W, 3).

        None: that is level 0, has more than `most` px, or is damaged.
        """
        ...

    def thumbnail(self, side: int) -> np.ndarray:
        """Return the whole slide with its longer side at most `side` px, (H, W, 3)."""
        ...


def open_scan(path: Path) -> Scan:
    """Open a slide: by OpenSlide where it can, else as a TIFF, an image or DICOM.

    Args:
        path: of a file; or of a folder with the files of one DICOM slide.

    Raises:
        FileNotFoundError: it is not there, or its download did not end.
        ValueError: nothing here can open it, it is too large to be read whole, or no slide.
    """
    check_present(path)
    if path.is_dir():
        path = volume_of(path)
    try:
        return OpenSlideScan(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        check_file(path)
        kind = describe(path)
        if kind == DICOM:
            return DicomScan(path, str(error))
        if kind in TIFFS:
            return open_tiff(path)
        if kind in ENCODED or path.suffix.lower() in IMAGES:
            return open_image(path)
        raise ValueError(f"{path} is no slide that OpenSlide can open, but {kind}") from error
    except openslide.OpenSlideError as error:
        check_file(path)
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor == "generic-tiff":  # WebP tiles, for one
            return open_tiff(path)
        if vendor == "dicom":
            return DicomScan(path, str(error))
        raise ValueError(f"{path} does not open: {error}; is it complete?") from error
