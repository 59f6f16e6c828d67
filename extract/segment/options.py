"""What a user may ask of the segmenters."""

from dataclasses import dataclass

ORIGINS = ("slide", "bounds")
NORMALISATIONS = ("percentile", "255", "none")  # of the images that a scripted model takes


@dataclass(frozen=True)
class Import:
    """Segmentations that are there already."""

    source: str  # folder, pattern or file
    mpp: float | None = None  # µm in a unit of their coordinates; None: level-0 px
    origin: str | None = None  # of ORIGINS: the full frame, or OpenSlide's bounds


@dataclass(frozen=True)
class Network:
    """What determines the nuclei that HoverFast's network finds in process."""

    weights: str  # sha256 of their file
    rule: int = 2  # OURS of extract/network/instances.py, counted; records lack it where it was 1


@dataclass(frozen=True)
class TorchScript:
    """What determines the nuclei that a scripted model finds."""

    model: str  # sha256 of its file
    mpp: float  # µm/px of the images that it takes
    normalise: str = "percentile"  # of NORMALISATIONS


@dataclass(frozen=True)
class HoverFast:
    """What determines the nuclei that HoverFast itself finds, run as a program of its own."""

    model: str  # sha256, or the path where the model lies in a container
    magnification: float = 40.0  # HoverFast's -l
    options: str = ""  # further ones of `HoverFast infer_wsi`, as on a command line


@dataclass(frozen=True)
class Run:
    """How HoverFast is run; of no consequence for what it finds."""

    command: str  # e.g. `apptainer exec --nv hoverfast.sif HoverFast`
    model: str  # path
    options: str = ""  # of its speed: -n, -g, -r
    limit_s: float = 6 * 3600.0  # wall clock of one attempt
    stall_s: float = 900.0  # of an attempt without CPU time and without output
    at_once: int = 1  # on this machine, in this run
