"""What a slide says of its scale, and which scales a microscope can have."""

from collections.abc import Mapping
from pathlib import Path

MICROSCOPES = (0.05, 2.0)  # µm/px: from beyond 100X in oil to 5X
# what says the scale of a file that OpenSlide does not read, in the order of trust
STATED = ("ome.mpp-x", "imagej.mpp-x", "dicom.mpp-x", "tiff.mpp-x")
SQUARE = 0.02  # share by which µm/px may differ across and down
CURE = "give the true one with --mpp or in an `mpp` column (40X is 0.25)"


def check_mpp(mpp: float, what: str, cure: str = CURE) -> float:
    """Return µm/px that a microscope can have, else say why not.

    Resolution tags hold 72 dpi, 1 px/cm, or a value ten times too large; columns hold the
    objective's power. Followed, any of these cuts windows of one pixel or of half a slide.

    Args:
        mpp: µm/px.
        what: whose it is and where it came from, e.g. `slide x.tif (openslide.mpp-x)`.
        cure: where the true one can be said.

    Raises:
        ValueError: it is outside MICROSCOPES, or no number.
    """
    low, high = MICROSCOPES
    if low <= mpp <= high:
        return mpp
    raise ValueError(
        f"{what} would be at {mpp:.4g} µm/px, and no microscope is (within {low:g}–{high:g}); "
        f"{cure}"
    )


def check_square(
    across: float, down: float, what: str, cure: str = CURE, source: str = "openslide.mpp"
) -> None:
    """Refuse pixels that are not square: nuclei would be cut out of shape.

    Args:
        across: mpp-x, µm/px.
        down: mpp-y.
        what: whose they are.
        cure: where the true one can be said.
        source: the property's name without its axis.

    Raises:
        ValueError: they differ by more than SQUARE.
    """
    if abs(down / across - 1) > SQUARE:
        raise ValueError(
            f"{what} would have {across:.4g} µm/px across ({source}-x) but {down:.4g} down "
            f"({source}-y), and nuclei would be cut out of shape; {cure}"
        )


def scale(path: Path, properties: Mapping[str, str]) -> tuple[float, str]:
    """Return a slide's µm/px and the property that says so; never a guess.

    Args:
        path: named in the error.
        properties: of a `shards.scans.scan.Scan`.

    Raises:
        ValueError: neither mpp nor objective power is there; or it is no microscope's, or
            another across than down.
    """
    sources = ("openslide.mpp-x", "aperio.MPP", *STATED)
    ome = positive(properties.get("ome.mpp-x"))
    tag = positive(properties.get("openslide.mpp-x"))
    if ome and tag and abs(tag / ome - 1) > SQUARE:  # a resolution tag is often a screen's
        sources = ("ome.mpp-x",)
    for name in sources:
        mpp = positive(properties.get(name))
        if mpp:
            source = name
            break
    else:
        for name in ("openslide.objective-power", "aperio.AppMag"):
            power = positive(properties.get(name))
            if power:
                mpp, source = 10 / power, name  # 40X is 0.25 µm/px
                break
        else:
            raise ValueError(
                f"slide {path.name} has no mpp and no objective power; add an `mpp` column or pass "
                "--mpp 0.25"
            )
    check_mpp(mpp, f"slide {path.name} (by {source}{_origin(source, properties)})")
    name = source.removesuffix("-x")
    down = positive(properties.get(f"{name}-y"))
    if name != source and down:
        check_square(mpp, down, f"slide {path.name}", source=name)
    return mpp, source


def _origin(source: str, properties: Mapping[str, str]) -> str:
    """Say which tag of the file a property was made of, where it is known."""
    tag, unit = (properties.get(f"tiff.{name}") for name in ("XResolution", "ResolutionUnit"))
    generic = properties.get("openslide.vendor") == "generic-tiff" and source == "openslide.mpp-x"
    if (generic or source == "tiff.mpp-x") and tag and unit:
        return f", the TIFF's resolution tag: {tag} px per {unit}"
    return ""


def positive(text: str | None) -> float | None:
    """Return the number a property holds, if it is one above 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
