"""Channel surrogates: the same statistics as the channels they stand for, and gradients that reach the sender."""

import pytest
import torch

from splitsem.transport.channels.snr import bpsk_ber
from splitsem.transport.channels.surrogates import (
    BitFlips,
    Erasures,
    GaussianNoise,
    RayleighFading,
    bit_error_rate,
    codeword_transitions,
    normalise_power,
)

SNRS = torch.tensor([-3.0, 0.0, 5.0])
NATURAL = torch.tensor([[i >> k & 1 for k in (2, 1, 0)] for i in range(8)])


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_bit_error_rate_is_that_of_the_real_channel() -> None:
    assert bit_error_rate(SNRS).tolist() == pytest.approx([bpsk_ber(float(s)) for s in SNRS], rel=1e-5)


def within_4_sigma(rates: torch.Tensor, num: int) -> bool:
    expected = bit_error_rate(SNRS)
    return bool(((rates - expected).abs() < 4 * (expected * (1 - expected) / num).sqrt()).all())


def test_bits_flip_at_each_samples_own_rate_and_gradients_pass_straight_through() -> None:
    bits = torch.randint(0, 2, (3, 50_000)).float().requires_grad_()
    received = BitFlips()(bits, SNRS)
    assert within_4_sigma((received - bits).abs().detach().mean(1), 50_000)
    assert set(received.detach().round().unique().tolist()) == {0.0, 1.0}
    weights = torch.randn(3, 50_000)
    (received * weights).sum().backward()
    assert torch.equal(bits.grad, weights)


def test_noisy_symbols_decided_by_sign_are_wrong_at_the_rate_of_bpsk() -> None:
    symbols = torch.randn(3, 50_000).sign()
    assert within_4_sigma((GaussianNoise()(symbols, SNRS).sign() != symbols).float().mean(1), 50_000)


def test_faded_symbols_are_wrong_at_the_rate_of_the_closed_form() -> None:
    symbols = torch.randn(1, 200_000).sign()
    rate = (RayleighFading(block_symbols=1)(symbols, 5.0).sign() != symbols).float().mean().item()
    mean = 10**0.5
    expected = 0.5 * (1 - (mean / (1 + mean)) ** 0.5)
    assert abs(rate - expected) < 4 * (expected / 200_000) ** 0.5


def test_one_gain_serves_a_whole_sample() -> None:
    noise = RayleighFading()(torch.zeros(2000, 200), 0.0).std(1)
    assert noise.max() > 5 * noise.median()
    assert GaussianNoise()(torch.zeros(2000, 200), 0.0).std(1).max() < 1.5 * 0.5**0.5


def test_packets_vanish_whole_and_without_gradient() -> None:
    x = torch.ones(400, 4, 6, requires_grad=True)
    kept = Erasures(packet_values=8)(x, 0.25)
    kept.sum().backward()
    packets = kept.detach().reshape(400, 3, 8)
    assert ((packets.sum(2) == 0) | (packets.sum(2) == 8)).all()
    assert abs((packets == 0).float().mean().item() - 0.25) < 4 * (0.25 * 0.75 / 1200) ** 0.5
    assert torch.equal(x.grad, kept.detach())


def test_transitions_are_what_flipped_codewords_do() -> None:
    p = 0.158
    table = codeword_transitions(p, NATURAL)
    assert torch.allclose(table.sum(1), torch.ones(8))
    assert 1 - table[0, 0].item() == pytest.approx(1 - (1 - p) ** 3)
    assert table[0, 7].item() == pytest.approx(p**3, rel=1e-4)
    assert codeword_transitions(torch.tensor([0.0, 0.1]), NATURAL).shape == (2, 8, 8)


def test_methods_symbol_error_rates() -> None:
    """Three-bit symbols at −6, 0 and 7 dB: 0.56, 0.22 and 0.0023."""
    table = codeword_transitions(bit_error_rate(torch.tensor([-6.0, 0.0, 7.0])), NATURAL)
    assert (1 - table[:, 0, 0]).tolist() == pytest.approx([0.56, 0.22, 0.0023], rel=0.02)


def test_power_is_normalised_a_sample() -> None:
    scaled = normalise_power(torch.randn(4, 3, 5) * torch.tensor([1e-3, 1, 10, 1e4])[:, None, None])
    assert torch.allclose(scaled.square().mean((1, 2)), torch.ones(4), rtol=1e-4)


@pytest.mark.parametrize("channel", [BitFlips(), GaussianNoise(), RayleighFading()])
def test_a_wrong_number_of_snrs_is_named(channel: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="one value for each of 4 samples"):
        channel(torch.zeros(4, 2), SNRS)
