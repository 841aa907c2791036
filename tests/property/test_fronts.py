"""Properties of the front with ties."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from splitsem.intervals import half_width
from splitsem.report.fronts import Draws, front, gaps
from splitsem.report.pareto import pareto_front

_HZ = st.one_of(st.sampled_from([100.0, 101.0, 102.5, 200.0]), st.floats(1.0, 1e4))
_CONFIGURATION = st.tuples(_HZ, st.integers(0, 12), st.sampled_from([0, 1, 4]))
_SWEEP = st.lists(_CONFIGURATION, min_size=1, max_size=12)
_NOISE = np.random.default_rng(0).normal(size=(13, 60))


def _sweep(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Throughputs, scores and draws: samples that all share, and noise of each score's own."""
    hz, score, noise = (np.array(column, float) for column in zip(*rows, strict=True))
    draws = np.stack([score[i] + _NOISE[-1] + noise[i] * _NOISE[i] for i in range(len(rows))])
    return hz, score, draws


def _stated(hz, score, draws) -> tuple[list[str], list[float]]:
    """The rule of ``front`` again, pair by pair."""
    n = range(len(hz))

    def better(i, j):
        return score[i] - score[j] > half_width(draws[i] - draws[j])

    def near(i, j):
        return abs(hz[i] - hz[j]) <= 0.02 * max(hz[i], hz[j])

    def dominates(i, j):
        same = score[i] == score[j] and np.ptp(draws[i] - draws[j]) == 0
        return hz[i] >= hz[j] and (better(i, j) or (same and not near(i, j)))

    kind, group = [""] * len(hz), [float("nan")] * len(hz)
    groups: list[dict] = []
    walk = [i for i in n if not any(dominates(j, i) for j in n)]
    for i in sorted(walk, key=lambda i: (-hz[i], -score[i])):
        if all(better(i, g["leader"]) for g in groups):
            if groups and near(groups[-1]["fastest"], i):
                groups[-1]["leader"] = i
            else:
                groups.append({"leader": i, "fastest": i})
    for k, leader in enumerate(g["leader"] for g in groups):
        for i in walk:
            if near(leader, i) and not better(i, leader) and not better(leader, i):
                kind[i], group[i] = "tie", k
    for k, leader in enumerate(g["leader"] for g in groups):
        kind[leader], group[leader] = "best", k
    return kind, group


@given(_SWEEP)
def test_the_front_is_what_its_rule_says(rows):
    hz, score, draws = _sweep(rows)
    found = front(hz, *gaps(score, [Draws(d) for d in draws], np.full(len(hz), np.nan)))
    kind, group = _stated(hz, score, draws)
    assert found.kind.tolist() == kind
    np.testing.assert_array_equal(found.group, group)


@given(_SWEEP)
def test_a_leader_is_as_fast_as_any_and_each_group_has_one(rows):
    hz, score, draws = _sweep(rows)
    found = front(hz, *gaps(score, [Draws(d) for d in draws], np.full(len(hz), np.nan)))
    assert hz[found.kind == "best"].max() >= 0.98 * hz.max()
    leaders = found.group[found.kind == "best"]
    assert sorted(leaders) == list(range(len(leaders)))
    assert np.isnan(found.group[found.kind == ""]).all()
    assert set(found.group[found.kind == "tie"]) <= set(leaders)


@given(_SWEEP)
def test_without_intervals_and_with_throughputs_far_apart_the_leaders_are_the_pareto_front(rows):
    score = np.array([row[1] for row in rows], float)
    hz = 1.1 ** np.random.default_rng(1).permutation(len(rows))
    found = front(hz, *gaps(score, [None] * len(rows), np.full(len(rows), np.nan)))
    assert (found.kind == "tie").sum() == 0
    np.testing.assert_array_equal(found.kind == "best", pareto_front(np.stack([score, hz], 1)))


def test_a_score_is_told_apart_by_paired_draws_where_the_scores_own_intervals_overlap():
    shared = np.linspace(-0.1, 0.1, 200)
    draws = [Draws(0.70 + shared), Draws(0.71 + shared)]
    own = [one.half_width for one in draws]
    assert front([2.0, 1.0], *gaps([0.70, 0.71], draws, own)).kind.tolist() == ["best", "best"]
    assert front([2.0, 1.0], *gaps([0.70, 0.71], [None, None], own)).kind.tolist() == ["best", ""]
    assert front([2.0, 1.98], *gaps([0.70, 0.71], [None, None], own)).kind.tolist() == ["best", "tie"]
    assert front([1.0, 2.0], *gaps([0.70, 0.71], draws, own)).kind.tolist() == ["", "best"]


def test_scores_of_the_same_seeds_are_paired_by_students_t():
    seeds = ("0", "1", "2")
    draws = [Draws(np.array([0.5, 0.6, 0.7]), seeds), Draws(np.array([0.51, 0.61, 0.71]), seeds)]
    _, half = gaps([0.6, 0.61], draws, [0.25, 0.25])
    np.testing.assert_allclose(half, 0.0, atol=1e-12)
    _, half = gaps([0.6, 0.61], [draws[0], draws[1]._replace(seeds=("0", "1", "3"))], [0.3, 0.4])
    np.testing.assert_allclose(half, [[0, 0.5], [0.5, 0]])


def test_the_better_one_of_two_equally_fast_leads():
    gap, half = gaps([0.5, 0.9], [None, None], [0.01, 0.01])
    assert front([100.0, 99.0], gap, half).kind.tolist() == ["", "best"]
    assert front([100.0, 97.0], gap, half).kind.tolist() == ["best", "best"]
    assert front([100.0, 97.0], gap, half, [3.0, 3.0]).kind.tolist() == ["", "best"]


def test_what_has_no_throughput_or_no_score_is_not_on_the_front():
    gap, half = gaps([0.5, np.nan, 0.9], [None] * 3, [np.nan] * 3)
    assert front([1.0, 5.0, np.nan], gap, half).kind.tolist() == ["best", "", ""]
    assert front([], np.empty((0, 0)), np.empty((0, 0))).kind.tolist() == []
