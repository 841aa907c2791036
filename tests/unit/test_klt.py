"""Klt learns centre, directions and tables in closed form; its coder chooses tables by what is decoded already."""

import contextlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs.learned.klt import Klt
from splitsem.codecs.learned.prior_codec import NeighbourPrior
from splitsem.errors import PayloadError
from splitsem_device.entropy import context, neighbours

SHAPE = (6, 5, 7)


def tables(num_entries: int, seed: int) -> context.Tables:
    chances = np.random.default_rng(seed).dirichlet(np.full(num_entries, 0.3), neighbours.NUM_CONTEXTS)
    return context.to_frequencies(chances)


def pictures(seed: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).laplace(0, spread, SHAPE).round().astype(np.int32)


def film(num: int, seed: int = 0) -> torch.Tensor:
    """A background of large values, and in each sample a small thing that has two channels in a fixed proportion."""
    generator = torch.Generator().manual_seed(seed)
    background = 10 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(99))
    z = background + 0.01 * torch.randn(num, *SHAPE, generator=generator)
    for sample, at in zip(z, torch.randint(0, 5, (num,), generator=generator), strict=True):
        sample[0, at, at] += 3
        sample[1, at, at] -= 4
    return z


def calibrated(**options) -> Klt:
    codec = Klt(SHAPE, **options).eval()
    codec.calibrate([film(40)])
    return codec


@torch.no_grad()
def error(codec: Klt, z: torch.Tensor) -> float:
    return float((codec((z,))[0] - z).square().mean())


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 99), st.sampled_from([2, 8, 64]), st.sampled_from([0.1, 2.0, 3000.0]))
def test_any_integers_come_back_with_any_tables(seed, num_entries, spread):
    table, integers = tables(num_entries, seed), pictures(seed, spread).clip(-(1 << 15), (1 << 15) - 1)
    assert np.array_equal(neighbours.decode(neighbours.encode(integers, table), SHAPE, table), integers)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.binary(max_size=60))
def test_any_bytes_are_integers_or_a_payload_error(body):
    with contextlib.suppress(PayloadError):
        assert neighbours.decode(body, SHAPE, tables(8, 0)).shape == SHAPE


def test_a_context_depends_on_nothing_that_is_decoded_later():
    integers = pictures(0)
    known = neighbours.contexts(integers).reshape(-1)
    for at in range(0, integers.size, 17):
        other = integers.copy()
        other.reshape(-1)[at:] += 5
        assert np.array_equal(neighbours.contexts(other).reshape(-1)[: at + 1], known[: at + 1])


def test_a_code_is_at_most_four_bytes_longer_than_its_information():
    table, integers = tables(64, 1), pictures(1)
    rows = neighbours.contexts(integers).reshape(-1)
    bits = -np.log2(table[rows, integers.reshape(-1) + 31] / (1 << context.SCALE_BITS)).sum()
    assert bits / 8 <= len(neighbours.encode(integers, table)) <= bits / 8 + 5


def test_counted_tables_make_shorter_codes_and_the_estimate_comes_true():
    samples = torch.from_numpy(np.stack([pictures(seed, 0.3) for seed in range(30)])).float().flatten(2)
    prior = NeighbourPrior(SHAPE)
    before = sum(len(prior.encode(sample)) for sample in samples)
    prior.count(samples)
    measured = sum(len(prior.encode(sample)) for sample in samples) / len(samples)
    assert measured < 0.8 * before / len(samples)
    assert measured == pytest.approx(float(prior.bits(samples).detach().sum((1, 2)).mean()) / 8, abs=5)
    assert torch.equal(prior.decode(prior.encode(samples[0]), 35), samples[0])


def test_the_estimates_gradient_is_what_the_next_integer_would_cost():
    prior = NeighbourPrior((1, 1, 1))
    y = torch.tensor([[[0.3]]], requires_grad=True)
    prior.bits(y).sum().backward()
    one, zero = (float(prior.bits(torch.tensor([[[value]]])).detach()) for value in (1.0, 0.0))
    assert float(y.grad) == pytest.approx(one - zero, rel=1e-4)


def test_the_first_direction_is_that_of_the_largest_residual():
    codec = calibrated(centre="position")
    first = codec.encoder.weight.detach()[0, :, 0, 0]
    expected = torch.tensor([0.6, -0.8, 0, 0, 0, 0])
    assert abs(float(first / first.norm() @ expected)) == pytest.approx(1, abs=1e-3)


def test_a_still_background_costs_next_to_nothing():
    z = film(8, seed=1)
    by_position, by_channel = (len(calibrated(centre=c, step=0.5).encode((z,))) for c in ("position", "channel"))
    assert by_position < 0.3 * by_channel


@pytest.mark.parametrize("centre", ["channel", "position"])
def test_a_smaller_step_sends_more_bytes_and_errs_less(centre):
    z, sizes, errors = film(8, seed=1), [], []
    for step in (4.0, 1.0, 0.25):
        codec = calibrated(centre=centre, step=step)
        payload = codec.encode((z,))
        sizes.append(len(payload))
        errors.append(float((codec.decode(payload)[0] - z).square().mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_the_error_is_that_of_rounding():
    codec = calibrated(step=0.5)
    z = film(20, seed=1)
    rms = float((z - codec.mean).square().mean().sqrt())
    assert error(codec, z) <= (0.5 * rms) ** 2 / 12 * 1.3


def test_fewer_channels_of_the_code_keep_the_directions_that_matter():
    whole, few = calibrated(centre="position", step=0.1), calibrated(centre="position", step=0.1, code_channels=1)
    z = film(8, seed=1)
    errors = [error(codec, z) for codec in (whole, few)]
    assert few.encoder_bytes < whole.encoder_bytes
    assert errors[1] < 3 * errors[0] + 1e-4 < float((whole.mean - z).square().mean())


def test_the_edges_weights_hold_the_background():
    assert calibrated(centre="position").encoder_bytes - calibrated().encoder_bytes == 4 * 6 * (5 * 7 - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": 0.0}, "step must be above 0, got 0.0"),
        ({"centre": "pixel"}, "centre must be one of channel, position, got 'pixel'"),
        ({"code_channels": 7}, "code_channels must be null or from 1 to the tensor's 6, got 7"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Klt(SHAPE, **options)
