"""RateController: within its bounds, steady on a steady link, and behind a changing one by a few rounds at most."""

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.rounds import rounds_over, write_trace
from splitsem.federated.rate_controller import (
    HEADER_BYTES,
    Observation,
    PayloadSizes,
    Rate,
    RateController,
    bits_per_value,
)
from splitsem.links.trace import TraceLink

RAW_VALUES = 100_000
MBPS = 1e6


def payload_bytes(rate: Rate, number: int = 0) -> int:
    """Sizes that differ from the estimate, more so at high widths, as entropy-coded ones do."""
    return 90 + round(RAW_VALUES * bits_per_value(rate) / 8 * (0.95 - 0.03 * rate.bit_width))


def seen(up_bps: float, rtt_s: float = 0.05, loss: float = 0.0) -> Observation:
    return Observation(rtt_s, loss, up_bps, up_bps)


def widths_for(controller: RateController, observations: list[Observation]) -> list[int]:
    """Bit widths of rounds whose uploads take what the observed link says."""
    widths = []
    for observation in observations:
        controller.observe("a", observation)
        rate = controller.choose("a", RAW_VALUES)
        size = payload_bytes(rate)
        controller.sent("a", rate, size, (observation.rtt_s + 8 * size / observation.up_bps) / (1 - observation.loss))
        widths.append(rate.bit_width)
    return widths


@settings(max_examples=150, deadline=None)
@given(
    bounds=st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted),
    keep=st.floats(0.001, 1.0),
    deadline_s=st.floats(1e-3, 1e3),
    rounds=st.lists(
        st.tuples(st.floats(0, 10), st.floats(0, 1), st.floats(1e2, 1e10), st.integers(1, 10**8), st.floats(1e-4, 1e4)),
        max_size=12,
    ),
)
def test_rates_stay_within_their_bounds_whatever_is_observed(bounds, keep, deadline_s, rounds):
    low, high = bounds
    controller = RateController(deadline_s, low, high, keep)
    for rtt_s, loss, up_bps, raw_values, seconds in rounds:
        rate = controller.choose("a", raw_values)
        assert 1 <= low <= rate.bit_width <= high <= 8
        assert keep <= rate.keep_ratio <= 1
        assert rate.keep_ratio == 1 or rate.bit_width == low
        controller.sent("a", rate, raw_values, seconds)
        controller.observe("a", Observation(rtt_s, loss, up_bps, up_bps))
    assert controller.choose("a", 1) in controller.ladder


@settings(max_examples=100, deadline=None)
@given(data=st.data(), up_mbps=st.floats(0.05, 20), headroom=st.floats(0.1, 0.5), patience=st.integers(1, 4))
def test_no_noise_within_the_headroom_ever_lowers_the_rate_of_a_steady_link(data, up_mbps, headroom, patience):
    """headroom ≥ 2x / (1 + x), see the class; sizes are those of the estimate here, so none is a surprise."""
    x = 0.999 * headroom / (2 - headroom)
    wrong = st.floats(1 - x, 1 + x)
    controller, widths = RateController(1.0, headroom=headroom, patience=patience), []
    for up, rtt in data.draw(st.lists(st.tuples(wrong, wrong), min_size=2, max_size=40)):
        controller.observe("a", seen(up * up_mbps * MBPS, rtt * 0.05))
        widths.append(controller.choose("a", RAW_VALUES).bit_width)
    assert widths == sorted(widths)


@pytest.mark.parametrize("up_mbps", [0.15, 0.3, 0.55, 0.8, 1.0, 4.0])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
def test_on_a_steady_link_with_measurement_noise_the_rate_settles(up_mbps, noise):
    """Gaussian noise in logarithms, so without a bound; 10 % is also the spread of single transfers on real links."""
    generator = np.random.default_rng(round(100 * up_mbps))
    observations = [
        seen(
            up_mbps * MBPS * float(np.exp(noise * generator.normal())), 0.05 * float(np.exp(noise * generator.normal()))
        )
        for _ in range(300)
    ]
    widths = widths_for(RateController(1.0), observations)
    assert widths == sorted(widths)  # never lowered, so never to and fro
    assert max(widths[20:]) - min(widths[20:]) <= 1


def test_the_rate_follows_a_trace_within_a_few_rounds_and_keeps_the_deadline(tmp_path):
    """4, then 0.4, then 2 Mbit/s for 40 s each: 8 bits fit, then 3, then 8."""
    path = write_trace(tmp_path / "steps.trace", [(40, 4 * MBPS), (40, 0.4 * MBPS), (40, 2 * MBPS)])
    links = {"a": TraceLink(path, rtt_s=0.05, energy_j_per_bit=0.0)}
    rounds = rounds_over(links, RateController(1.0), RAW_VALUES, payload_bytes, num_rounds=60, compute_s=1.3)

    def between(start_s: float, end_s: float) -> list[int]:
        return [r.rates["a"].bit_width for r in rounds if start_s <= r.began_s < end_s]

    fast, slow, middle = between(10, 38), between(46, 78), between(95, 118)
    assert set(fast) == {8}
    assert max(slow) <= 4
    assert max(slow) - min(slow) <= 1
    assert min(slow) >= 2
    assert min(middle) >= 7
    late = [r for r in rounds if r.upload_s > 1.0]
    assert len(late) <= 2  # the ones that met the fall


