"""Augmentation policies a0, a1 and a1+gray of the paper (A.3).

Where the paper is silent:
- Paper leaves open: one view's rotation or both's; here: each view draws its own angle.
- Paper leaves open: a1 and a1+gray both list RandomGrayscale; here: a1 has none, a1+gray p = 0.2.
- Paper leaves open: the blur's probability and kernel; here: official MoCo v3's 1.0 for the first
  view and 0.1 for the second, kernel 9 (2 σ to each side at most; DINOv2's).
- Paper leaves open: what RandomErasing leaves; here: black, before the blur, in the list's order.
- Official MoCo v3 solarises the second view with p = 0.2; the paper's lists do not, nor does this.
- Paper leaves open: how often a1+gmm1 and a1+gmm10 draw a stain, and where; here: for every view
  (RandStainNA's probability 1), in addition to a1's operations, and before them: the templates
  describe crops as scanned, and what follows then varies the drawn stain as it varies a real one.
"""

from dataclasses import dataclass, replace

from shards.schema import VIEW_PX


@dataclass(frozen=True)
class Policy:
    """What is drawn for a view. Pairs of probabilities are (first view, second view)."""

    rotate: bool  # by any angle, out of the 60-px crop: no padded corner
    scale: tuple[float, float]  # of RandomResizedCrop, share of the 40-px area
    jitter: tuple[float, float, float, float]  # brightness, contrast, saturation, hue
    jitter_p: float = 0.8
    grey_p: float = 0.0
    erase_p: float = 0.0
    erase_scale: tuple[float, float] = (0.1, 0.3)
    erase_ratio: tuple[float, float] = (0.8, 1.2)
    erase_ratio_of: str = "height/width"  # torchvision's, or width/height
    erase_value: float = 0.0  # of pixels in [0, 1]: black
    blur_p: tuple[float, float] = (1.0, 0.1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # px
    blur_kernel: int = 9  # px
    solarize_p: tuple[float, float] = (0.0, 0.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # of RandomResizedCrop
    flip_p: float = 0.5
    stain: str = ""  # the mixture in dataset.json that LAB templates are drawn from; "": none
    mixture: dict | None = None  # that mixture: weights, means, covariances
    view_px: int = VIEW_PX  # side of the view


_A1 = {
    "rotate": True,
    "scale": (0.32, 1.0),
    "jitter": (0.6, 0.7, 0.5, 0.2),
    "erase_p": 0.3,
}
POLICIES = {
    "a0": Policy(rotate=False, scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.2, 0.1), grey_p=0.2),
    "a1": Policy(**_A1),
    "a1+gray": Policy(**_A1, grey_p=0.2),
    "a1+gmm1": Policy(**_A1, stain="gmm1"),
    "a1+gmm10": Policy(**_A1, stain="gmm10"),
    # Not the paper's: for a few minutes on a CPU, in which a1 teaches nothing yet (the demo).
    "light": Policy(
        rotate=True, scale=(0.5, 1.0), jitter=(0.4, 0.4, 0.4, 0.1), grey_p=0.2, blur_p=(0.0, 0.0)
    ),
}


def adjusted(policy: Policy, second_blur: float, erase_ratio: str) -> Policy:
    """Return a policy with a run's settings.

    Args:
        policy: of POLICIES.
        second_blur: probability that the second view is blurred, where the first may be.
        erase_ratio: that RandomErasing draws: `height/width` or `width/height`.
    """
    blur = (policy.blur_p[0], second_blur) if policy.blur_p[0] else policy.blur_p
    return replace(policy, blur_p=blur, erase_ratio_of=erase_ratio)


def policy_for(name: str, info: dict) -> Policy:
    """Return a policy, with the data set's stains where it draws from them.

    Args:
        name: one of POLICIES.
        info: the data set's dataset.json.

    Raises:
        ValueError: no such policy, or no colour statistics in the data set.
    """
    if name not in POLICIES:
        raise ValueError(f"no policy {name!r}; there are {', '.join(POLICIES)}")
    policy = POLICIES[name]
    if not policy.stain:
        return policy
    try:
        mixture = {k: info["stain"][policy.stain][k] for k in ("weights", "means", "covariances")}
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"policy {name} draws stains from the data set's own, and this dataset.json holds no "
            f"stain.{policy.stain} ({error!r}): mix the cells again with `python shards/main.py "
            "mix`, or take a policy without gmm"
        ) from error
    return replace(policy, mixture=mixture)
