"""Solvers: the exact one is never worse than the relaxed ones, ties are settled, slack is true."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from splitsem.search import fronts
from splitsem.search.damage import DamageTable
from splitsem.search.exact import Exact
from splitsem.search.objective import TierWork, cycle, energy, latency, t_eff
from splitsem.search.problem import LinkCost, Problem, function_equivalent, fused_gammas
from splitsem.search.progressive import Progressive
from splitsem.search.relaxed import Relaxed
from splitsem.search.solution import optimality_gap
from tests.conftest import ROOT
from tests.optimise_instances import instance


def chain(num_units: int = 10, seed: int = 0, work: bool = False) -> Problem:
    """Units with all 14 γ, an edge about five times as slow as the server."""
    rng = np.random.default_rng(seed)
    server_s = rng.uniform(0.5e-3, 1.5e-3, (num_units, 14))
    rows = TierWork(rng.uniform(1e6, 1e8, (num_units, 14)), np.full((num_units, 14), 1e6), 1e11, 1e10)
    return Problem(
        tuple(f"u{i}" for i in range(num_units)),
        5 * server_s * rng.uniform(0.7, 1.3, server_s.shape),
        server_s,
        np.linspace(150e3, 4e3, num_units + 1),
        LinkCost(1e-3, 1e-7),
        rows if work else None,
        rows if work else None,
    )


def damages(num_units: int = 10, seed: int = 0) -> DamageTable:
    values = np.random.default_rng(seed).exponential(0.01, (num_units, 7))
    values[:, 6] = 0
    return DamageTable(values)


@pytest.mark.parametrize("alternate_every", [0, 10])
def test_exact_is_never_worse_than_relaxed_and_relaxed_comes_close(alternate_every):
    for seed, objective in enumerate((t_eff(), cycle(), energy(5.0, 2.0, 1e-7))):
        problem, damage = chain(seed=seed), damages(seed=seed)
        exact = Exact(objective)
        relaxed = Relaxed(objective, steps=40, starts=3, gamma_first=10, alternate_every=alternate_every)
        free = relaxed.throughput(problem)
        assert 0 <= optimality_gap(free.value, exact.throughput(problem).value) + 1e-12 < 0.25
        joint, best = relaxed.joint(problem, damage, 0.03), exact.joint(problem, damage, 0.03)
        assert joint.feasible
        assert joint.best.damage <= 0.03
        assert damage.total(joint.best.gammas) == joint.best.damage
        assert 0 <= optimality_gap(joint.best.value, best.best.value) + 1e-12 < 0.5


def test_relaxed_chooses_only_what_can_run_and_what_is_allowed():
    for seed in (1, 4, 9, 14):
        case = instance(seed)
        free = Relaxed(case.objective, steps=20, starts=3).throughput(case.problem)
        assert free.value >= Exact(case.objective).throughput(case.problem).value * (1 - 1e-12)
        for name, seconds in vars(case.problem.times(free.split_index, free.gammas)).items():
            assert getattr(free, name) == pytest.approx(seconds)
    allowed = function_equivalent(fused_gammas(chain()))
    kept = Relaxed(t_eff(), steps=20, starts=2).throughput(chain(), allowed)
    assert allowed[np.arange(10), kept.gammas].all()


def test_gradients_reach_the_cut_through_the_link_alone():
    units, bytes_by_cut = 8, np.full(9, 1e6)
    bytes_by_cut[5] = 1.0
    same = np.full((units, 14), 1e-6)
    problem = Problem(tuple("abcdefgh"), same, same, bytes_by_cut, LinkCost(0.0, 1e-6))
    assert Relaxed(t_eff(), starts=1, steps=60, gamma_first=0).throughput(problem).split_index == 5


def test_the_roofline_term_needs_work_and_weighs_nothing_by_default():
    plain, weighted = Relaxed(t_eff(), steps=10, starts=2), Relaxed(t_eff(), steps=10, starts=2, roofline_weight=0.1)
    with pytest.raises(ValueError, match="roofline_weight needs the problem's edge_work and server_work"):
        weighted.throughput(chain())
    assert plain.throughput(chain()) == plain.throughput(chain(work=True))
    assert weighted.throughput(chain(work=True)).value > 0


def test_relaxed_is_the_same_with_the_same_seed():
    one, other = (Relaxed(t_eff(), steps=15, starts=2, seed=3).throughput(chain()) for _ in range(2))
    assert one == other


def test_equal_values_are_settled_by_latency_then_by_the_smallest_cut_and_gamma():
    edge_s, server_s = np.full((2, 14), np.inf), np.full((2, 14), np.inf)
    edge_s[:, [4, 13]] = server_s[:, [4, 13]] = 0.001
    problem = Problem(("a", "b"), edge_s, server_s, [10, 10, 10], LinkCost(0.005, 0.0))
    found = Exact(cycle()).throughput(problem)
    assert (found.split_index, found.gammas) == (0, (4, 4))
    edge_s[0] = np.inf
    edge_s[0, 7] = 0.0005
    faster = Exact(cycle()).throughput(Problem(("a", "b"), edge_s, server_s, [10, 10, 10], LinkCost(0.005, 0.0)))
    assert (faster.split_index, faster.gammas) == (1, (7, 4))


def test_when_nothing_keeps_epsilon_the_smallest_slack_is_met_and_reported():
    problem = chain(3)
    values = np.full((3, 7), 0.02)
    values[:, 1] = 0.03
    for solver in (Exact(t_eff()), Relaxed(t_eff(), steps=30, starts=2), Progressive(t_eff())):
        result = solver.joint(problem, DamageTable(values), epsilon=0.01)
        assert not result.feasible
        assert result.slack == pytest.approx(0.05)
        assert result.best.damage == pytest.approx(0.06)
    assert Exact(t_eff()).joint(problem, DamageTable(values), epsilon=0.06).feasible


def test_the_best_candidates_come_first_and_keep_epsilon():
    result = Exact(t_eff()).joint(chain(), damages(), 0.03)
    few = result.candidates(5)
    assert few[0] == result.best
    assert len(few) == 5
    assert [one.value for one in few] == sorted(one.value for one in few)
    assert max(one.damage for one in few) <= 0.03
    assert len(result.candidates(10**6)) == len(result.front.within(0.03))


def test_a_front_that_grows_too_large_says_what_to_do_and_a_damage_step_does_it(monkeypatch):
    monkeypatch.setattr(fronts, "MOST_POINTS", 200)
    doubling = 2.0 ** np.arange(10)[:, None]
    times_s = np.full((10, 14), np.inf)
    times_s[:, [0, 4]] = np.hstack([0 * doubling, doubling])  # no sum equals another
    damage = np.zeros((10, 7))
    damage[:, [0]] = doubling / 1024
    problem = Problem(tuple("abcdefghij"), times_s, times_s, np.zeros(11), LinkCost(0.0, 0.0))
    with pytest.raises(ValueError, match="more than 200 points: give the exact solver a damage_step"):
        Exact(latency()).joint(problem, DamageTable(damage), 0.5)
    assert len(Exact(latency(), damage_step=0.02).joint(problem, DamageTable(damage), 0.5).front) <= 62
    assert Exact(latency(), largest_damage=0.1).joint(problem, DamageTable(damage), 0.1).best.damage <= 0.1


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"epsilon must be 0…1.*got 2"):
        Exact(t_eff()).joint(chain(), damages(), 2)
    with pytest.raises(ValueError, match="damage has 3 units, the problem 10"):
        Exact(t_eff()).joint(chain(), damages(3), 0.02)
    with pytest.raises(ValueError, match="no γ that is offered is allowed for 'u0'"):
        Exact(t_eff()).joint(chain(2), DamageTable(np.array([[np.inf] * 7, [0.0] * 7])), 0.02)
    with pytest.raises(ValueError, match="damage_step must be finite and not negative"):
        Exact(t_eff(), damage_step=-0.1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        Relaxed(t_eff(), steps=0)
    with pytest.raises(ValueError, match="kappa must be finite and not negative"):
        Relaxed(t_eff(), kappa=-1.0)


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(ROOT / "conf" / "optimise").glob("*.yaml")))
def test_each_preset_makes_a_solver(name):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"+optimise={name}"])
    solver = instantiate(cfg.optimise)
    assert solver.objective == t_eff(0.5)
    if name in ("relaxed", "alternating"):
        assert (solver.kappa, solver.mu, solver.seed) == (100, 1, cfg.seed)
        assert bool(solver.alternate_every) == (name == "alternating")
