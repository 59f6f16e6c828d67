"""Stains in torch against torchstain's and tiatoolbox's formulas; LAB templates and policies."""

import json

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from shards.colour import mixture, stain_vectors
from shards.read import Shards
from shards.schema import CROP_PX
from shards.stain import REFERENCE, REFERENCE_MAX, Stain
from train.augment import apply, draw, plan
from train.policy import POLICIES, Policy, policy_for
from train.stain_transform import (
    MIN_SD,
    augment,
    draw_templates,
    fit,
    from_lab,
    mix,
    reinhard,
    restain,
    stack,
    to_lab,
    unmix,
)

RNG = np.random.default_rng(0)
STANDARD = stack([Stain(REFERENCE, REFERENCE_MAX, fallback=True)])
BLUISH = np.array([[0.65, 0.70, 0.29], [0.10, 0.90, 0.42]])
BLUISH /= np.linalg.norm(BLUISH, axis=1, keepdims=True)


def paint(matrix: np.ndarray, count: int = 12, side: int = 24) -> np.ndarray:
    """Return (N, 3, H, W) uint8 images of one slide: pure pixels of either stain, and mixtures."""
    amount = RNG.gamma(2.0, 0.35, (count, side * side, 2)) + 0.1
    amount[:, ::5, 0], amount[:, 1::5, 1] = 0, 0
    rgb = np.clip(240 * np.exp(-amount @ matrix) - 1, 0, 255).round().astype(np.uint8)
    return rgb.reshape(count, side, side, 3).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def slide() -> torch.Tensor:
    return torch.from_numpy(paint(BLUISH))


# ---- Macenko -------------------------------------------------------------------------------------


def torchstain_normalise(image: np.ndarray, matrix, maximum, target, target_maximum) -> np.ndarray:
    """torchstain, normalizers/macenko.py, after the fit: OD, lstsq, 240 exp(-HE C); (P, 3)."""
    density = -np.log((image.astype(np.float64) + 1) / 240)  # (P, 3)
    c = np.linalg.lstsq(matrix.T, density.T, rcond=None)[0]  # (2, P)
    c *= (target_maximum / maximum)[:, None]
    return np.clip(240 * np.exp(-target.T @ c), 0, 255).T


def pixels(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).reshape(-1, 3).numpy()


def test_restaining_is_torchstains_normalisation(slide):
    stain = fit(slide)
    assert not stain.fallback
    assert (np.sum(stain.matrix * BLUISH, axis=1) > 0.995).all()
    found = restain(slide.float() / 255, stack([stain]), STANDARD)
    expected = torchstain_normalise(
        pixels(slide), stain.matrix, stain.max_concentration, REFERENCE, REFERENCE_MAX
    )
    inside = (expected < 255).all(1)
    assert inside.mean() > 0.9
    # torchstain does not take the 1 off again that the density added
    assert np.abs(pixels(found * 255) + 1 - expected)[inside & (expected > 1).all(1)].max() < 0.01


def test_torchstain_itself(slide):
    import torchstain

    theirs = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    stain = fit(slide)
    whole = pixels(slide).reshape(1, -1, 3)
    theirs.fit(pixels(torch.from_numpy(paint(REFERENCE))).reshape(1, -1, 3))
    target = Stain(theirs.HERef.T, theirs.maxCRef.ravel(), False)
    normal, _, _ = theirs.normalize(whole)
    found = pixels(restain(slide.float() / 255, stack([stain]), stack([target])) * 255)
    # they cut decimals off, and their fit differs in the fourth decimal
    assert np.abs(found + 0.5 - normal.reshape(-1, 3)).max() < 3
    assert np.abs(found + 0.5 - normal.reshape(-1, 3)).mean() < 0.5


def test_restaining_is_tiatoolboxs_transform_but_for_the_white(slide):
    """tiatoolbox, stainnorm.py: density of 255, no 1 added; stains and percentiles its own."""
    density = np.maximum(-np.log(np.maximum(pixels(slide), 1) / 255), 1e-6)
    c = np.linalg.lstsq(BLUISH.T, density.T, rcond=-1)[0].T
    c *= REFERENCE_MAX / np.percentile(c, 99, axis=0)
    expected = np.clip(255 * np.exp(-c @ REFERENCE), 0, 255)
    stain = fit(slide)
    source = Stain(BLUISH, stain.max_concentration, False)
    found = pixels(restain(slide.float() / 255, stack([source]), STANDARD) * 255)
    assert np.abs(found - expected).mean() < 6
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.995


@pytest.mark.parametrize("glass", [True, False])
def test_augmentation_is_torchstains_and_tiatoolboxs(slide, glass):
    """C * α + β, everywhere (torchstain), or in tissue alone (tiatoolbox)."""
    images = slide.clone()
    images[:, :, :4] = 243  # glass
    factor, shift = torch.rand(12, 2) * 0.4 + 0.8, torch.rand(12, 2) * 0.4 - 0.2
    source = stack([Stain(BLUISH, REFERENCE_MAX, False)])
    found = augment(images.float() / 255, source, factor, shift, glass)
    for i in range(12):
        image = pixels(images[i : i + 1])
        density = -np.log((image.astype(np.float64) + 1) / 240)
        c = np.linalg.lstsq(BLUISH.T, density.T, rcond=None)[0].T * factor[i].numpy()
        expected = np.clip(240 * np.exp(-(c + shift[i].numpy()) @ BLUISH) - 1, 0, 255)
        if not glass:
            expected[(density < 0.15).all(1)] = image[(density < 0.15).all(1)]
        assert np.abs(pixels(found[i : i + 1] * 255) - expected).max() < 0.02


