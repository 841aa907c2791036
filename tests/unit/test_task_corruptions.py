"""Corruptions: true to their name, worse with severity, the same for a sample whenever it is drawn."""

import numpy as np
import pytest
import torch

from splitsem.tasks.corruption import Corruption, generator
from splitsem.tasks.degradations import FAMILIES, corruption

GREY = torch.full((6, 1, 32, 32), 0.5)


def keys(count: int, first: int = 0, split: int = 0, seed: int = 0) -> list[tuple[int, int, int]]:
    return [(seed, split, first + i) for i in range(count)]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Soft blobs with edges, in the 256 levels of a picture: 6 × 3 × 60 × 60."""
    coarse = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, (60, 60), mode="bilinear")
    x[:, :, 17:40, 13:31] = 1 - x[:, :, 17:40, 13:31]
    return (x * 255).round() / 255


@pytest.mark.parametrize("name", FAMILIES)
def test_every_severity_is_worse_than_the_one_before(name, pictures):
    distances = [
        (FAMILIES[name](severity=severity)(pictures, keys(6)) - pictures).square().mean().item()
        for severity in range(1, 6)
    ]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert len(set(distances)) == 5


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_corrupted_picture_is_a_picture_of_the_same_shape(name, channels, pictures):
    x = pictures[:, :channels]
    kept = x.clone()
    y = FAMILIES[name](severity=5)(x, keys(6))
    assert (y.shape, y.dtype) == (x.shape, torch.float32)
    assert torch.equal(y, (y * 255).round() / 255)
    assert 0 <= y.min() <= y.max() <= 1
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 40)])
def test_small_and_oblong_pictures_can_be_corrupted(name, size):
    x = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1))
    for severity in (1, 5):
        assert FAMILIES[name](severity=severity)(x, keys(2)).isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_sample_is_corrupted_alike_in_any_batch(name, pictures):
    family = FAMILIES[name](severity=3)
    whole = family(pictures, keys(6))
    order = [4, 0, 5]
    some = family(pictures[order], [keys(6)[i] for i in order])
    torch.testing.assert_close(some, whole[order], rtol=0, atol=1 / 255 + 1e-6)  # a level where sums differ in order
    assert (some != whole[order]).float().mean() < 0.01


@pytest.mark.parametrize("name", ["gaussian_noise", "salt_and_pepper", "shot_noise", "motion_blur", "fog", "occlusion"])
def test_samples_splits_and_seeds_draw_different_numbers(name, pictures):
    family = FAMILIES[name](severity=4)
    x = pictures[:1].expand(2, -1, -1, -1)
    one, other = family(x, keys(2))
    assert not torch.equal(one, other)
    assert not torch.equal(one, family(x, keys(2, split=1))[0])
    assert not torch.equal(one, family(x, keys(2, seed=1))[0])


def test_random_streams_have_nothing_in_common():
    seen = {generator(*key).integers(2**63) for key in [*keys(500), *keys(500, split=2), *keys(500, seed=9)]}
    assert len(seen) == 1500


def test_gaussian_noise_has_its_mean_and_standard_deviation():
    noise = FAMILIES["gaussian_noise"](std=0.1)(GREY, keys(6)) - GREY
    n = noise.numel()
    assert noise.mean().abs().item() < 4 * 0.1 / n**0.5
    assert noise.std().item() == pytest.approx(0.1, abs=4 * 0.1 / (2 * n) ** 0.5)


def test_salt_and_pepper_hits_its_share_of_the_pixels_in_all_channels():
    x = GREY.expand(-1, 3, -1, -1)
    y = FAMILIES["salt_and_pepper"](probability=0.2)(x, keys(6))
    n = y[:, 0].numel()
    for value, share in ((0.0, 0.1), (1.0, 0.1)):
        hit = (y == value).float()
        assert hit.mean().item() == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5)
        assert torch.equal(hit[:, 0], hit[:, 1])


def test_shot_noise_is_brighter_where_there_is_light_and_has_the_variance_of_photons():
    y = FAMILIES["shot_noise"](photons=100)(GREY / 2, keys(6))
    assert y.mean().item() == pytest.approx(0.25, abs=0.005)
    assert y.var().item() == pytest.approx(0.25 / 100, rel=0.1)
    assert FAMILIES["shot_noise"](photons=5)(torch.zeros(1, 1, 8, 8), keys(1)).max() == 0


@pytest.mark.parametrize("name", ["gaussian_blur", "motion_blur"])
def test_blur_keeps_the_light_and_an_even_picture(name):
    family = FAMILIES[name](severity=5)
    assert torch.allclose(family(GREY, keys(6)), GREY, atol=1 / 255)
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    assert family.apply(point, torch.tensor([[0.3]])).sum().item() == pytest.approx(1, abs=0.01)


def test_motion_blur_smears_along_its_angle():
    point = torch.zeros(1, 1, 33, 33)
    point[..., 16, 16] = 1
    smeared = FAMILIES["motion_blur"](length=0.3).apply(point, torch.zeros(1, 1))[0, 0]
    assert (smeared.sum(0) > 0).sum() > 8
    assert (smeared.sum(1) > 1e-6).sum() == 1


def test_occlusion_covers_its_area_with_one_whole_square():
    y = FAMILIES["occlusion"](area=0.25)(torch.zeros(20, 1, 32, 32), keys(20))
    covered = y > 0
    assert (covered.sum((1, 2, 3)) == 256).all()
    assert (covered.any(3).sum((1, 2)) == 16).all()


def test_contrast_keeps_the_mean_and_brightness_shifts_it(pictures):
    flat = FAMILIES["contrast"](factor=0.3)(pictures, keys(6))
    assert (flat.mean((2, 3)) - pictures.mean((2, 3))).abs().max() < 1 / 255
    assert torch.allclose(FAMILIES["brightness"](shift=-0.5)(GREY, keys(6)), torch.zeros(()), atol=1 / 255)


def test_settings_name_a_family_or_give_a_finished_corruption():
    made = corruption({"corruption": "salt_and_pepper", "probability": 0.18})
    assert str(made) == "salt_and_pepper probability 0.18"
    assert corruption({"corruption": "gaussian_noise", "severity": 5}).value == 0.38
    assert corruption(made) is made


BAD = [
    ({"corruption": "rain"}, r"corruption must be one of gaussian_noise, .*, occlusion, got 'rain'"),
    ({"severity": 3}, "a domain must be like"),
    ("fog", "a domain must be like"),
    ({"corruption": "fog", "severity": 6}, "severity of fog must be a whole number 1…5, got 6"),
    ({"corruption": "fog", "severity": 2.5}, "whole number 1…5, got 2.5"),
    ({"corruption": "fog"}, "needs either density or severity, neither is given"),
    ({"corruption": "fog", "severity": 1, "density": 0.2}, "both are given"),
    ({"corruption": "fog", "sigma": 0.2}, "fog takes density or severity, got sigma"),
    ({"corruption": "fog", "density": 1.2}, "density of fog must be 0…1, got 1.2"),
    ({"corruption": "gaussian_noise", "std": -0.1}, "std of gaussian_noise must be at least 0, got -0.1"),
    ({"corruption": "jpeg", "quality": 0}, "quality of jpeg must be 1…100, got 0"),
    ({"corruption": "gaussian_noise", "std": float("nan")}, "must be at least 0, got nan"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_a_wrong_setting_is_refused_with_what_is_allowed(settings, message):
    with pytest.raises(ValueError, match=message):
        corruption(settings)


def test_a_family_of_ones_own_needs_no_registration():
    class Negative(Corruption):
        name, parameter, severities = "negative", "amount", (0.2, 0.4, 0.6, 0.8, 1.0)

        def apply(self, x: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
            return x + self.value * (1 - 2 * x)

    assert np.allclose(corruption(Negative(1.0, None))(torch.ones(1, 1, 2, 2), keys(1)), 0)
