"""Cut windows at a true scale out of an image, and encode and decode the crops.

The one place where a nucleus' window is cut, for slides and benchmarks alike.
"""

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from shards.scale import check_mpp
from shards.schema import MPP, MPP_TOLERANCE

JPEG_QUALITY = 95  # with 4:4:4 about 40 dB and 3.2 kB a crop of 60 px


def window_px(mpp: float, out_px: int, out_mpp: float = MPP) -> float:
    """Return the side, in the image's px, of a window of `out_px` pixels at `out_mpp` µm/px.

    Within ±3 % of `out_mpp` the image is taken as it is (docs/slides-and-scale.md).

    Raises:
        ValueError: `mpp` is no microscope's.
    """
    check_mpp(mpp, "an image")
    if abs(mpp / out_mpp - 1) <= MPP_TOLERANCE:
        return float(out_px)
    return out_px * out_mpp / mpp


def inside(
    xy: np.ndarray, width: int, height: int, mpp: float, out_px: int, out_mpp: float = MPP
) -> np.ndarray:
    """Tell which windows lie wholly within an image.

    Args:
        xy: (N, 2) float, centres in px of the image.
        width: of the image, px.
        height: of the image, px.
        mpp: of the image, µm/px.
        out_px: side of the window at `out_mpp`, px.

    Returns:
        (N,) bool.
    """
    left, top, side = _corner(np.asarray(xy, np.float64).reshape(-1, 2), mpp, out_px, out_mpp)
    return (left >= 0) & (top >= 0) & (left + side <= width) & (top + side <= height)


def cut(
    image: np.ndarray,
    xy: np.ndarray,
    mpp: float,
    out_px: int,
    out_mpp: float = MPP,
    fill: int | None = None,
) -> np.ndarray:
    """Cut a window around each centre at `out_mpp` µm/px.

    At the image's own scale pixels are copied; otherwise the exact (fractional) window is
    resampled with Pillow's antialiased bicubic filter.

    Args:
        image: (H, W, 3) uint8 RGB.
        xy: (N, 2) float, centres in px of the image; whole numbers are pixel centres.
        mpp: of the image, µm/px.
        out_px: side of a crop, px.
        out_mpp: scale of a crop, µm/px.
        fill: grey value 0-255 beyond the image's border; None refuses such windows.

    Returns:
        (N, out_px, out_px, 3) uint8.

    Raises:
        ValueError: a window leaves the image and `fill` is None.
    """
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    height, width = image.shape[:2]
    outside = ~inside(xy, width, height, mpp, out_px, out_mpp)
    if outside.any():
        if fill is None:
            raise ValueError(
                f"{outside.sum()} of {len(xy)} windows leave the image ({width}x{height} px), "
                f"the first around {tuple(xy[outside][0])}; drop them or give a fill value"
            )
        side = window_px(mpp, out_px, out_mpp)
        margin = int(np.ceil(side)) + 16  # and what the resampling filter reaches
        image = cv2.copyMakeBorder(
            image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(fill,) * 3
        )
        farthest = side / 2 + 8  # from there on a window is all fill
        xy = np.clip(xy, -farthest, (width + farthest, height + farthest)) + margin
    left, top, side = _corner(xy, mpp, out_px, out_mpp)
    crops = np.empty((len(xy), out_px, out_px, 3), np.uint8)
    if side == out_px:
        corners = zip(left.astype(int).tolist(), top.astype(int).tolist(), strict=True)
        for i, (x, y) in enumerate(corners):
            crops[i] = image[y : y + out_px, x : x + out_px]
        return crops
    for i, (x, y) in enumerate(zip(left, top, strict=True)):
        # Pillow resamples the box out of the few pixels it needs, not out of the whole image.
        x0, y0 = max(int(x) - 8, 0), max(int(y) - 8, 0)
        x1, y1 = int(x + side) + 9, int(y + side) + 9
        patch = Image.fromarray(image[y0:y1, x0:x1])
        box = (x - x0, y - y0, x - x0 + side, y - y0 + side)
        crops[i] = np.asarray(patch.resize((out_px, out_px), Image.Resampling.BICUBIC, box=box))
    return crops


def _corner(
    xy: np.ndarray, mpp: float, out_px: int, out_mpp: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the windows' left and top edges, (N,) each, and their side; edges count from 0."""
    side = window_px(mpp, out_px, out_mpp)
    # Pixel i spans [i, i + 1) here while its centre is at i in `xy`, hence the half.
    left, top = xy[:, 0] + 0.5 - side / 2, xy[:, 1] + 0.5 - side / 2
    if side == out_px:  # copied whole: the nearest pixel; of two equally near, the upper left
        left, top = np.ceil(left - 0.5), np.ceil(top - 0.5)
    return left, top, side


def encode(crop: np.ndarray, codec: str) -> bytes:
    """Encode one crop; the bytes depend on the pixels alone.

    Args:
        crop: (H, W, 3) uint8 RGB.
        codec: `jpeg` (quality 95, 4:4:4), `png` or `webp` (both lossless).
    """
    if codec == "jpeg":
        crop = np.ascontiguousarray(crop)
        return simplejpeg.encode_jpeg(crop, JPEG_QUALITY, colorsubsampling="444", fastdct=False)
    bgr = cv2.cvtColor(crop, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if codec == "webp" else []  # above 100: lossless
    return cv2.imencode(f".{codec}", bgr, options)[1].tobytes()


def decode(data: bytes | memoryview) -> np.ndarray:
    """Decode a JPEG, PNG or WebP image.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the bytes are no such image, or a broken one.
    """
    if bytes(data[:2]) == b"\xff\xd8":
        return simplejpeg.decode_jpeg(data, fastdct=False, fastupsample=False)
    buffer = np.frombuffer(data, np.uint8)
    bgr = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if len(buffer) else None
    if bgr is None:
        raise ValueError(f"{len(data)} bytes that are no JPEG, PNG or WebP image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def decode_into(data: bytes | memoryview, out: np.ndarray) -> None:
    """Decode an image into an array of its very size.

    Args:
        data: as for `decode`.
        out: (H, W, 3) uint8, C-contiguous; holds anything after an error.

    Raises:
        ValueError: the bytes are no image, a broken one, or one of another size.
    """
    if data[:2] == b"\xff\xd8":  # by position: names cost half a microsecond here
        found = simplejpeg.decode_jpeg(data, "RGB", False, False, 0, 0, 1.0, out)
    else:
        found = decode(data)
        if found.shape == out.shape:
            out[:] = found
    if found.shape != out.shape:
        size, wanted = ("x".join(map(str, a.shape[1::-1])) for a in (found, out))
        raise ValueError(f"it is {size} px instead of {wanted}")