def test_a_short_peak_does_not_raise_the_rate():
    controller = RateController(1.0, patience=3, smoothing=1.0)
    steady = [seen(0.5 * MBPS)] * 10
    before = [controller.observe("a", o) or controller.choose("a", RAW_VALUES) for o in steady][-1]
    for observation in [seen(5 * MBPS), seen(5 * MBPS), *steady]:
        controller.observe("a", observation)
        assert controller.choose("a", RAW_VALUES) == before


def test_a_deep_fall_lowers_the_rate_at_once():
    controller = RateController(1.0)
    assert widths_for(controller, [seen(4 * MBPS)] * 5)[-1] == 8
    assert widths_for(controller, [seen(0.3 * MBPS)]) == [2]


def test_loss_and_round_trips_take_their_share_of_the_deadline():
    clean, lossy, far = (RateController(1.0) for _ in range(3))
    width = widths_for(clean, [seen(0.8 * MBPS)])[-1]
    assert widths_for(lossy, [seen(0.8 * MBPS, loss=0.3)])[-1] < width
    assert widths_for(far, [seen(0.8 * MBPS, rtt_s=0.4)])[-1] < width


def test_what_must_be_fetched_first_leaves_less_time_for_the_update():
    controller = RateController(1.0)
    for client in "ab":
        controller.observe(client, seen(1.2 * MBPS))
    assert controller.choose("a", RAW_VALUES, down_bytes=60_000) < controller.choose("b", RAW_VALUES)


def test_below_the_lowest_width_fewer_values_travel():
    controller = RateController(1.0, min_bits=2, min_keep_ratio=0.01)
    controller.observe("a", seen(0.05 * MBPS))
    rate = controller.choose("a", RAW_VALUES)
    assert rate.bit_width == 2
    assert 0.01 <= rate.keep_ratio < 1
    assert controller.expected_s("a", rate, RAW_VALUES) <= 1.0
    sizes = [bits_per_value(step) for step in controller.ladder]
    assert sizes == sorted(sizes, reverse=True)


def test_each_client_has_a_rate_of_its_own_and_starts_with_the_lowest():
    controller = RateController(1.0)
    assert controller.choose("new", RAW_VALUES) == Rate(1)
    assert controller.expected_s("new", Rate(1), RAW_VALUES) == inf
    for _ in range(5):
        controller.observe("fast", seen(10 * MBPS))
        controller.observe("slow", seen(0.2 * MBPS))
        rates = controller.choose("fast", RAW_VALUES), controller.choose("slow", RAW_VALUES)
    assert rates[0].bit_width == 8 > rates[1].bit_width
    controller.forget("fast")
    assert controller.choose("fast", RAW_VALUES) == Rate(1)


def test_sizes_that_were_sent_replace_the_estimate():
    sizes = PayloadSizes(smoothing=0.5)
    assert sizes.payload_bytes(Rate(8), 1000) == HEADER_BYTES + 1000
    for _ in range(20):
        sizes.sent(Rate(8), 1000, HEADER_BYTES + 400)
    assert sizes.payload_bytes(Rate(8), 1000) == pytest.approx(HEADER_BYTES + 400, rel=1e-3)
    assert sizes.payload_bytes(Rate(7), 1000) == pytest.approx(
        HEADER_BYTES + 350, rel=1e-3
    )  # the nearest that is known


def test_an_upload_that_was_given_up_lowers_the_rate():
    controller = RateController(1.0)
    controller.observe("a", seen(4 * MBPS))
    rate = controller.choose("a", RAW_VALUES)
    controller.sent("a", rate, payload_bytes(rate), seconds=30.0)
    assert controller.choose("a", RAW_VALUES) < rate


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"deadline_s": 0}, "deadline_s"),
        ({"min_bits": 0}, "min_bits"),
        ({"max_bits": 9}, "max_bits"),
        ({"min_bits": 5, "max_bits": 4}, "min_bits"),
        ({"min_keep_ratio": 0}, "min_keep_ratio"),
        ({"headroom": 1}, "headroom"),
        ({"patience": 0}, "patience"),
        ({"smoothing": 0}, "smoothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, name):
    with pytest.raises(ValueError, match=name):
        RateController(**{"deadline_s": 1.0} | settings)


@pytest.mark.parametrize("facts", [(-1, 0, 1, 1), (0, 1.5, 1, 1), (0, 0, 0, 1), (0, 0, 1, inf)])
def test_observations_that_cannot_be_are_refused(facts):
    with pytest.raises(ValueError, match="must be"):
        Observation(*facts)
