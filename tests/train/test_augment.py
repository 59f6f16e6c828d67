"""Augmentation: each operation against torchvision's, the draws against their laws."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandomErasing, RandomResizedCrop

from shards.schema import CROP_PX, VIEW_PX
from train import augment
from train.augment import apply, draw
from train.policy import POLICIES, Policy

RNG = np.random.default_rng(0)
# Low-pass noise: pictures with colour, so that interpolation is well defined.
_SMALL = torch.from_numpy(RNG.random((16, 3, 8, 8), dtype=np.float32))
CROPS = (
    torch.nn.functional.interpolate(_SMALL, CROP_PX, mode="bicubic", align_corners=False)
    .clamp(0, 1)
    .mul(255)
    .byte()
)
VIEWS = CROPS[:, :, 10:50, 10:50].float() / 255
GREY, ERASE, BLUR, SOLARIZE = 16, 17, 18, 19  # places in augment.plan, after 16 jitters
PLAIN = Policy(
    rotate=False,
    scale=(1, 1),
    jitter=(0, 0, 0, 0),
    jitter_p=0,
    blur_p=(0, 0),
    ratio=(1, 1),
    flip_p=0,
)


def test_nothing_drawn_is_the_central_view():
    for view in (0, 1):
        views = apply(CROPS, draw(PLAIN, view, 0, 0, 16, range(16)), PLAIN)
        assert torch.allclose(views, VIEWS, atol=1e-6)


# ---- rotation, crop and flip ---------------------------------------------------------------------


def affine_of(box: tuple[int, int, int, int], degrees: float, flip: int) -> augment.Draws:
    """Draw nothing but a given geometry, for all crops."""
    boxes = np.tile(np.array(box), (16, 1))
    angle, flips = np.full(16, np.deg2rad(degrees)), np.full(16, float(flip))
    affine = torch.from_numpy(augment._affine(boxes, angle, flips))
    return draw(PLAIN, 0, 0, 0, 16, range(16))._replace(affine=affine)


@given(st.floats(0, 360))
@settings(max_examples=400)
def test_rotation_never_shows_a_padded_corner(degrees):
    white = torch.full((16, 3, CROP_PX, CROP_PX), 255, dtype=torch.uint8)
    views = apply(white, affine_of((0, 0, VIEW_PX, VIEW_PX), degrees, 1), PLAIN)
    assert views.min() > 1 - 1e-5  # grid_sample pads with black


def test_every_whole_degree_and_half_shows_no_padded_corner():
    white = torch.full((16, 3, CROP_PX, CROP_PX), 255, dtype=torch.uint8)
    for degrees in np.arange(0, 360, 0.5):
        views = apply(white, affine_of((0, 0, VIEW_PX, VIEW_PX), float(degrees), 1), PLAIN)
        assert views.min() > 1 - 1e-5, degrees


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_quarter_turns_are_exact(quarter):
    views = apply(CROPS, affine_of((0, 0, VIEW_PX, VIEW_PX), 90 * quarter, 1), PLAIN)
    assert torch.allclose(views, torch.rot90(VIEWS, quarter, (2, 3)), atol=2e-5)


@pytest.mark.parametrize("degrees", [13.0, 77.7, 200.0, 301.5])
def test_rotation_against_torchvision(degrees):
    """torchvision turns the 60-px crop and cuts its centre; both are bilinear."""
    views = apply(CROPS, affine_of((0, 0, VIEW_PX, VIEW_PX), degrees, 1), PLAIN)
    turned = TF.rotate(CROPS.float() / 255, degrees, TF.InterpolationMode.BILINEAR)
    assert torch.allclose(views, TF.center_crop(turned, [VIEW_PX, VIEW_PX]), atol=2e-4)


@pytest.mark.parametrize("box", [(0, 0, 40, 40), (3, 8, 30, 22), (10, 0, 12, 17)])
@pytest.mark.parametrize("flip", [1, -1])
def test_resized_crop_and_flip_against_torchvision(box, flip):
    """Equal but for the outermost pixels, where torchvision repeats the box's border.

    Ours goes on into the crop's surroundings, which are real pixels.
    """
    views = apply(CROPS, affine_of(box, 0, flip), PLAIN)
    expected = TF.resized_crop(VIEWS, *box, [VIEW_PX, VIEW_PX], antialias=True)
    expected = TF.horizontal_flip(expected) if flip < 0 else expected
    rim = int(np.ceil(VIEW_PX / min(box[2:]) / 2)) if box[2] < VIEW_PX else 0
    inner = slice(rim, VIEW_PX - rim)
    assert torch.allclose(views[:, :, inner, inner], expected[:, :, inner, inner], atol=1e-5)


# ---- colour, erasing, blur -----------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.4, 0.9, 1.0, 1.3, 1.7])
def test_brightness_contrast_saturation_against_torchvision(factor):
    factors = torch.full((16, 1), factor)
    for ours, theirs in [
        (augment.brightness, TF.adjust_brightness),
        (augment.contrast, TF.adjust_contrast),
        (augment.saturation, TF.adjust_saturation),
    ]:
        assert torch.allclose(ours(VIEWS.clone(), factors), theirs(VIEWS, factor), atol=1e-5), (
            theirs
        )


@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.03, 0.0, 0.1, 0.2, 0.5])
def test_hue_against_torchvision(shift):
    grey_too = torch.cat([VIEWS, VIEWS.mean(1, keepdim=True).expand_as(VIEWS)])
    ours = augment.hue(grey_too.clone(), torch.full((32, 1), shift))
    assert torch.allclose(ours, TF.adjust_hue(grey_too, shift), atol=1e-5)


def test_grey_against_torchvision():
    assert torch.allclose(
        augment.grey(VIEWS).expand_as(VIEWS), TF.rgb_to_grayscale(VIEWS, 3), atol=1e-5
    )


def test_blur_against_torchvision():
    sigma = torch.linspace(0.1, 2, 16)
    ours = augment.blur(VIEWS, sigma[:, None], 9)
    for i in range(16):
        theirs = TF.gaussian_blur(VIEWS[i], [9, 9], [float(sigma[i])])
        assert torch.allclose(ours[i], theirs, atol=1e-5)


def test_jitter_in_each_samples_own_order():
    policy = Policy(**{**PLAIN.__dict__, "jitter": (0.6, 0.7, 0.5, 0.2), "jitter_p": 0.7})
    draws = draw(policy, 0, 1, 2, 16, range(16))
    views = apply(CROPS, draws, policy)
    theirs = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
    orders = set()
    for i in range(16):
        turns = [k % 4 for k, rows in enumerate(draws.rows.split(draws.counts)[:16]) if i in rows]
        orders.add(tuple(turns))
        expected = VIEWS[i]
        for operation in turns:
            expected = theirs[operation](expected, float(draws.values[i, operation]))
        assert torch.allclose(views[i], expected, atol=1e-4)
        assert sorted(turns) in ([], [0, 1, 2, 3])
    assert () in orders
    assert len(orders) > 5


def test_erase_grey_and_blur_in_the_papers_order():
    policy = Policy(**{**PLAIN.__dict__, "erase_p": 1, "grey_p": 1, "blur_p": (1, 1)})
    draws = draw(policy, 0, 0, 0, 16, range(16))
    views = apply(CROPS, draws, policy)
    for i in range(16):
        top, left, height, width = draws.values[i, 4:8].int().tolist()
        x = TF.erase(TF.rgb_to_grayscale(VIEWS[i], 3), top, left, height, width, torch.zeros(1))
        x = TF.gaussian_blur(x, [9, 9], [float(draws.values[i, 8])])
        assert torch.allclose(views[i], x, atol=1e-5)


def test_solarize_against_torchvision():
    policy = Policy(**{**PLAIN.__dict__, "solarize_p": (0, 1)})
    first, second = (apply(CROPS, draw(policy, v, 0, 0, 16, range(16)), policy) for v in (0, 1))
    assert torch.allclose(first, VIEWS, atol=1e-6)
    inner = (VIEWS - 128 / 255).abs() > 1e-5
    assert torch.allclose(second[inner], TF.solarize(VIEWS, 128 / 255)[inner], atol=1e-5)


# ---- the draws -----------------------------------------------------------------------------------


def flat(draws: augment.Draws) -> list[torch.Tensor]:
    """Return a view's draws as per-row tensors: affine, values, which operations touch the row."""
    touched = torch.zeros(len(draws.affine), len(draws.counts), dtype=torch.bool)
    for k, rows in enumerate(draws.rows.split(draws.counts)):
        touched[rows, k] = True
    return [draws.affine, draws.values, touched]


