"""python bench/views.py [--quick]

Two views of a1+gray a nucleus, from decoded 60-px crops to normalised 40-px tensors, on one core:
ours in batches, the plain way (torchvision v1 transforms on PIL images, one by one), and, where
they are installed, albumentations one by one and kornia in batches. Alternating in one process.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

from bench.alternate import alternate, last_line, ratio
from bench.flags import bench_parser
from shards.schema import VIEW_PX
from train import augment
from train.batches import Batch
from train.policy import POLICIES
from train.views import make_views

POLICY = POLICIES["a1+gray"]
MEAN, STD = (0.58, 0.39, 0.55), (0.23, 0.22, 0.18)


def plain() -> Callable[[np.ndarray], torch.Tensor]:
    """Return the views of PIL images through torchvision v1, rotation and all."""

    def view(blur_p: float) -> T.Compose:
        return T.Compose(
            [
                T.RandomRotation(180, T.InterpolationMode.BILINEAR),
                T.CenterCrop(VIEW_PX),
                T.RandomResizedCrop(VIEW_PX, POLICY.scale),
                T.RandomApply([T.ColorJitter(*POLICY.jitter)], POLICY.jitter_p),
                T.RandomGrayscale(POLICY.grey_p),
                T.RandomApply([T.GaussianBlur(POLICY.blur_kernel, POLICY.blur_sigma)], blur_p),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.RandomErasing(POLICY.erase_p, POLICY.erase_scale, POLICY.erase_ratio),
                T.Normalize(MEAN, STD),
            ]
        )

    first, second = map(view, POLICY.blur_p)

    def run(crops: np.ndarray) -> torch.Tensor:
        images = [Image.fromarray(c) for c in crops]
        return torch.stack([v(i) for v in (first, second) for i in images])

    return run


def ours() -> Callable[[np.ndarray], torch.Tensor]:
    """Return the views through train/augment.py, draws included."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    step = iter(range(10**9))

    def run(crops: np.ndarray) -> torch.Tensor:
        number, n = next(step), len(crops)
        x = torch.from_numpy(crops).permute(0, 3, 1, 2)  # channels last in memory, as decoded
        draws = augment.join([augment.draw(POLICY, v, 0, number, n, range(n)) for v in (0, 1)])
        return make_views(Batch(x, [draws]), [POLICY] * 2, torch.device("cpu"), mean, std)[0]

    return run


def albumentations() -> Callable[[np.ndarray], torch.Tensor]:
    """Return the views of single arrays through albumentations."""
    import albumentations as A

    b, c, s, h = POLICY.jitter

    def view(blur_p: float) -> A.Compose:
        return A.Compose(
            [
                A.Rotate((-180, 180), p=1.0),
                A.CenterCrop(VIEW_PX, VIEW_PX),
                A.RandomResizedCrop((VIEW_PX, VIEW_PX), scale=POLICY.scale, p=1.0),
                A.ColorJitter((1 - b, 1 + b), (1 - c, 1 + c), (1 - s, 1 + s), (-h, h), p=0.8),
                A.ToGray(p=POLICY.grey_p),
                A.Erasing(POLICY.erase_scale, POLICY.erase_ratio, p=POLICY.erase_p),
                A.GaussianBlur(sigma_limit=POLICY.blur_sigma, blur_limit=(9, 9), p=blur_p),
                A.HorizontalFlip(p=0.5),
                A.Normalize(MEAN, STD),
            ]
        )

    first, second = map(view, POLICY.blur_p)

    def run(crops: np.ndarray) -> torch.Tensor:
        images = [v(image=c)["image"] for v in (first, second) for c in crops]
        return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2))

    return run


def kornia() -> Callable[[np.ndarray], torch.Tensor]:
    """Return the views of a batch through kornia."""
    import kornia.augmentation as K

    def view(blur_p: float) -> K.AugmentationSequential:
        return K.AugmentationSequential(
            K.RandomRotation(180.0, p=1.0),
            K.CenterCrop(VIEW_PX),
            K.RandomResizedCrop((VIEW_PX, VIEW_PX), POLICY.scale, p=1.0),
            K.ColorJiggle(*POLICY.jitter, p=POLICY.jitter_p),
            K.RandomGrayscale(p=POLICY.grey_p),
            K.RandomErasing(POLICY.erase_scale, POLICY.erase_ratio, p=POLICY.erase_p),
            K.RandomGaussianBlur((9, 9), POLICY.blur_sigma, p=blur_p),
            K.RandomHorizontalFlip(p=0.5),
            K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        )

    first, second = map(view, POLICY.blur_p)

    def run(crops: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
        return torch.cat([first(x), second(x)])

    return run


def main() -> None:
    """Alternate, and print ratios."""
    parser = bench_parser("views", __doc__)
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    crops = np.random.default_rng(0).integers(0, 256, (512, 60, 60, 3), dtype=np.uint8)
    ways = {"ours": (ours(), 512), "plain": (plain(), 64)}
    for name, make in (("albumentations", albumentations), ("kornia", kornia)):
        if importlib.util.find_spec(name):
            ways[name] = (make(), 64 if name == "albumentations" else 512)
        else:
            print(f"{name} is not installed: left out")

    def speed(run: Callable[[np.ndarray], torch.Tensor], count: int) -> float:
        began = time.process_time()
        views = run(crops[:count])
        seconds = time.process_time() - began
        assert views.shape == (2 * count, 3, VIEW_PX, VIEW_PX), views.shape
        return count / seconds

    turns = {name: partial(speed, run, count) for name, (run, count) in ways.items()}
    speeds = alternate(turns, 3 if quick else 11, warm_up=1)
    for name in list(ways)[2:]:
        print(f"{name}: {ratio(speeds[name], speeds['plain'])} to the plain way")
    print(last_line("views", speeds["ours"], speeds["plain"], "nuclei/s a core", digits=1))


if __name__ == "__main__":
    main()
