"""What the files between the stages hold: ids, coordinates, scale, columns, fates.

Coordinates and scale, stated once, for every stage:

- A position is a patch's centre, (x, y), float, in level-0 pixels of the slide: OpenSlide's full
  frame, bounds origin included. Whole numbers are pixel centres (the top-left pixel's centre is
  (0, 0)), as scikit-image's centroids and OpenCV's contours give them.
- A stored crop is CROP_PX pixels square at MPP µm/px (40X). The model sees its central VIEW_PX.
- Images are (H, W, 3) uint8 RGB on disk, (N, 3, H, W) in the model.

Sources: the paper, sections 2.1, 2.2 and A.3 (60 px so that a 40-px view can be rotated by any
angle: 40 * sqrt(2) = 56.6); the released LEMON card (0.25 µm/px).
"""

import re

import numpy as np
import pyarrow as pa

CROP_PX = 60  # side of a stored crop, px
VIEW_PX = 40  # side of what the model sees, px
MPP = 0.25  # µm/px of every stored crop: 40X
MPP_TOLERANCE = 0.03  # a slide within ±3 % of MPP is cut as it is, without resampling
MPP_40X = (0.2, 0.3)  # µm/px a slide may have to count as 40X

FATES = ("kept", "edge", "size", "duplicate", "blank", "blur", "not sampled", "unreadable")

# One row per detected nucleus, in `cells/<slide>.parquet`. Its file metadata holds, as JSON under
# the key "lemon": slide, project, mpp, segmenter, versions, seed, stain statistics.
CELL_COLUMNS = pa.schema(
    [
        ("nucleus", pa.int32()),
        ("x", pa.float32()),  # level-0 px
        ("y", pa.float32()),
        ("area_um2", pa.float32()),
        ("perimeter_um", pa.float32()),
        ("eccentricity", pa.float32()),
        ("solidity", pa.float32()),
        ("major_um", pa.float32()),
        ("minor_um", pa.float32()),
        ("orientation", pa.float32()),  # rad, scikit-image's: from the rows' axis, in [-π/2, π/2]
        ("haematoxylin_mean", pa.float32()),  # optical density of each stain inside the outline;
        ("haematoxylin_sd", pa.float32()),  # null where no outline is known or no pixels were read
        ("eosin_mean", pa.float32()),
        ("eosin_sd", pa.float32()),
        ("polygon", pa.binary()),  # WKB, level-0 px
        ("label", pa.string()),  # null where the segmenter gives none
        ("fate", pa.dictionary(pa.int8(), pa.string())),
        ("offset", pa.int64()),  # of the crop's bytes in `cells/<slide>.tar`; null if not kept
        ("size", pa.int32()),  # bytes of the crop; null if not kept
    ]
)

# One row per sample, in shard order, in `shards/index.parquet`.
INDEX_COLUMNS = pa.schema(
    [
        ("shard", pa.int32()),  # number in the file's name
        ("offset", pa.int64()),  # of the image's bytes in the tar
        ("size", pa.int32()),
        ("slide", pa.dictionary(pa.int32(), pa.string())),
        ("project", pa.dictionary(pa.int32(), pa.string())),
        ("nucleus", pa.int32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("area_um2", pa.float32()),
        ("label", pa.string()),
        ("fingerprint", pa.uint64()),  # of the member (shards/fingerprint.py)
    ]
)

CODECS = {"jpeg": "jpg", "png": "png", "webp": "webp"}  # name -> extension of a member

SLIDE_ID = re.compile(r"[A-Za-z0-9_+=@][A-Za-z0-9_+=@ -]{0,79}")


def check_slide_id(slide: str) -> str:
    """Return the id if it can name files and WebDataset keys, else say why not.

    webdataset ends a key at the first period, so `TCGA-…-DX1.<uuid>_000001.jpg` would fall
    together with all its sisters; a slash or a leading dash would become a path or a flag.

    Args:
        slide: the id, 1 to 80 characters.

    Raises:
        ValueError: the id holds a period, a slash or another sign that is not allowed.
    """
    if SLIDE_ID.fullmatch(slide):
        return slide
    raise ValueError(
        f"slide id {slide!r} cannot be used: it must be 1 to 80 letters, digits or any of _+=@-, "
        "without a period, a slash or a leading dash; give one in the slide_id column"
    )


def key(slide: str, nucleus: int) -> str:
    """Return a sample's WebDataset key, `<slide>_<nucleus:07d>`."""
    return f"{slide}_{nucleus:07d}"


def member_names(slide: str, nuclei: np.ndarray, codec: str) -> np.ndarray:
    """Return the names of a slide's members in a tar, `<key>.<extension>`, many at once.

    Args:
        slide: its id.
        nuclei: (N,) integers.
        codec: of CODECS.

    Returns:
        (N,) bytes strings.
    """
    before, after = key(slide, 0)[:-7], f".{CODECS[codec]}"
    if len(nuclei) and nuclei.max() >= 10**7:  # more digits than the key is padded to
        return np.array([f"{key(slide, n)}{after}".encode() for n in nuclei.tolist()])
    digits = nuclei[:, None] // 10 ** np.arange(6, -1, -1) % 10 + ord("0")
    parts = [np.frombuffer(part.encode(), np.uint8) for part in (before, after)]
    names = np.empty((len(nuclei), len(parts[0]) + 7 + len(parts[1])), np.uint8)
    names[:, : len(parts[0])], names[:, -len(parts[1]) :] = parts
    names[:, len(parts[0]) : -len(parts[1])] = digits
    return names.view(f"S{names.shape[1]}")[:, 0]