@given(st.integers(1, 64), st.integers(0, 10**6), st.data())
def test_draws_do_not_depend_on_the_ranks(batch, step, data):
    policy = POLICIES["a1+gray"]
    cuts = sorted(data.draw(st.lists(st.integers(0, batch), max_size=3)))
    whole = flat(draw(policy, 1, 7, step, batch, range(batch)))
    ends = [0, *cuts, batch]
    parts = [flat(draw(policy, 1, 7, step, batch, range(a, b))) for a, b in pairwise(ends)]
    for i, expected in enumerate(whole):
        assert torch.equal(torch.cat([p[i] for p in parts]), expected)


def test_views_steps_and_seeds_draw_independently():
    policy = POLICIES["a1+gray"]
    some = [
        draw(policy, v, seed, step, 64, range(64)).affine.flatten()
        for seed, step, v in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0)]
    ]
    for i, a in enumerate(some):
        for b in some[:i]:
            assert not torch.equal(a, b)
            assert abs(np.corrcoef(a.numpy(), b.numpy())[0, 1]) < 0.25


def test_resized_crops_follow_torchvisions_law():
    """Quantiles of box width, height and place agree with torchvision's own draws."""
    n = 4000
    for name in ("a0", "a1"):
        policy = POLICIES[name]
        u = np.random.default_rng(0).random((2 * n, augment.ATTEMPTS))
        single = np.random.default_rng(1).random((2, n))
        ours = augment._boxes(u[:n], u[n:], policy.scale, policy.ratio, *single)
        image = torch.zeros(3, VIEW_PX, VIEW_PX)
        torch.manual_seed(0)
        crop = RandomResizedCrop(VIEW_PX, policy.scale, policy.ratio)
        theirs = np.array(
            [
                [p[k] for k in ("top", "left", "height", "width")]
                for p in (crop.make_params([image]) for _ in range(n))
            ]
        )
        quantiles = np.linspace(0.05, 0.95, 10)
        fitted = ours[ours[:, 2] > 0]
        assert len(fitted) > 0.99 * n
        difference = np.quantile(fitted, quantiles, 0) - np.quantile(theirs, quantiles, 0)
        assert np.abs(difference).max() <= 1.5
        assert abs(fitted[:, 2:].prod(1).mean() / theirs[:, 2:].prod(1).mean() - 1) < 0.03


