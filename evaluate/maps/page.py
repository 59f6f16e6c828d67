"""The map as a page: one HTML file with points, colours and every cell's image, opened from disk.

Everything is inside: positions and colour columns as base64, images as JPEG sheets that the
browser decodes when they are looked at. evaluate/maps/page.{html,css,js} and page_hands.js are put
together as they are; there is no build step, and no reference outwards (a content security policy
says so to the browser).
"""

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from evaluate.maps.colouring import Column, hues
from shards.write import write_text

GRID = 16  # squares along the map at the coarsest level; as in page.js
LEVELS = 7  # grids of images, each twice as fine
SHEET_TILES = 16  # along a side of a sheet
MANY = 25_000  # cells from which on images are stored smaller
VIEW_UM = 0.25  # µm/px of the crops
UNKNOWN = 255  # code of a number that is none
NAMED = 250  # categories at most; the rest become one


@dataclass(frozen=True)
class Keys:
    """What a cell is called: its owner, a slide or an image, and a number within it."""

    owners: np.ndarray  # (N,) str
    numbers: np.ndarray  # (N,) int
    owner_kind: str = "slide"
    number_kind: str = "nucleus"


def write_page(
    path: Path,
    xy: np.ndarray,
    crops: np.ndarray,
    columns: list[Column],
    keys: Keys,
    title: str,
    subtitle: str = "",
) -> int:
    """Write the page and return its size in bytes.

    Args:
        xy: (N, 2) float in [0, 1], y upwards.
        crops: (N, P, P, 3) uint8, at 0.25 µm/px.
        columns: what cells can be coloured by, the first at once; at least one.

    Raises:
        ValueError: no column, or one of another length.
    """
    wrong = [column.name for column in columns if len(column.values) != len(xy)]
    if wrong or not columns:
        raise ValueError(f"a map of {len(xy)} cells needs columns of as many values: {wrong}")
    order, levels = by_level(xy)
    owners, owner = np.unique(keys.owners[order].astype(str), return_inverse=True)
    if len(owners) > 65_535:
        raise ValueError(f"{len(owners)} {keys.owner_kind}s are more than a page holds (65,535)")
    described, codes = zip(*(_encode(column, order) for column in columns), strict=True)
    tile_px, quality = (40, 85) if len(xy) <= MANY else (32, 75)
    sheets = [
        _sheet(crops[order[i : i + SHEET_TILES**2]], tile_px, quality)
        for i in range(0, len(order), SHEET_TILES**2)
    ]
    places = np.stack([xy[order, 0], 1 - xy[order, 1]], axis=1)  # y downwards, as on the screen
    arrays = {
        "xy": np.round(places * 65535).astype("<u2"),
        "owners": owner.astype("<u2"),
        "numbers": keys.numbers[order].astype("<u4"),
    } | {f"column-{i}": code for i, code in enumerate(codes)}
    stored = "".join(_script(name, array.tobytes()) for name, array in arrays.items())
    images = "".join(_script(f"sheet-{i}", data) for i, data in enumerate(sheets))
    facts = {
        "count": len(xy),
        "columns": described,
        "tile": {"px": tile_px, "side": SHEET_TILES},
        "levels": levels,
        "ramp": _ramps(),
        "owners": owners.tolist(),
        "owner_kind": keys.owner_kind,
        "number_kind": keys.number_kind,
    }
    here = Path(__file__).parent
    parts = {name: (here / name).read_text(encoding="utf-8") for name in ("page.css", "page.html")}
    script = "".join((here / name).read_text("utf-8") for name in ("page.js", "page_hands.js"))
    page = parts["page.html"]
    size = len(page) + len(script) + len(stored) + len(images)
    page = _fill(
        page,
        title=escape(title),
        subtitle=escape(subtitle),
        style=parts["page.css"],
        facts=f"{len(xy):,} cells; images of {crops.shape[1] * VIEW_UM:.0f} µm, {tile_px} px, "
        f"JPEG; this page is {size / 1e6:.1f} MB.",
        json=json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c"),
        data=stored,
        script=script,
        sheets=images,
    )
    write_text(Path(path), page)
    return len(page.encode())


