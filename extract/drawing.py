"""Pictures of what was extracted: nuclei on the slide, outlines at full resolution, crops."""

import base64
import io

import cv2
import numpy as np
import shapely
from PIL import Image

from shards.schema import FATES

THUMBNAIL_PX = 560  # the longer side of a thumbnail
DENSITY_UM = 50.0  # side of the squares in which nuclei are counted
QUALITY = 78  # of the pictures in the page, WebP
GAP_PX = 3
MAGNIFIED = 2

# RGB by fate; told apart on pink and purple, and by people who do not see red and green apart.
COLOURS = dict(
    zip(
        FATES,
        [(0, 200, 83), (255, 255, 255), (255, 145, 0), (255, 0, 170), (0, 0, 0), (255, 234, 0),
         (120, 144, 156), (213, 0, 0)],
        strict=True,
    )
)  # fmt: skip


def data_uri(image: np.ndarray, quality: int = QUALITY) -> str:
    """Return a picture as a data URI.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    data = io.BytesIO()
    Image.fromarray(image).save(data, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"


def draw_density(
    thumbnail: np.ndarray, xy: np.ndarray, width: int, mpp: float
) -> tuple[np.ndarray, float]:
    """Colour a thumbnail by how many nuclei there are: from clear over blue and green to yellow.

    Args:
        thumbnail: (H, W, 3) uint8 RGB of the whole slide.
        xy: (N, 2) centres, level-0 px.
        width: of the slide, level-0 px.
        mpp: of the slide, µm/px.

    Returns:
        The picture, and the nuclei per mm² that yellow stands for (the 99th percentile).
    """
    height, columns = thumbnail.shape[:2]
    shrink = width / columns  # level-0 px in a px of the thumbnail
    cell = max(DENSITY_UM / mpp / shrink, 1.0)  # px of the thumbnail
    shape = (int(np.ceil(height / cell)), int(np.ceil(columns / cell)))
    place = ((xy + 0.5) / shrink / cell).astype(int)
    place = np.clip(place, 0, (shape[1] - 1, shape[0] - 1))
    count = np.zeros(shape, np.float32)
    np.add.at(count, (place[:, 1], place[:, 0]), 1)
    density = count / (cell * shrink * mpp / 1000) ** 2  # per mm²
    high = float(np.percentile(density[count > 0], 99)) if len(xy) else 0.0
    share = np.clip(density / max(high, 1e-9), 0, 1)
    share = cv2.resize(share, (columns, height), interpolation=cv2.INTER_LINEAR)
    colour = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    weight = np.where(share > 0.02, 0.35 + 0.4 * share, 0)[..., None]
    grey = cv2.cvtColor(thumbnail, cv2.COLOR_RGB2GRAY)[..., None]
    return (grey * (1 - weight) + colour * weight).astype(np.uint8), high


def draw_boxes(thumbnail: np.ndarray, boxes: list[tuple[int, int, int, int]], width: int) -> None:
    """Mark where the fields lie, numbered, in place.

    Args:
        thumbnail: (H, W, 3) uint8 RGB of the whole slide.
        boxes: (x, y, width, height) each, level-0 px.
        width: of the slide, level-0 px.
    """
    shrink = width / thumbnail.shape[1]
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        low = (int(x / shrink), int(y / shrink))
        high = (int((x + w) / shrink) - 1, int((y + h) / shrink) - 1)
        cv2.rectangle(thumbnail, low, high, (0, 0, 0), 2, cv2.LINE_AA)
        at = (low[0] + 5, low[1] + 20)
        for colour, thick in (((255, 255, 255), 4), ((0, 0, 0), 2)):
            cv2.putText(thumbnail, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, thick)


def draw_outlines(
    image: np.ndarray,
    corner: tuple[int, int],
    xy: np.ndarray,
    polygons: np.ndarray,
    fates: np.ndarray,
) -> np.ndarray:
    """Draw nuclei's outlines in the colour of their fate; a nucleus without one becomes a ring.

    The picture is MAGNIFIED times as large as the image, so that an outline hides little of it.

    Args:
        image: (H, W, 3) uint8 RGB, at the slide's resolution.
        corner: x and y of its upper left pixel, level-0 px.
        xy: (N, 2) centres, level-0 px.
        polygons: (N,) shapely Polygons or None.
        fates: (N,) of FATES.
    """
    size = (MAGNIFIED * image.shape[1], MAGNIFIED * image.shape[0])
    image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    for centre, polygon, fate in zip(xy, polygons, fates, strict=True):
        colour = COLOURS[fate]
        if polygon is None:
            at = np.round((centre - corner) * MAGNIFIED).astype(int)
            cv2.circle(image, tuple(map(int, at)), 8, colour, 2, cv2.LINE_AA)
            continue
        ring = (shapely.get_coordinates(polygon.exterior) - corner + 0.5) * MAGNIFIED - 0.5
        fixed = np.round(ring * 16).astype(np.int32)  # with 4 binary places
        cv2.polylines(image, [fixed], True, colour, 2, cv2.LINE_AA, 4)
    return image


def lay_out(crops: np.ndarray, columns: int) -> np.ndarray:
    """Lay crops out in rows on white.

    Args:
        crops: (N, P, P, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    step = crops.shape[1] + GAP_PX
    rows = -(-len(crops) // columns)
    sheet = np.full((rows * step - GAP_PX, columns * step - GAP_PX, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        y, x = (step * place for place in divmod(i, columns))
        sheet[y : y + crop.shape[0], x : x + crop.shape[1]] = crop
    return sheet
