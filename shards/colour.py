"""Colour statistics of a data set: the channels, and the LAB templates of RandStainNA.

Both over the crops' central view, which is what the model sees. LAB here is CIE L*a*b* of sRGB
under D65 (2°) in floating point, L 0 to 100, a and b signed, as scikit-image's rgb2lab gives it;
RandStainNA's code takes OpenCV's 8-bit form, about (2.55 L, a + 128, b + 128). OpenCV's float
form is faster but interpolates in tables: it is 0.09 too dark on average.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from shards.schema import CROP_PX, VIEW_PX

COMPONENTS = (1, 10)  # the paper's gmm1 and gmm10
CROPS_A_COMPONENT = 10  # fewer crops get fewer components
LEVELS = np.arange(256) / 255
# sRGB's 8-bit values to linear light (IEC 61966-2-1), and from there to XYZ over the white point.
LINEAR = np.where(LEVELS > 0.04045, ((LEVELS + 0.055) / 1.055) ** 2.4, LEVELS / 12.92)
LINEAR = LINEAR.astype(np.float32)
XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
)
WHITE = np.array([0.95047, 1.0, 1.08883])
LAB_SPACE = "CIE L*a*b*, D65, L 0..100, float; vector: mean L a b, sd L a b of a crop's view"


def colour_statistics(batches: Iterable[np.ndarray], seed: int) -> dict:
    """Describe the colours of a sample of a data set.

    Args:
        batches: of its crops, (N, 3, H, W) uint8, as many as there are.

    Returns:
        `mean`, `std` (3 floats each, of pixels in [0, 1]) and `stain`: space, crops, and for each
        of gmm1 and gmm10 weights (K,), means (K, 6) and covariances (K, 6, 6).
    """
    import sklearn.mixture  # noqa: F401 slow; before the limit, which reaches what is loaded
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # more threads only wait for each other, and round otherwise
        return _describe(batches, seed)


def _describe(batches: Iterable[np.ndarray], seed: int) -> dict:
    """Describe the colours, on one thread."""
    low, count = (CROP_PX - VIEW_PX) // 2, 0
    vectors, total, squares = [], np.zeros(3), np.zeros(3)
    for crops in batches:
        views = crops[:, :, low : low + VIEW_PX, low : low + VIEW_PX].swapaxes(0, 1)
        pixels = views.reshape(3, -1)
        total += pixels.sum(1, dtype=np.int64)
        squares += (pixels.astype(np.uint16) ** 2).sum(1, dtype=np.int64)  # 255^2 just fits
        vectors.append(stain_vectors(views))
        count += len(crops)
    mean, square = total / (count * VIEW_PX**2 * 255), squares / (count * VIEW_PX**2 * 255**2)
    return {
        "mean": mean.tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 0)).tolist(),
        "stain": {"space": LAB_SPACE, "crops": count}
        | {f"gmm{k}": mixture(np.concatenate(vectors), k, seed) for k in COMPONENTS},
    }


def stain_vectors(views: np.ndarray) -> np.ndarray:
    """Return the mean and sd of each LAB channel of each crop.

    RandStainNA (Shen et al. 2022) describes an image by these six numbers.

    Args:
        views: (3, N, H, W) uint8 RGB.

    Returns:
        (N, 6) float64: mean L, a, b, then sd L, a, b.
    """
    lab = to_lab(views.reshape(3, -1)).reshape(3, views.shape[1], -1)
    moments = [lab.mean(2, dtype=np.float64), lab.std(2, dtype=np.float64)]
    return np.concatenate(moments).T


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB to CIE L*a*b* (D65).

    Args:
        rgb: (3, N) uint8.

    Returns:
        (3, N) float32, within 0.001.
    """
    t = (XYZ / WHITE[:, None]).astype(np.float32) @ LINEAR[rgb]
    x, y, z = np.where(t > 0.008856, np.cbrt(t), np.float32(7.787) * t + np.float32(16 / 116))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def mixture(vectors: np.ndarray, components: int, seed: int) -> dict[str, list]:
    """Fit a Gaussian mixture with full covariances.

    Paper leaves open: how gmm1 and gmm10 are fitted; here: over the joint 6-vector, so that the
    draws keep the correlation of a crop's brightness, hue and contrast. One component's mean and
    variances are RandStainNA's own template.

    Args:
        vectors: (N, 6).
        components: K; fewer where there are not CROPS_A_COMPONENT different vectors for each.
        seed: of the k-means start.

    Returns:
        weights (K,), means (K, 6), covariances (K, 6, 6).
    """
    from sklearn.mixture import GaussianMixture  # slow to import, and only mixing needs it

    different = len(np.unique(vectors, axis=0))
    components = min(components, max(1, different // CROPS_A_COMPONENT))
    if len(vectors) == 1:
        vectors = np.repeat(vectors, 2, axis=0)
    model: Any = GaussianMixture(components, random_state=seed % 2**32, max_iter=1000).fit(vectors)
    order = np.argsort(-model.weights_, kind="stable")
    return {
        "weights": model.weights_[order].tolist(),
        "means": model.means_[order].tolist(),
        "covariances": model.covariances_[order].tolist(),
    }
