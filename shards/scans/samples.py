"""An image's samples as a slide has them: 8-bit RGB, what is transparent on white."""

from pathlib import Path

import numpy as np

DIM = 1 / 8  # of the scale; glass is brighter, unless the samples have fewer bits than it is for
MIN_COLOURS = 16  # colours up to which an image is drawn, not scanned
SAMPLED_PX = 2_000_000  # pixels whose colours are counted
ROWS = 256  # laid on white at once, which takes floats
SAVE_8_BITS = "vips colourspace '{}' out.tif[tile,pyramid,compression=deflate,bigtiff] srgb"


def rgb8(
    path: Path, samples: np.ndarray, bits: int | None = None, associated: bool = False
) -> np.ndarray:
    """Return 8-bit RGB on white.

    Args:
        path: named in errors.
        samples: (H, W, 3 or 4), uint8 or uint16; a fourth is alpha.
        bits: that 16-bit samples are stated to use; None: nothing is stated.
        associated: whether the colours were multiplied by alpha.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: other samples, or 16-bit ones that do not fit their stated bits.
    """
    if samples.ndim != 3 or samples.shape[2] not in (3, 4):
        raise ValueError(f"{path} holds {samples.shape} samples, not RGB")
    if samples.dtype.kind != "u" or samples.dtype.itemsize > 2:
        raise ValueError(f"{path} holds samples of {samples.dtype}, not of 8 or 16 bits")
    if samples.dtype.itemsize == 2:
        top = check_sixteen(path, float(samples[..., :3].max(initial=0)), 16, bits)
        scaled = np.rint(np.arange(2**16) * (255 / top)).clip(0, 255).astype(np.uint8)
        samples = scaled[samples]
    if samples.shape[2] == 3:
        return np.ascontiguousarray(samples)
    out = np.empty((*samples.shape[:2], 3), np.uint8)
    for first in range(0, len(samples), ROWS):
        part = samples[first : first + ROWS].astype(np.float32)
        weight = part[..., 3:] / 255
        colour = part[..., :3] if associated else part[..., :3] * weight
        out[first : first + ROWS] = np.rint(colour + 255 * (1 - weight)).clip(0, 255)
    return out


def check_sixteen(
    path: Path, brightest: float, depth: int, bits: int | None, scaled: bool = True
) -> int:
    """Return the largest value that samples of more than 8 bits can have.

    Args:
        path: named in errors.
        brightest: the largest value that they do have.
        depth: bits they are stored in.
        bits: bits they are stated to use; None: nothing is stated.
        scaled: whether the reader can scale by other bits than `depth`.

    Raises:
        ValueError: the values do not fit what is stated, or nothing is and they are dim.
    """
    cure = (
        "state them (OME's SignificantBits, TIFF's MaxSampleValue, PNG's sBIT), or save 8 bits: "
        + SAVE_8_BITS.format(path)
    )
    top = 2 ** (bits or depth) - 1
    if brightest > top:
        raise ValueError(f"{path} states {bits} bits, but holds {brightest:.0f}; {cure}")
    if bits is None and brightest < DIM * top:
        raise ValueError(
            f"{path} has {depth} bits a sample and nothing above {brightest:.0f}: it seems to use "
            f"fewer bits, and does not say how many; {cure}"
        )
    if bits not in (None, depth) and not scaled:
        raise ValueError(
            f"{path} uses {bits} of its {depth} bits, which OpenSlide ignores; save 8 bits: "
            + SAVE_8_BITS.format(path)
        )
    return top


def check_colours(path: Path, rgb: np.ndarray) -> None:
    """Refuse a mask or a label image that is stored as RGB.

    Args:
        path: named in errors.
        rgb: (H, W, 3) uint8; of one colour it counts as a blank slide.

    Raises:
        ValueError: it is grey all over, or of a few flat colours.
    """
    step = max(int(np.sqrt(rgb.shape[0] * rgb.shape[1] / SAMPLED_PX)), 1)
    pixels = rgb[::step, ::step].reshape(-1, 3).astype(np.uint32)
    colours = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32))
    red, green, blue = colours >> 16, colours >> 8 & 255, colours & 255
    if len(colours) == 1:
        return
    if (red == green).all() and (green == blue).all():
        raise ValueError(f"{path} is no slide: it has no colour; a mask, or a label image?")
    if len(colours) <= MIN_COLOURS:
        raise ValueError(
            f"{path} is no slide: it has {len(colours)} colours; a mask, or a label image?"
        )
