"""The chain solver: equal to trying everything, quick, and honest about what no plan can keep."""

import time
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from splitsem.errors import ConfigError
from splitsem.search.chain import Budget, ChainPlan, ChainProblem, solve_chain
from splitsem.search.objective import Objective, cycle, energy, latency, t_eff

OBJECTIVES = (latency(), cycle(), t_eff(0.5), energy(6.4, 2.7, 1e-6))
TICK = 2.0**-12  # sums of multiples are exact


def problem(seed: int, machines: int, cuts: int, codecs: int) -> ChainProblem:
    rng = np.random.default_rng(seed)

    def drawn(*shape: int, most: int = 64) -> np.ndarray:
        return rng.integers(0, most, shape) * TICK

    speed = rng.choice([8, 4, 2, 1], (machines, 1))
    damage = np.round(rng.uniform(0, 0.1, (cuts, codecs)), 3)
    damage[:, 0], damage[rng.random(damage.shape) < 0.1] = 0.0, np.inf
    return ChainProblem(
        machine_s=np.concatenate([np.zeros((machines, 1)), (speed * drawn(1, cuts - 1)).cumsum(axis=1)], axis=1),
        encode_s=drawn(machines, cuts, codecs, most=16),
        decode_s=drawn(machines, cuts, codecs, most=16),
        link_busy_s=drawn(machines - 1, cuts, codecs),
        link_delay_s=drawn(machines - 1, cuts, codecs, most=16),
        payload_bytes=rng.integers(1, 1000, (cuts, codecs)),
        damage=damage,
        answer_s=drawn(machines - 1, most=16),
        answer_busy_s=drawn(machines - 1, most=16),
        send_s=drawn(machines, cuts, codecs, most=16),
        receive_s=drawn(machines, cuts, codecs, most=16),
    )


def evaluated(given: ChainProblem, objective: Objective, states: list[tuple[int, int]]) -> ChainPlan:
    """One plan, machine by machine."""
    last = given.machine_s.shape[1] - 1
    works, transports, lost, way_s, busy_s = [], [], 0.0, 0.0, []
    for m in range(len(states) + 1):
        before = states[m - 1] if m else None
        after = states[m] if m < len(states) else None
        sent_s = 0.0 if after is None else given.send_s[m][after]
        transports.append(sent_s + (0.0 if before is None else given.receive_s[m][before]))
        if before == after or (before is not None and before[0] == last):
            works.append(given.decode_s[m][before] if after is None else 0.0)
        else:
            end = last if after is None else after[0]
            start = 0 if before is None else before[0]
            took = given.machine_s[m][end] - given.machine_s[m][start]
            took += 0.0 if before is None else given.decode_s[m][before]
            works.append(took + given.encode_s[m][after if after is not None else (last, 0)])
        if after is not None:
            if after != before and after[0] != last:
                lost += given.damage[after]
            back = after[0] != last
            way_s += given.link_busy_s[m][after] + given.link_delay_s[m][after] + back * given.answer_s[m]
            busy_s += [given.link_busy_s[m][after], back * given.answer_busy_s[m]]
    stages = [*map(sum, zip(works, transports, strict=True)), *busy_s]
    total, slowest, sent = sum(works) + way_s, max(stages), given.payload_bytes[states[0]]
    value = objective.latency * total + objective.cycle * slowest + objective.edge * stages[0] + objective.byte * sent
    cuts, codecs = zip(*states, strict=True)
    return ChainPlan(cuts, codecs, tuple(works), total, slowest, sent, lost, value)


def every_plan(given: ChainProblem, objective: Objective) -> list[ChainPlan]:
    machines, last = len(given.machine_s), given.machine_s.shape[1] - 1
    found = []
    for cuts in combinations_with_replacement(range(last + 1), machines - 1):
        for codecs in product(range(given.damage.shape[1]), repeat=machines - 1):
            states = list(zip(cuts, codecs, strict=True))
            if all((codec == 0) if cut == last else np.isfinite(given.damage[cut, codec]) for cut, codec in states):
                found.append(evaluated(given, objective, states))
    return found


