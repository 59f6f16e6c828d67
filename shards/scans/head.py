"""What the head of an image says: whether it can be a slide at all."""

import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from shards.scans.image import SUFFIXES, check_mode
from shards.scans.samples import check_colours
from shards.scans.stated import UNREADABLE
from shards.scans.tiff import GREY


def is_mask(path: Path) -> bool:
    """Tell whether an image has one channel, or a palette of a few colours.

    False where that cannot be told: whoever opens it will say what is wrong with it.
    """
    try:
        if path.suffix.lower() not in SUFFIXES:
            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages.first
                return int(page.photometric) in GREY and page.samplesperpixel == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
    except (*UNREADABLE, OSError, SyntaxError, ValueError):
        return False
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False
    with image:
        try:
            if image.mode == "P":
                check_colours(path, np.asarray(image.convert("RGB")))
            else:
                check_mode(path, image.mode)
        except OSError:
            return False
        except ValueError:
            return True
    return False