def test_erasing_follows_torchvisions_law():
    policy, n = POLICIES["a1"], 3000
    draws = draw(policy, 0, 0, 0, 10 * n, range(10 * n))
    erased = draws.values[draws.rows.split(draws.counts)[ERASE], 4:8].numpy()
    assert abs(len(erased) / (10 * n) - policy.erase_p) < 0.01
    torch.manual_seed(0)
    erasing = RandomErasing(1.0, policy.erase_scale, policy.erase_ratio)
    image = torch.zeros(3, VIEW_PX, VIEW_PX)
    theirs = np.array(
        [[p[k] for k in "ijhw"] for p in (erasing.make_params([image]) for _ in range(n))]
    )
    quantiles = np.linspace(0.05, 0.95, 10)
    assert (
        np.abs(np.quantile(erased, quantiles, 0) - np.quantile(theirs, quantiles, 0)).max() <= 1.5
    )


def test_probabilities():
    policy, n = POLICIES["a1+gray"], 20000
    first, second = (draw(policy, v, 0, 0, n, range(n)) for v in (0, 1))
    share = [count / n for count in first.counts]
    assert sum(share[:16]) / 4 == pytest.approx(0.8, abs=0.01)
    assert max(share[:16]) < 0.8 / 4 + 0.02  # each jitter as likely in each turn
    assert share[GREY] == pytest.approx(0.2, abs=0.01)
    assert share[BLUR] == 1
    assert second.counts[BLUR] / n == pytest.approx(0.1, abs=0.01)
    assert share[SOLARIZE] == second.counts[SOLARIZE] == 0
    assert draw(POLICIES["a1"], 0, 0, 0, n, range(n)).counts[GREY] == 0
    low, high = first.values[:, :4].min(0).values, first.values[:, :4].max(0).values
    assert torch.allclose(low, torch.tensor([0.4, 0.3, 0.5, -0.2]), atol=0.01)
    assert torch.allclose(high, torch.tensor([1.6, 1.7, 1.5, 0.2]), atol=0.01)
    assert 0.1 <= first.values[:, 8].min() < 0.11
    assert 1.99 < first.values[:, 8].max() <= 2
    flipped = first.affine[:, :, :2].det() < 0
    assert abs(flipped.float().mean() - 0.5) < 0.02
    angle = torch.atan2(-first.affine[:, 0, 1], first.affine[:, 1, 1])
    share = torch.histc(angle, 12) / n  # any angle, all alike
    assert (share - 1 / 12).abs().max() < 0.01
    still = draw(POLICIES["a0"], 0, 0, 0, n, range(n)).affine
    assert (still[:, 0, 1] == 0).all()


def test_a_large_batch_equals_its_chunks_and_each_sample_alone():
    policy, n = POLICIES["a1+gray"], 150
    crops = CROPS.repeat(10, 1, 1, 1)[:n]
    whole = apply(crops, draw(policy, 0, 0, 0, n, range(n)), policy)
    for i in range(0, n, 7):
        one = apply(crops[i : i + 1], draw(policy, 0, 0, 0, n, range(i, i + 1)), policy)
        assert torch.allclose(one[0], whole[i], atol=1e-5)