@pytest.mark.parametrize("part", range(4))
def test_a_thousand_random_chains_are_solved_as_by_trying_everything(part: int) -> None:
    for seed in range(part, 1000, 4):
        machines, cuts, codecs = 2 + seed % 3, 2 + seed % 3, 1 + seed // 4 % 3
        given, objective = problem(seed, machines, cuts, codecs), OBJECTIVES[part]
        plans = every_plan(given, objective)
        rng = np.random.default_rng(seed)
        one, other = (plans[int(rng.integers(len(plans)))] for _ in range(2))
        budgets = (Budget(), Budget(damage=one.damage), Budget(latency_s=one.latency_s, damage=other.damage))
        for budget in (*budgets, Budget(cycle_s=one.cycle_s)):
            kept = [
                plan.value
                for plan in plans
                if plan.latency_s <= budget.latency_s
                and plan.damage <= budget.damage + 1e-12
                and plan.cycle_s <= budget.cycle_s
            ]
            if kept:
                assert solve_chain(given, objective, budget).value == pytest.approx(min(kept), rel=1e-12), seed
            else:
                with pytest.raises(ConfigError, match="no cut and codec keeps"):
                    solve_chain(given, objective, budget)
        within = Budget(value=one.value)
        best = min(plan.damage for plan in plans if plan.value <= one.value)
        assert solve_chain(given, objective, within, "damage").damage == pytest.approx(best), seed


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_says_what_it_takes(seed: int) -> None:
    given = problem(seed, 4, 5, 3)
    plan = solve_chain(given, t_eff(0.5))
    other = evaluated(given, t_eff(0.5), list(zip(plan.cuts, plan.codecs, strict=True)))
    for name in ChainPlan._fields:
        assert getattr(plan, name) == pytest.approx(getattr(other, name)), name


@pytest.mark.parametrize(("fast", "cuts"), [(0, (4, 4)), (2, (0, 0))])
def test_everything_on_one_machine_competes(fast: int, cuts: tuple[int, ...]) -> None:
    """A fast edge computes all; over fast links a fast server gets the input, which the machine between hands on."""
    shape = (3, 5, 2)
    seconds = np.array([[0.0, 1, 2, 3, 4]] * 3) * np.where(np.arange(3) == fast, 1e-3, 1.0)[:, None]
    small = dict.fromkeys(("encode_s", "decode_s"), np.full(shape, 1e-6))
    small |= dict.fromkeys(("link_busy_s", "link_delay_s"), np.full((2, 5, 2), 1e-5))
    given = ChainProblem(
        machine_s=seconds, **small, payload_bytes=np.ones((5, 2)), damage=np.zeros((5, 2)), answer_s=[0, 0],
        answer_busy_s=[0, 0],
    )  # fmt: skip
    assert solve_chain(given, latency()).cuts == cuts


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["latency", "cycle", "mix", "energy"])
def test_sixty_cuts_four_machines_and_six_codecs_take_less_than_50_ms(objective: Objective) -> None:
    given = problem(1, 4, 60, 6)
    times_s = []
    for _ in range(5):
        began = time.process_time()
        solve_chain(given, objective)
        times_s.append(time.process_time() - began)
    assert min(times_s) < 0.05


def test_a_budget_that_nothing_keeps_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"latency_s 1e-09 \(the least is 0\.\d+\)"):
        solve_chain(problem(3, 3, 4, 2), cycle(), Budget(latency_s=1e-9))
    with pytest.raises(ConfigError, match=r"a pace of 1e\+09 samples/s \(the highest is \d+\.?\d*\)"):
        solve_chain(problem(3, 3, 4, 2), cycle(), Budget(cycle_s=1e-9))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("machine_s", np.zeros((1, 3)), "two machines or more"),
        ("machine_s", np.array([[0.0, 2, 1]] * 2), "never fall"),
        ("payload_bytes", np.zeros((2, 2)), r"payload_bytes must have shape \(3, 2\)"),
        ("encode_s", np.full((2, 3, 2), -1.0), "encode_s must not be negative"),
    ],
)
def test_impossible_tables_are_refused(name: str, value: np.ndarray, said: str) -> None:
    given = vars(problem(0, 2, 3, 2))
    facts = {field: given[field] for field in ChainProblem.__dataclass_fields__}
    with pytest.raises(ValueError, match=said):
        ChainProblem(**facts | {name: value})


def test_only_known_goals_are_sought() -> None:
    with pytest.raises(ValueError, match="least must be 'value' or 'damage'"):
        solve_chain(problem(0, 2, 3, 2), latency(), least="score")
