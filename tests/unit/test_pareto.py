"""The Pareto front equals its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from splitsem.report.pareto import pareto_front


def brute_force(points: np.ndarray) -> np.ndarray:
    def dominated(i: int) -> bool:
        return any((other >= points[i]).all() and (other > points[i]).any() for other in points)

    return np.array([not np.isnan(points[i]).any() and not dominated(i) for i in range(len(points))], dtype=bool)


# Few distinct values, so that ties and duplicates are common.
values = st.sampled_from([0.0, 1.0, 2.0, 3.0, -1.5, float("inf"), float("nan")])


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.integers(0, 25), st.integers(1, 4)).flatmap(lambda shape: arrays(float, shape, elements=values)))
def test_front_equals_brute_force(points):
    np.testing.assert_array_equal(pareto_front(points), brute_force(points))


@settings(max_examples=50, deadline=None)
@given(arrays(float, (20, 2), elements=values), st.lists(st.booleans(), min_size=2, max_size=2))
def test_minimising_is_maximising_the_negative(points, maximise):
    signs = np.where(maximise, 1.0, -1.0)
    np.testing.assert_array_equal(pareto_front(points, maximise), brute_force(points * signs))


def test_equal_points_are_all_on_the_front():
    assert pareto_front([[1, 2], [1, 2], [0, 2]]).tolist() == [True, True, False]


def test_ten_thousand_points_take_well_under_a_second():
    points = np.random.default_rng(0).normal(size=(10_000, 2))
    mask = pareto_front(points)
    front = points[mask][np.argsort(points[mask][:, 0])]
    assert 1 < mask.sum() < 100
    assert (np.diff(front[:, 1]) < 0).all()


@pytest.mark.parametrize("points", [[1, 2, 3], [[[1]]]])
def test_points_must_be_rows(points):
    with pytest.raises(ValueError, match="points must have shape"):
        pareto_front(points)


def test_every_objective_needs_a_direction():
    with pytest.raises(ValueError, match="maximise must name all 2 objectives, got 1"):
        pareto_front([[1, 2]], maximise=[True])
