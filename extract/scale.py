"""What a slide says of its scale."""

from collections.abc import Mapping
from pathlib import Path


def scale(path: Path, properties: Mapping[str, str]) -> tuple[float, str]:
    """Return a slide's µm/px and the property that says so; never a guess.

    Args:
        path: named in the error.
        properties: OpenSlide's.

    Raises:
        ValueError: neither mpp nor objective power is there.
    """
    for name in ("openslide.mpp-x", "aperio.MPP"):
        mpp = _positive(properties.get(name))
        if mpp:
            return mpp, name
    for name in ("openslide.objective-power", "aperio.AppMag"):
        power = _positive(properties.get(name))
        if power:
            return 10 / power, name  # 40X is 0.25 µm/px
    raise ValueError(
        f"slide {path.name} has no mpp and no objective power; add an `mpp` column or pass "
        "--mpp 0.25"
    )


def _positive(text: str | None) -> float | None:
    """Return the number a property holds, if it is one above 0."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None