def test_unmixing_and_mixing_change_nothing(slide):
    images = slide.float() / 255
    source = stack([Stain(BLUISH, REFERENCE_MAX, False)])
    again = mix(unmix(images, source), source)
    plain = (slide > 0).all(1) & (slide < 255).all(1)  # else it is clipped, and no mixture
    assert ((again - images).abs() * 255).amax(1)[plain].max() < 4  # rounded to whole grey values
    once = restain(images, source, STANDARD)  # a mixture now: unmixing loses nothing more
    assert ((restain(once, STANDARD, STANDARD) - once).abs() * 255).max() < 0.6
    neutral = augment(once, STANDARD, torch.ones(1, 2), torch.zeros(1, 2))
    assert ((neutral - once).abs() * 255).max() < 0.6


def test_each_image_has_its_own_slides_stains(slide):
    images = slide[:4].float() / 255
    stains = [Stain(m, REFERENCE_MAX * s, False) for m in (BLUISH, REFERENCE) for s in (1, 0.7)]
    together = restain(images, stack(stains), STANDARD)
    for i, stain in enumerate(stains):
        alone = restain(images[i : i + 1], stack([stain]), STANDARD)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 3, 40, 40), 255, np.uint8),
        np.zeros((4, 3, 40, 40), np.uint8),
        np.full((4, 3, 2, 2), 120, np.uint8),
        paint(np.stack([REFERENCE[0]] * 2)),  # haematoxylin alone
        RNG.integers(0, 256, (4, 3, 20, 20), np.uint8),
    ],
    ids=["white", "black", "few", "one stain", "noise"],
)
def test_hopeless_slides_stay_sound(image):
    images = torch.from_numpy(image)
    stain = fit(images)
    assert stain.fallback
    for found in (
        restain(images.float() / 255, stack([stain]), STANDARD),
        augment(images.float() / 255, stack([stain]), torch.full((1, 2), 1.2), torch.ones(1, 2)),
    ):
        assert found.isfinite().all()
        assert found.min() >= 0
        assert found.max() <= 1
    if (image == 255).all():
        assert (found == 1).all()  # glass takes no stain


def test_a_stain_that_is_all_but_absent_is_not_blown_up():
    images = torch.from_numpy(paint(REFERENCE)).float() / 255
    scant = Stain(REFERENCE, np.array([1.9, 1e-4]), False)
    found = restain(images, stack([scant]), STANDARD)
    bounded = Stain(REFERENCE, np.array([1.9, 0.1 * REFERENCE_MAX[1]]), False)
    assert torch.allclose(found, restain(images, stack([bounded]), STANDARD))


# ---- LAB -----------------------------------------------------------------------------------------


def test_lab_is_scikit_images():
    x = torch.from_numpy(RNG.random((3, 3, 9, 9)))
    lab = to_lab(x)
    last = x.permute(0, 2, 3, 1).numpy()
    assert np.abs(lab.permute(0, 2, 3, 1).numpy() - rgb2lab(last)).max() < 1e-4
    assert torch.allclose(from_lab(lab), x, atol=1e-6)
    assert torch.allclose(from_lab(to_lab(x.float())), x.float(), atol=1e-5)
    dull = to_lab(x * 0.5 + 0.25)
    theirs = lab2rgb(dull.permute(0, 2, 3, 1).numpy())
    assert np.abs(from_lab(dull).permute(0, 2, 3, 1).numpy() - theirs).max() < 1e-4
    for value in (0.0, 1.0):
        assert torch.allclose(
            from_lab(to_lab(torch.full((1, 3, 2, 2), value))), torch.tensor(value)
        )


def test_the_reinhard_step_gives_the_templates_statistics():
    """In the units in which shards/colour.py measured them."""
    crops = (RNG.random((3, 6, 40, 40)) * 60 + 90).astype(np.uint8)
    x = torch.from_numpy(crops).permute(1, 0, 2, 3).float() / 255
    own = torch.from_numpy(stain_vectors(crops)).float()
    assert ((reinhard(x, own) - x).abs() * 255).max() < 0.6  # its own statistics: unchanged
    template = own + torch.tensor([5.0, -4.0, 6.0, 1.0, 2.0, -1.0])
    found = to_lab(reinhard(x, template)).flatten(2)
    assert (found.mean(2) - template[:, :3]).abs().max() < 0.05
    assert (found.std(2, correction=0) - template[:, 3:]).abs().max() < 0.05
    # by hand, RandStainNA's formula
    lab = to_lab(x)
    mean, sd = lab.mean((2, 3), keepdim=True), lab.std((2, 3), keepdim=True, correction=0)
    expected = (lab - mean) / sd * template[:, 3:, None, None] + template[:, :3, None, None]
    assert torch.allclose(reinhard(x, template), from_lab(expected), atol=1e-4)


