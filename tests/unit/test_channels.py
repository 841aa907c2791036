"""Channels: error rates against their closed forms (4σ, seeded), bursts, fading, and what they refuse."""

from itertools import groupby

import numpy as np
import pytest

from splitsem.links.channel import Bsc, Channel, Erasure, GilbertElliott, bpsk_ber, bpsk_snr_db, packed_bits
from splitsem.links.fading import Awgn, Rayleigh

SENT = np.random.default_rng(7).integers(0, 256, 50_000, dtype=np.uint8)
BITS = np.unpackbits(SENT)

MEMORYLESS = {
    **{f"bsc {p}": Bsc(p) for p in (1e-4, 0.01, 1 / 64, 0.0786, 0.3, 0.5)},
    **{f"bsc {db} dB": Bsc(ebn0_db=db) for db in (-6.0, 0.0, 7.0)},
    **{f"{m} {db} dB": Awgn(db, modulation=m) for m in ("bpsk", "qpsk") for db in (-3.0, 0.0, 4.0)},
}
CORRELATED = {  # bits that share a symbol or a gain: σ comes from independent pieces instead
    **{f"qam16 {db} dB": Awgn(db, modulation="qam16") for db in (-3.0, 3.0, 8.0)},
    **{f"rayleigh {m} {db}": Rayleigh(db, modulation=m) for m in ("bpsk", "qpsk", "qam16") for db in (0.0, 10.0)},
    "rayleigh, a gain each symbol": Rayleigh(5.0, modulation="qpsk", block_symbols=1),
    "rayleigh, blocks within bytes": Rayleigh(5.0, modulation="bpsk", block_symbols=3),
    **{f"rayleigh qam16, blocks of {n}": Rayleigh(5.0, modulation="qam16", block_symbols=n) for n in (1, 2, 3, 7)},
    "gilbert-elliott": GilbertElliott(1e-4, 0.2, 2e-3, 2e-2),
}


