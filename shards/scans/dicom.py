"""Slides as DICOM: which files are one slide, and the reader for those OpenSlide does not open."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.scans.image import fitted

SUFFIX = ".dcm"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"  # SOP class: VL Whole Slide Microscopy Image
LAST_TAG = 0x00480007  # TotalPixelMatrixRows; what follows are frames and pixels


@dataclass(frozen=True)
class Series:
    """The files of one slide.

    Attributes:
        volume: the one with most pixels: level 0, or the first part of it.
        container: the slide's own identifier (ContainerIdentifier).
        alone: whether its folder holds no other series.
    """

    volume: Path
    container: str
    alone: bool

    @property
    def slide(self) -> str:
        """The id: the folder's name; what the slide is called where that is a UID or no slide's."""
        folder = self.volume.absolute().parent.name
        return folder if self.alone and "." not in folder else self.container.split(".")[0]


def find_series(paths: Iterable[Path]) -> tuple[list[Series], list[Path]]:
    """Sort DICOM files into slides, by folder and series.

    Returns:
        The slides, and the files that belong to none: other DICOM objects, and what is no DICOM.
    """
    levels: dict[tuple[Path, str], list[tuple[int, Path, str]]] = defaultdict(list)
    others = []
    for path in sorted(paths):
        head = _head(path)
        if head is None or str(head.get("SOPClassUID", "")) != WHOLE_SLIDE:
            others.append(path)
            continue
        kind = list(head.get("ImageType", ""))
        sides = [head.get(f"TotalPixelMatrix{side}") for side in ("Columns", "Rows")]
        volume = "VOLUME" in kind and None not in sides
        pixels = int(sides[0]) * int(sides[1]) if volume else 0  # labels and overviews come last
        place = (path.parent, str(head.get("SeriesInstanceUID", "")))
        levels[place].append((pixels, path, str(head.get("ContainerIdentifier", ""))))
    folders = [folder for folder, _ in levels]
    found = []
    for (folder, _), files in levels.items():
        _, path, container = max(files, key=lambda file: (file[0], -files.index(file)))
        found.append(Series(path, container, folders.count(folder) == 1))
    return found, others


def volume_of(folder: Path) -> Path:
    """Return the file of level 0 of the one slide in a folder.

    Raises:
        ValueError: the folder holds no DICOM slide, or several.
    """
    series, _ = find_series(folder.glob("*.[dD][cC][mM]"))
    if len(series) != 1:
        count = f"{len(series)} DICOM slides" if series else "no DICOM slide (*.dcm)"
        raise ValueError(f"{folder} is a folder and holds {count}; name a file of one slide")
    return series[0].volume


class DicomScan:
    """A DICOM slide read by wsidicom; a `shards.scans.scan.Scan`."""

    def __init__(self, path: Path, openslide_said: str):
        """Open the slide that a file belongs to.

        Args:
            path: of the file.
            openslide_said: why OpenSlide does not open it.

        Raises:
            ValueError: wsidicom is not installed, or does not open it either.
        """
        head = _head(path)
        if head is None or str(head.get("SOPClassUID", "")) != WHOLE_SLIDE:
            raise ValueError(f"{path} is a DICOM file, but holds no whole slide")
        try:
            from wsidicom import WsiDicom, errors
        except ImportError as error:
            raise ValueError(
                f"{path} does not open by OpenSlide ({openslide_said}); wsidicom reads more of "
                "DICOM: pip install -e '.[dicom]'"
            ) from error
        uid = head.get("SeriesInstanceUID")
        files = [p for p in sorted(path.parent.glob("*.[dD][cC][mM]")) if _in(p, uid)]
        self.path = path
        own = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
        self._errors = (*own, ValueError, RuntimeError, KeyError, IndexError)  # own have no base
        try:
            self._slide = WsiDicom.open(files)
            self.width, self.height = self._slide.size.width, self._slide.size.height
            base = self._slide.levels[0]
            self.tile_px = (base.tile_size.width, base.tile_size.height)
        except self._errors as error:
            raise ValueError(
                f"{path} opens neither by OpenSlide ({openslide_said}) nor by wsidicom: {error}"
            ) from error
        sides = {} if base.mpp is None else {"x": base.mpp.width, "y": base.mpp.height}
        self.properties: Mapping[str, str] = {
            f"dicom.mpp-{axis}": repr(side) for axis, side in sides.items()
        }

    def region(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._read((x, y), 0, (width, height))

    def reduced(self, shrink: float, most: float) -> np.ndarray | None:
        fit = [a for a in self._slide.levels if a.level > 0 and 2**a.level <= shrink]
        level = max(fit, key=lambda a: a.level, default=None)
        if level is None or level.size.width * level.size.height > most:
            return None
        try:
            return self._read((0, 0), level.level, (level.size.width, level.size.height))
        except ValueError:
            return None

    def thumbnail(self, side: int) -> np.ndarray:
        return fitted(np.asarray(self._slide.read_thumbnail((side, side)).convert("RGB")), side)

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> np.ndarray:
        """Read a region."""
        try:
            return np.array(self._slide.read_region(corner, level, size).convert("RGB"))
        except self._errors as error:
            raise ValueError(str(error)) from error
        except OSError as error:  # Pillow's, of a frame that is cut short, has no number
            if error.errno is not None:
                raise
            raise ValueError(str(error)) from error


def _head(path: Path):
    """Return a DICOM file's data set up to LAST_TAG; None: it is no DICOM file."""
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    try:
        with open(path, "rb") as file:
            return read_partial(file, stop_when=lambda tag, vr, length: tag > LAST_TAG)
    except (InvalidDicomError, OSError, ValueError, EOFError, KeyError):
        return None


def _in(path: Path, series: object) -> bool:
    """Tell whether a file belongs to a series."""
    head = _head(path)
    return head is not None and head.get("SeriesInstanceUID") == series