def test_flat_images_and_negative_sds_stay_sound():
    flat = torch.full((2, 3, 8, 8), 0.5)
    template = torch.tensor([[50.0, 20, -10, 12, 6, 6], [50.0, 20, -10, -3, 0, 1]])
    found = reinhard(flat, template)
    assert found.isfinite().all()
    assert found.flatten(2).std(2).max() < 1e-4
    x = torch.rand(1, 3, 8, 8) * 0.2 + 0.4
    turned = to_lab(reinhard(x, template[1:]))
    assert turned[0, 0].std(correction=0).item() == pytest.approx(MIN_SD, rel=0.02)
    same = torch.corrcoef(torch.stack([turned[0, 0].flatten(), to_lab(x)[0, 0].flatten()]))
    assert same[0, 1] > 0.99  # dark stays dark


def test_templates_follow_the_mixture_jointly():
    true = {
        "weights": [0.7, 0.3],
        "means": RNG.normal(size=(2, 6)) * 20,
        "covariances": [np.cov(RNG.normal(size=(6, 40))) for _ in range(2)],
    }
    drawn = draw_templates(true, np.random.default_rng(0), 40000)
    first = ((drawn - true["means"][0]) ** 2).sum(1) < ((drawn - true["means"][1]) ** 2).sum(1)
    assert first.mean() == pytest.approx(0.7, abs=0.01)
    for rows, mean, covariance in zip(
        (first, ~first), true["means"], true["covariances"], strict=True
    ):
        assert np.abs(drawn[rows].mean(0) - mean).max() < 0.06
        assert np.abs(np.cov(drawn[rows].T) - covariance).max() < 0.06


# ---- policies ------------------------------------------------------------------------------------

FEW = mixture(RNG.normal(size=(25, 6)) * 3 + [50, 25, -15, 15, 6, 6], 10, 0)  # 2 components
STAINED = Policy(**{**POLICIES["a1+gmm10"].__dict__, "mixture": FEW})
CROPS = torch.from_numpy(RNG.integers(60, 220, (16, 3, CROP_PX, CROP_PX), np.uint8))


def test_stain_is_drawn_for_every_view_and_applied_first():
    assert len(FEW["weights"]) == 2
    draws = draw(STAINED, 0, 0, 5, 16, range(16))
    without = draw(POLICIES["a1"], 0, 0, 5, 16, range(16))
    assert plan(STAINED)[0][0] is reinhard
    assert torch.equal(draws.rows[:16], torch.arange(16))
    assert draws.counts == [16, *without.counts]
    assert torch.equal(draws.values[:, :9], without.values)  # all else as in a1
    assert torch.equal(draws.rows[16:], without.rows)
    template = draws.values[:, 9:]
    assert len(template.unique(dim=0)) == 16
    assert not torch.equal(template, draw(STAINED, 1, 0, 5, 16, range(16)).values[:, 9:])
    nothing = without._replace(rows=without.rows[:0], counts=[0] * len(without.counts))
    plain = apply(CROPS, nothing, POLICIES["a1"])
    stained = draws._replace(rows=draws.rows[:16], counts=[16, *nothing.counts])
    assert torch.allclose(apply(CROPS, stained, STAINED), reinhard(plain, template), atol=1e-6)


@pytest.mark.parametrize("cut", [1, 7, 16])
def test_stain_does_not_depend_on_the_ranks(cut):
    whole = draw(STAINED, 1, 3, 8, 16, range(16)).values
    parts = [draw(STAINED, 1, 3, 8, 16, r).values for r in (range(cut), range(cut, 16))]
    assert torch.equal(torch.cat(parts), whole)


def test_policies_take_the_data_sets_stains(shards_folder, tmp_path, run_stage):
    info = json.loads((shards_folder / "dataset.json").read_text())
    for name in ("gmm1", "gmm10"):
        policy = policy_for(f"a1+{name}", info)
        assert policy.mixture["weights"] == info["stain"][name]["weights"]
        draws = draw(policy, 0, 0, 0, 8, range(8))
        views = apply(torch.from_numpy(Shards(shards_folder).read(np.arange(8))), draws, policy)
        assert views.isfinite().all()
    assert policy_for("a1", info) is POLICIES["a1"]
    del info["stain"]["gmm10"]
    for broken in (info, info | {"stain": None}, {}):
        with pytest.raises(ValueError, match=r"holds no stain\.gmm10 .*mix the cells again"):
            policy_for("a1+gmm10", broken)
    with pytest.raises(ValueError, match="no policy 'a2'; there are a0, a1"):
        policy_for("a2", info)
    for path in shards_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps(info))
    flags = ["--data", tmp_path, "--out", tmp_path / "run", "--policy", "a1+gmm10"]
    done = run_stage("train/main.py", *flags)
    assert done.returncode == 2
    assert "mix the cells again" in done.stderr
    assert not (tmp_path / "run").exists()
