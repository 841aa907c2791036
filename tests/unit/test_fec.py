"""Error correction: the codes against their bounds and gains."""

from math import comb

import numpy as np
import pytest
from scipy import special

from splitsem.links.channel import Bsc, Channel, GilbertElliott
from splitsem.links.fading import Awgn
from splitsem.links.fec import Code, Convolutional, Repetition, Uncoded, spread_order

CODES = [Uncoded(), Repetition(1), Repetition(5), Convolutional(), Convolutional(3)]
WEIGHTS = {10: 36, 12: 211, 14: 1404, 16: 11633, 18: 77433, 20: 502690}
"""Bit errors of all paths of each distance, 133/171 (Frenger, Orten, Ottosson, IEEE Comm. Letters 3(11), 1999)."""


def error_rate(code: Code, channel: Channel, num_bits: int, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, num_bits, dtype=np.uint8)
    return float((code.decode(channel.soft(code.encode(bits), rng).llrs, num_bits) != bits).mean())


@pytest.mark.parametrize("code", CODES, ids=lambda c: f"{type(c).__name__}{getattr(c, 'times', '')}")
@pytest.mark.parametrize("num_bits", [0, 1, 2, 13, 64, 1000])
def test_bits_come_back_over_a_clean_channel_and_in_the_size_that_was_said(code: Code, num_bits: int) -> None:
    bits = np.random.default_rng(num_bits).integers(0, 2, num_bits, dtype=np.uint8)
    coded = code.encode(bits)
    assert len(coded) == code.coded_bits(num_bits)
    assert np.array_equal(code.decode((1 - 2 * coded.astype(np.float32)), num_bits), bits)


def test_the_impulse_response_is_the_generators() -> None:
    coded = np.empty(14, np.uint8)
    coded[:] = Convolutional().encode(np.array([1], np.uint8))
    in_order = np.empty_like(coded)
    in_order[:] = coded[np.argsort(spread_order(14))]
    assert ["".join(map(str, in_order[i::2])) for i in (0, 1)] == [f"{0o171:07b}", f"{0o133:07b}"]


@pytest.mark.parametrize("times", [3, 5])
def test_repetition_on_flipped_bits_is_a_majority_vote(times: int) -> None:
    p, num_bits = 0.1, 100_000
    expected = sum(comb(times, k) * p**k * (1 - p) ** (times - k) for k in range(times // 2 + 1, times + 1))
    sigma = (expected * (1 - expected) / num_bits) ** 0.5
    assert abs(error_rate(Repetition(times), Bsc(p), num_bits) - expected) < 4 * sigma


@pytest.mark.parametrize("ebn0_db", [3.0, 3.5])
def test_soft_viterbi_stays_below_the_union_bound_and_near_it(ebn0_db: float) -> None:
    """Pb ≤ Σ B_d·Q(√(2·d·R·Eb/N0)), Eb of an information bit; near from about 3 dB on."""
    ratio = 10 ** (ebn0_db / 10)
    bound = sum(w * 0.5 * special.erfc(np.sqrt(d * 0.5 * ratio)) for d, w in WEIGHTS.items())
    num_bits = 400_000
    measured = error_rate(Convolutional(), Awgn(ebn0_db - 10 * np.log10(2)), num_bits)
    events = bound * num_bits / 6  # errors come in bursts of about six bits
    assert bound / 5 < measured < bound * (1 + 4 / events**0.5)


def test_at_3_db_the_code_gains_more_than_4_db_over_no_code() -> None:
    measured = error_rate(Convolutional(), Awgn(3.0 - 10 * np.log10(2)), 400_000)
    assert 0 < measured < Awgn(7.0).ber_theory


def test_soft_decisions_are_worth_about_two_db() -> None:
    """Hard: the same Eb/N0 of a coded bit, as a binary symmetric channel."""
    soft = error_rate(Convolutional(), Awgn(-1.0), 60_000)
    hard = error_rate(Convolutional(), Bsc(ebn0_db=-1.0), 60_000)
    hard_2_db_up = error_rate(Convolutional(), Bsc(ebn0_db=1.0), 60_000)
    assert 10 * soft < hard
    assert soft / 3 < hard_2_db_up < 3 * soft


def test_repeating_the_code_gets_through_where_the_code_alone_does_not() -> None:
    channel = Bsc(ebn0_db=-3.0)  # 0.158: beyond the capacity for rate 1/2
    assert error_rate(Convolutional(), channel, 4000) > 0.1
    assert error_rate(Convolutional(5), channel, 4000) == 0


def test_the_spread_order_takes_a_burst_apart() -> None:
    channel = GilbertElliott(0.0, 0.5, 2e-4, 1e-2)
    as_sent = error_rate(Convolutional(), channel, 200_000)

    class InRow(Convolutional):
        def encode(self, bits):
            return super().encode(bits)[np.argsort(spread_order(self.coded_bits(len(bits))))]

        def decode(self, llrs, num_bits):
            return super().decode(llrs[spread_order(len(llrs))], num_bits)

    assert 10 * as_sent < error_rate(InRow(), channel, 200_000)


@pytest.mark.parametrize("num_bits", [1, 2, 7, 100, 1024])
def test_the_spread_order_is_a_permutation(num_bits: int) -> None:
    assert sorted(spread_order(num_bits)) == list(range(num_bits))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Repetition(4), "times must be odd and 1…99, got 4"),
        (lambda: Convolutional(0), "times must be 1…99, got 0"),
    ],
)
def test_bad_settings_are_named(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
