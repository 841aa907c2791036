"""Properties of the Bjøntegaard delta rate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import PchipInterpolator

from splitsem.report.bd_rate import Curve, bd_rate

_STEPS = st.lists(st.tuples(st.floats(0.01, 0.2), st.floats(1.05, 4.0)), min_size=3, max_size=6)


def _points(steps: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Rates and scores that both rise."""
    gains, factors = zip(*steps, strict=True)
    return 10.0 * np.cumprod(factors), np.cumsum(gains)


@given(_STEPS)
def test_a_curve_against_itself_costs_nothing(steps: list[tuple[float, float]]) -> None:
    curve = Curve.of(*_points(steps))
    assert bd_rate(curve, curve) == 0


@given(_STEPS, st.floats(0.1, 10))
def test_k_times_the_bytes_is_k_minus_one(steps: list[tuple[float, float]], k: float) -> None:
    rate, score = _points(steps)
    assert bd_rate(Curve.of(k * rate, score), Curve.of(rate, score)) == pytest.approx(k - 1, abs=1e-9)


@given(_STEPS, _STEPS)
def test_exchanging_the_curves_inverts_the_ratio(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> None:
    one, other = Curve.of(*_points(a)), Curve.of(*_points(b))
    if max(one.score[0], other.score[0]) < min(one.score[-1], other.score[-1]):
        assert (1 + bd_rate(one, other)) * (1 + bd_rate(other, one)) == pytest.approx(1, rel=1e-9)


@given(_STEPS, st.randoms(use_true_random=False))
def test_order_repetition_and_beaten_points_do_not_matter(steps: list[tuple[float, float]], random: object) -> None:
    rate, score = _points(steps)
    curve = Curve.of(rate, score)
    order = list(range(len(rate))) * 2
    random.shuffle(order)  # type: ignore[attr-defined]
    again = Curve.of([*rate[order], rate[-1] * 2], [*score[order], score[0]])
    np.testing.assert_array_equal(again.score, curve.score)
    np.testing.assert_array_equal(again.log_rate, curve.log_rate)


def test_numerical_integration_over_the_common_scores_agrees() -> None:
    rates = ([100, 180, 300, 900], [90, 260, 500, 700])
    scores = ([0.61, 0.7, 0.78, 0.81], [0.55, 0.72, 0.79, 0.84])
    lines = [PchipInterpolator(s, np.log10(r)) for r, s in zip(rates, scores, strict=True)]
    area, _ = quad(lambda s: lines[0](s) - lines[1](s), 0.61, 0.81, epsabs=1e-12)
    expected = 10 ** (area / 0.2) - 1
    curves = [Curve.of(r, s) for r, s in zip(rates, scores, strict=True)]
    assert bd_rate(*curves) == pytest.approx(expected, rel=1e-6)


def test_curves_that_share_no_score_are_refused() -> None:
    with pytest.raises(ValueError, match="no common scores"):
        bd_rate(Curve.of([1, 2, 3], [0.1, 0.2, 0.3]), Curve.of([1, 2, 3], [0.4, 0.5, 0.6]))


def test_too_few_points_are_refused_by_number() -> None:
    with pytest.raises(ValueError, match="needs 3 points of rising rate and score, got 2"):
        bd_rate(Curve.of([1, 2, 3], [0.1, 0.3, 0.2]), Curve.of([1, 2, 3], [0.1, 0.2, 0.3]))


@pytest.mark.parametrize(("rate", "score"), [([1, 2], [1.0]), ([0, 1], [0.1, 0.2]), ([1, 2], [0.1, float("nan")])])
def test_impossible_points_are_refused(rate: list[float], score: list[float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Curve.of(rate, score)


def test_a_score_between_two_points_costs_what_lies_between_in_logarithms() -> None:
    curve = Curve.of([10, 1000], [0.2, 0.4])
    assert np.exp(curve.log_rate_at(0.3) or 0) == pytest.approx(100)
    assert curve.log_rate_at(0.5) is None
