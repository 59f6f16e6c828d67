"""What a slide says of its scale, and which scales a microscope can have."""

from collections.abc import Mapping
from pathlib import Path

MICROSCOPES = (0.05, 2.0)  # µm/px: from beyond 100X in oil to 5X
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


def check_square(across: float, down: float, what: str, cure: str = CURE) -> None:
    """Refuse pixels that are not square: nuclei would be cut out of shape.

    Args:
        across: OpenSlide's mpp-x, µm/px.
        down: its mpp-y.
        what: whose they are.
        cure: where the true one can be said.

    Raises:
        ValueError: they differ by more than SQUARE.
    """
    if abs(down / across - 1) > SQUARE:
        raise ValueError(
            f"{what} would have {across:.4g} µm/px across (openslide.mpp-x) but {down:.4g} down "
            f"(openslide.mpp-y), and nuclei would be cut out of shape; {cure}"
        )


def scale(path: Path, properties: Mapping[str, str]) -> tuple[float, str]:
    """Return a slide's µm/px and the property that says so; never a guess.

    Args:
        path: named in the error.
        properties: OpenSlide's.

    Raises:
        ValueError: neither mpp nor objective power is there; or it is no microscope's, or
            another across than down.
    """
    for name in ("openslide.mpp-x", "aperio.MPP"):
        mpp = _positive(properties.get(name))
        if mpp:
            source = name
            break
    else:
        for name in ("openslide.objective-power", "aperio.AppMag"):
            power = _positive(properties.get(name))
            if power:
                mpp, source = 10 / power, name  # 40X is 0.25 µm/px
                break
        else:
            raise ValueError(
                f"slide {path.name} has no mpp and no objective power; add an `mpp` column or pass "
                "--mpp 0.25"
            )
    check_mpp(mpp, f"slide {path.name} (by {source}{_origin(source, properties)})")
    down = _positive(properties.get("openslide.mpp-y"))
    if source == "openslide.mpp-x" and down:
        check_square(mpp, down, f"slide {path.name}")
    return mpp, source


def _origin(source: str, properties: Mapping[str, str]) -> str:
    """Say which tag of the file OpenSlide made a property of, where it is known."""
    tag, unit = (properties.get(f"tiff.{name}") for name in ("XResolution", "ResolutionUnit"))
    generic = properties.get("openslide.vendor") == "generic-tiff"
    if source == "openslide.mpp-x" and generic and tag and unit:
        return f", the TIFF's resolution tag: {tag} px per {unit}"
    return ""


def _positive(text: str | None) -> float | None:
    """Return the number a property holds, if it is one above 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