def wrong_bits(channel: Channel, seed: int, soft: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if soft:
        return (channel.soft(BITS, rng).llrs < 0) != BITS
    return np.unpackbits(channel.hard(SENT, rng).octets) != BITS


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", MEMORYLESS)
def test_independent_errors_come_at_the_rate_of_the_closed_form(name: str, soft: bool) -> None:
    channel = MEMORYLESS[name]
    p = channel.ber_theory
    assert p is not None
    sigma = (p * (1 - p) / len(BITS)) ** 0.5
    assert abs(wrong_bits(channel, 1, soft).mean() - p) < 4 * sigma


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", CORRELATED)
def test_dependent_errors_come_at_the_rate_of_the_closed_form(name: str, soft: bool) -> None:
    channel = CORRELATED[name]
    assert channel.ber_theory is not None
    pieces = wrong_bits(channel, 1, soft).reshape(100, -1).mean(1)  # of 4,000 bits, many bursts or gains long
    assert abs(pieces.mean() - channel.ber_theory) < 4 * pieces.std(ddof=1) / 10


def test_one_gain_for_each_payload_averages_to_the_closed_form() -> None:
    channel = Rayleigh(3.0, block_symbols=None)
    rates = [np.bitwise_count(channel.hard(SENT[:200], np.random.default_rng(s)).octets ^ SENT[:200]).mean() / 8
             for s in range(2000)]  # fmt: skip
    assert abs(np.mean(rates) - channel.ber_theory) < 4 * np.std(rates) / 2000**0.5


def test_known_values_of_the_closed_forms() -> None:
    """Independent figures: Proakis, Digital Communications; the Rayleigh limit 1/(4·SNR)."""
    assert bpsk_ber(9.6) == pytest.approx(1e-5, rel=0.05)
    assert bpsk_ber(-3.0) == pytest.approx(0.158, abs=5e-4)
    assert Awgn(10.5, modulation="qpsk").ber_theory == pytest.approx(Awgn(10.5).ber_theory)
    assert Awgn(14.0, modulation="qam16").ber_theory == pytest.approx(0.75 * bpsk_ber(14.0 - 3.979), rel=0.02)
    assert Rayleigh(30.0).ber_theory == pytest.approx(1 / 4000, rel=0.01)
    assert [round(bpsk_snr_db(bpsk_ber(db)), 6) for db in (-10.0, 0.0, 9.0)] == [-10, 0, 9]


@pytest.mark.parametrize(("name", "bits"), [("bpsk", 1), ("qpsk", 2), ("qam16", 4)])
def test_a_symbols_snr_is_a_bits_snr_times_its_bits(name: str, bits: int) -> None:
    by_symbol = Awgn(esn0_db=5.0, modulation=name)
    by_bit = Awgn(ebn0_db=5.0 - 10 * np.log10(bits), modulation=name)
    assert by_symbol.ber_theory == pytest.approx(by_bit.ber_theory)
    assert by_symbol.snr_db == pytest.approx(by_bit.snr_db)


def test_bad_spells_are_as_long_and_as_frequent_as_the_chain_says() -> None:
    channel = GilbertElliott(0.0, 0.5, good_to_bad=0.004, bad_to_good=0.02)
    states = channel.states(400_000, np.random.default_rng(3))
    spells = [len(list(run)) for is_bad, run in groupby(states.tolist()) if is_bad]
    assert abs(np.mean(spells) - 50) < 4 * 50 / len(spells) ** 0.5
    assert abs(len(spells) - 400_000 / (250 + 50)) < 4 * (250**2 + 50**2) ** 0.5 / 300 * len(spells) ** 0.5


def test_bursts_leave_more_payloads_whole_than_scattered_errors_of_the_same_rate() -> None:
    bursty = GilbertElliott(0.0, 0.3, 1e-3, 1e-2)
    scattered = Bsc(bursty.ber_theory)
    whole = [
        sum(np.array_equal(c.hard(SENT[:40], np.random.default_rng(s)).octets, SENT[:40]) for s in range(300))
        for c in (bursty, scattered)
    ]
    assert whole[0] > 100 > 10 > whole[1]


def test_packets_are_lost_whole_at_the_given_rate_and_arrive_as_zeros_or_unsure() -> None:
    channel = Erasure(0.2, packet_bytes=25)
    sent = SENT | 1
    packets = channel.hard(sent, np.random.default_rng(0)).octets.reshape(-1, 25)
    lost = (packets == 0).all(1)
    assert np.array_equal(packets[~lost], sent.reshape(-1, 25)[~lost])
    assert abs(lost.mean() - 0.2) < 4 * (0.2 * 0.8 / len(lost)) ** 0.5
    llrs = channel.soft(np.unpackbits(sent), np.random.default_rng(0)).llrs.reshape(-1, 200)
    assert np.array_equal((llrs == 0).all(1), lost)


@pytest.mark.parametrize("channel", [Bsc(0.1), Awgn(2.0, modulation="qam16"), Rayleigh(3.0), Erasure(0.3)])
def test_the_same_seed_does_the_same_damage_and_another_seed_another(channel: Channel) -> None:
    first, again, other = (channel.hard(SENT, np.random.default_rng(s)).octets for s in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("channel", [Awgn(4.0), Awgn(6.0, modulation="qam16"), Rayleigh(8.0, modulation="qpsk")])
def test_log_likelihood_ratios_say_how_often_they_are_wrong(channel: Channel) -> None:
    llrs = channel.soft(BITS, np.random.default_rng(2)).llrs
    wrong = (llrs < 0) != BITS
    for low, high in ((0.2, 0.6), (0.8, 1.2), (1.5, 2.5)):
        chosen = (np.abs(llrs) > low) & (np.abs(llrs) < high)
        expected = 1 / (1 + np.exp(np.abs(llrs[chosen]).astype(np.float64)))
        sigma = (expected * (1 - expected)).sum() ** 0.5
        assert abs(wrong[chosen].sum() - expected.sum()) < 4 * sigma


def test_a_fading_payload_reports_the_snr_that_it_met() -> None:
    channel = Rayleigh(5.0, block_symbols=None)
    reports = [channel.hard(SENT[:1000], np.random.default_rng(s)) for s in range(40)]
    rates = [np.bitwise_count(r.octets ^ SENT[:1000]).mean() / 8 for r in reports]
    for report, rate in zip(reports, rates, strict=True):
        p = bpsk_ber(report.snr_db)
        assert abs(rate - p) < 4 * (p * (1 - p) / 8000) ** 0.5 + 1e-9


@pytest.mark.parametrize("num_bytes", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.4, 1.0])
def test_error_patterns_of_any_length(num_bytes: int, p: float) -> None:
    assert len(packed_bits(num_bytes, p, np.random.default_rng(0))) == num_bytes


@pytest.mark.parametrize(
    "channel",
    [Bsc(0.1), GilbertElliott(0, 0.5, 0.1, 0.1), Erasure(1.0), Awgn(0.0, modulation="qam16"), Rayleigh(0.0)],
)
@pytest.mark.parametrize("num_bits", [0, 1, 5, 17])
def test_any_number_of_bits_passes(channel: Channel, num_bits: int) -> None:
    assert len(channel.soft(BITS[:num_bits], np.random.default_rng(0)).llrs) == num_bits
    assert len(channel.hard(SENT[:num_bits], np.random.default_rng(0)).octets) == num_bits


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bsc(0.6), "ber must be 0…0.5, got 0.6"),
        (lambda: Bsc(), "give one of ber and ebn0_db and leave the other null"),
        (lambda: Bsc(0.1, 3.0), "give one of ber and ebn0_db and leave the other null"),
        (lambda: Bsc(ebn0_db=90), "ebn0_db must be -40…60 dB, got 90"),
        (lambda: Awgn(1.0, 2.0), "give one of ebn0_db and esn0_db"),
        (lambda: Awgn(float("nan")), "ebn0_db must be -40…60 dB, got nan"),
        (lambda: Awgn(1.0, modulation="qam64"), "modulation must be one of bpsk, qpsk, qam16, got 'qam64'"),
        (lambda: Rayleigh(1.0, block_symbols=0), "block_symbols must be at least 1 or null, got 0"),
        (lambda: GilbertElliott(0, 0.1, 0, 0.1), "must be above 0 and at most 1, got 0 and 0.1"),
        (lambda: Erasure(1.2), "rate must be 0…1, got 1.2"),
        (lambda: Erasure(0.1, 0), "packet_bytes must be at least 1, got 0"),
    ],
)
def test_bad_settings_name_the_setting_the_rule_and_the_value(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