def by_level(xy: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Order cells such that a grid of images at any zoom is made of the first so many.

    The cells of levels 0 to L are one for each occupied square of a grid of GRID * 2^L squares
    along a side, the one nearest the centre unless a coarser level has chosen; within a level
    they follow Morton's curve, so that neighbours share a sheet of images.

    Args:
        xy: (N, 2) float in [0, 1], y upwards.

    Returns:
        (N,) rows in order, and how many belong to level L or a coarser one, for each L.
    """
    xy = np.stack([xy[:, 0], 1 - xy[:, 1]], axis=1)
    level = np.full(len(xy), LEVELS)
    for step in range(LEVELS):
        squares = GRID * 2**step
        place = np.minimum(xy * squares, squares - 1e-6)
        square = place[:, 1].astype(int) * squares + place[:, 0].astype(int)
        distance = ((place - np.floor(place) - 0.5) ** 2).sum(axis=1)
        first = np.lexsort((distance, level >= step, square))  # one chosen before comes first
        _, at = np.unique(square[first], return_index=True)
        chosen = first[at]
        level[chosen] = np.minimum(level[chosen], step)
    column, row = np.minimum((xy * 65536).astype(np.int64), 65535).T
    order = np.lexsort((_spread(column) | _spread(row) << 1, level))
    return order, [int((level <= step).sum()) for step in range(LEVELS)]


def _spread(x: np.ndarray) -> np.ndarray:
    """Put a zero between the bits of 16-bit integers."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        x = (x | x << shift) & mask
    return x


def _encode(column: Column, order: np.ndarray) -> tuple[dict, np.ndarray]:
    """Return what the page says of a column, and a byte for each cell."""
    values = np.asarray(column.values)[order]
    if values.dtype.kind == "f":
        known = np.isfinite(values)
        low, high = np.percentile(values[known], (1, 99)) if known.any() else (0.0, 1.0)
        share = (values - low) / (high - low if high > low else 1)
        code = np.where(known, np.round(np.clip(np.nan_to_num(share), 0, 1) * 254), UNKNOWN)
        facts = {"name": column.name, "low": float(low), "high": float(high), "unit": column.unit}
        return facts, code.astype(np.uint8)
    names = column.names or sorted(set(values.tolist()))
    counts = {name: int((values == name).sum()) for name in names}
    if len(names) > NAMED:
        ranked = sorted(names, key=lambda name: -counts[name])[:NAMED]
        rest = f"{len(names) - NAMED} others"
        values = np.where(np.isin(values, ranked), values, rest)
        names, counts[rest] = [*ranked, rest], int((values == rest).sum())
    number = {name: i for i, name in enumerate(names)}
    facts = {
        "name": column.name,
        "names": list(names),
        "colours": hues(list(names)),
        "counts": [counts[name] for name in names],
    }
    return facts, np.array([number[value] for value in values.tolist()], np.uint8)


def _sheet(crops: np.ndarray, px: int, quality: int) -> bytes:
    """Return a JPEG with up to SHEET_TILES squared crops, row by row."""
    tiles = np.full((SHEET_TILES**2, px, px, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        same = crop.shape[0] == px
        tiles[i] = crop if same else cv2.resize(crop, (px, px), interpolation=cv2.INTER_AREA)
    rows = -(-len(crops) // SHEET_TILES)
    grid = tiles.reshape(SHEET_TILES, SHEET_TILES, px, px, 3).transpose(0, 2, 1, 3, 4)
    picture = grid.reshape(SHEET_TILES * px, SHEET_TILES * px, 3)[: rows * px]
    # Blocks of 8 px, or 16 with halved colour, end where a tile does: none shows in another.
    halved, full = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full if px % 16 else halved]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def _script(name: str, data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f'<script type="text/plain" id="{name}">{text}</script>\n'


def _fill(page: str, **parts: str) -> str:
    """Put parts into their places, once and in one pass, so that no part is read for places."""
    pieces = page.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def _ramps() -> dict[str, list[str]]:
    """Return viridis for numbers; high values stand out from the page, light or dark."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    viridis = colormaps["viridis"]
    shares = {"light": np.linspace(0.93, 0, 64), "dark": np.linspace(0.12, 1, 64)}
    return {theme: [to_hex(viridis(s)) for s in share] for theme, share in shares.items()}
