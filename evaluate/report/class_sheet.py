"""Contact sheets: crops per class, large enough to judge."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluate.benchmark import Benchmark
from shards.write import atomic

COLUMNS = 12  # crops in a row
ROWS = 2  # of crops per class
TILE_PX = 80  # side of a crop on the sheet
GAP_PX = 4
HEAD_PX = 44  # height of a class's line
CLASSES = 12  # at most; the largest


def contact_sheet(samples: Benchmark, seed: int = 0, whole: bool = True) -> Image.Image:
    """Draw crops chosen at random under the name and count, or share, of each class.

    Without labels the groups take the classes' place, and without groups all is one class.

    Args:
        whole: they are all there are, so that their number is worth saying; else their share is.

    Returns:
        RGB, 1,012 px wide.
    """
    heads = samples.labels if samples.classes else samples.groups
    names, counts = np.unique(heads, return_counts=True)
    if samples.classes:
        names = [name for name in samples.classes if name in names]
    else:
        names = [names[i] for i in np.argsort(-counts, kind="stable")]
    shown, rng = names[:CLASSES], np.random.default_rng(seed)
    blocks = []
    for name in shown:
        rows = np.flatnonzero(heads == name)
        capacity = COLUMNS * (ROWS if len(shown) > 1 else ROWS * 5)
        chosen = np.sort(rng.choice(rows, min(len(rows), capacity), replace=False))
        number = f"{len(rows):,}" if whole else f"{len(rows) / len(samples):.0%}"
        blocks.append((f"{name or 'nuclei'}  ·  {number}", samples.crops[chosen]))
    more = len(names) - len(shown)
    return headed(blocks, f"and {more} more" if more else "")


def headed(blocks: list[tuple[str, np.ndarray]], last: str = "") -> Image.Image:
    """Draw crops in rows of COLUMNS, each block of them under a line of text.

    Args:
        blocks: a line, and (N, P, P, 3) uint8.
        last: a line below them all.

    Returns:
        RGB, 1,012 px wide.
    """
    parts = [part for text, crops in blocks for part in (_head(text), tiles(crops))]
    return Image.fromarray(np.concatenate([*parts, *([_head(last)] if last else [])]))


def tiles(crops: np.ndarray) -> np.ndarray:
    """Lay crops out in rows of COLUMNS.

    Args:
        crops: (N, P, P, 3) uint8.

    Returns:
        (H, W, 3) uint8 on white.
    """
    step = TILE_PX + GAP_PX
    rows = -(-len(crops) // COLUMNS)
    sheet = np.full((rows * step + GAP_PX, COLUMNS * step + GAP_PX, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        y, x = (GAP_PX + step * place for place in divmod(i, COLUMNS))
        large = cv2.resize(crop, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
        sheet[y : y + TILE_PX, x : x + TILE_PX] = large
    return sheet


def save_sheet(samples: Benchmark, path: Path, seed: int = 0, whole: bool = True) -> None:
    """Draw a contact sheet, as of `contact_sheet`, into a PNG; its folder is made if absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = contact_sheet(samples, seed, whole)
    with atomic(path) as file:
        picture.save(file, "PNG")


def _head(text: str) -> np.ndarray:
    """Return a line of text as wide as a sheet, (HEAD_PX, W, 3) uint8."""
    line = Image.new("RGB", (COLUMNS * (TILE_PX + GAP_PX) + GAP_PX, HEAD_PX), "white")
    ImageDraw.Draw(line).text((GAP_PX, HEAD_PX // 2), text[:60], "#333", font(24), anchor="lm")
    return np.asarray(line)


def font(px: int) -> ImageFont.FreeTypeFont:
    """Return the font of all pictures: matplotlib's, which is there and knows more than Latin."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), px)
