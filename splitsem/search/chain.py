"""Exact cuts and codecs for a chain of machines: which machine computes what, and what travels on each hop.

Letters: N machines, H = N − 1 hops, K cuts (``input`` first, ``output`` last), C codecs. A *state* of a hop is a pair
of cut and codec. A machine computes from the cut of the hop before it to the cut of the hop after it; where both hops
have the same state it hands the payload on unread. At ``output`` no codec is at work: what travels, if anything, is the
answer, and what it takes stands at codec 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.errors import ConfigError
from splitsem.search.objective import Objective
from splitsem.search.problem import Floats
from splitsem.search.solution import ROUNDING

MOST_LABELS = 200_000
"""Most partial plans at a hop that no other one beats; measured tables give some hundreds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ChainProblem:
    """What a chain solver sees of a network, its machines and the links between them.

    Attributes:
        machine_s: seconds of each machine for all that lies before each cut, never falling in K, ``(N, K)``.
        encode_s: seconds that making the payload takes, ``(N, K, C)``; at ``output``: coding the answer.
        decode_s: seconds that reading the payload takes, ``(N, K, C)``.
        link_busy_s: how long a payload keeps each hop from the next one, ``(H, K, C)``.
        link_delay_s: seconds of a payload on its way beyond that, ``(H, K, C)``.
        payload_bytes: on the wire, ``(K, C)``.
        damage: score lost by each cut and codec, inf where the codec cannot carry what crosses, ``(K, C)``. The damages
            of several hops are taken to add up, which is exact where one hop at most is lossy.
        answer_s: the answer's way back over each hop that was used, ``(H,)``; 0 where none travels.
        answer_busy_s: how long it keeps that way from the next answer, ``(H,)``.
        send_s: how long the transport's software keeps a machine busy by sending a payload and receiving its answer,
            ``(N, K, C)``; counts in the pace alone, as does ``receive_s``. 0.0: not known.
        receive_s: the same of receiving a payload and sending its answer, ``(N, K, C)``.
    """

    machine_s: Floats
    encode_s: Floats
    decode_s: Floats
    link_busy_s: Floats
    link_delay_s: Floats
    payload_bytes: Floats
    damage: Floats
    answer_s: Floats
    answer_busy_s: Floats
    send_s: Floats | float = 0.0
    receive_s: Floats | float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, np.array(getattr(self, field.name), dtype=float))
        if self.machine_s.ndim != 2 or len(self.machine_s) < 2 or self.damage.ndim != 2:
            raise ValueError(
                "machine_s must be (machines, cuts) of two machines or more and damage (cuts, codecs), got shapes "
                f"{self.machine_s.shape} and {self.damage.shape}"
            )
        (n, k), c = self.machine_s.shape, self.damage.shape[1]
        for name in ("send_s", "receive_s"):
            if np.ndim(getattr(self, name)) == 0:
                object.__setattr__(self, name, np.full((n, k, c), getattr(self, name)))
        shapes = {
            **dict.fromkeys(("encode_s", "decode_s", "send_s", "receive_s"), (n, k, c)),
            **dict.fromkeys(("link_busy_s", "link_delay_s"), (n - 1, k, c)),
            **dict.fromkeys(("payload_bytes", "damage"), (k, c)),
            **dict.fromkeys(("answer_s", "answer_busy_s"), (n - 1,)),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")
        for field in fields(self):
            values = getattr(self, field.name)
            if np.isnan(values).any() or (field.name not in ("link_delay_s", "damage") and (values < 0).any()):
                raise ValueError(f"{field.name} must not be negative or NaN")
        if (np.diff(self.machine_s, axis=1) < 0).any():
            raise ValueError("machine_s must never fall from one cut to the next")

    @property
    def num_machines(self) -> int:
        """N."""
        return len(self.machine_s)

    @property
    def num_codecs(self) -> int:
        """C."""
        return self.damage.shape[1]

    @cached_property
    def _end(self) -> int:
        """The state of a hop behind the machine that finished."""
        return (self.machine_s.shape[1] - 1) * self.num_codecs

    @cached_property
    def _states(self) -> NDArray[np.intp]:
        """The states that a hop can be in."""
        flat = np.isfinite(self.damage).ravel()
        flat[self._end :] = False
        return np.append(np.flatnonzero(flat), self._end)

    def _at(self, values: Floats) -> Floats:
        """``(..., K, C)`` by state."""
        return values.reshape(*values.shape[:-2], -1)[..., self._states]

    def works_s(self) -> list[Floats]:
        """Seconds of each machine by the states before and after it: ``(1, S)``, then ``(S, S)``, last ``(S, 1)``."""
        cut = self._states // self.num_codecs
        encode_s, decode_s = self._at(self.encode_s), self._at(self.decode_s)
        works = [(self.machine_s[0, cut] + encode_s[0])[None, :]]
        for m in range(1, self.num_machines - 1):
            upto = self.machine_s[m, cut]
            work = decode_s[m][:, None] + (upto[None, :] - upto[:, None]) + encode_s[m][None, :]
            work[cut[None, :] < cut[:, None]] = inf
            np.fill_diagonal(work, 0.0)
            works.append(work)
        last = decode_s[-1] + self.machine_s[-1, -1] - self.machine_s[-1, cut] + self.encode_s[-1, -1, 0]
        last[-1] = decode_s[-1, -1]
        return [*works, last[:, None]]

    def transports_of(self, plan: "ChainPlan") -> list[float]:
        """Seconds that the transport's software keeps each machine busy in this plan."""
        at = [*zip(plan.cuts, plan.codecs, strict=True)]
        send_s, receive_s = np.asarray(self.send_s), np.asarray(self.receive_s)
        found = np.zeros(self.num_machines)
        for h, state in enumerate(at):
            found[h] += send_s[(h, *state)]
            found[h + 1] += receive_s[(h + 1, *state)]
        return found.tolist()

    def transports_s(self) -> list[Floats]:
        """The same by states, as ``works_s``; what is passed on unread is received and sent all the same."""
        send_s, receive_s = (self._at(np.asarray(values)) for values in (self.send_s, self.receive_s))
        middle = (receive_s[m][:, None] + send_s[m][None, :] for m in range(1, self.num_machines - 1))
        return [send_s[0][None, :], *middle, receive_s[-1][:, None]]


class ChainPlan(NamedTuple):
    """One way to run a network on a chain of machines.

    Attributes:
        cuts: the cut of each hop, never falling.
        codecs: the codec of each hop; 0 where nothing travels.
        machine_s: seconds of each machine.
        latency_s: from the sensor to the result, of one sample alone.
        cycle_s: of the slowest stage, which bounds the pace.
        payload_bytes: that the first machine sends.
        damage: score lost.
        value: of the objective.
    """

    cuts: tuple[int, ...]
    codecs: tuple[int, ...]
    machine_s: tuple[float, ...]
    latency_s: float
    cycle_s: float
    payload_bytes: float
    damage: float
    value: float


@dataclass(frozen=True)
class Budget:
    """What a plan may take at most; infinite where nothing bounds it.

    Attributes:
        latency_s: of one sample.
        cycle_s: of the slowest stage.
        damage: score lost.
        value: of the objective, for ``solve_chain(least="damage")``.
    """

    latency_s: float = inf
    cycle_s: float = inf
    damage: float = inf
    value: float = inf


class _Table(NamedTuple):
    """One criterion: what each machine and its hop add, and whether stages add up or the largest counts."""

    steps: list[Floats]
    is_max: bool

    def joined(self, one: Any, other: Any) -> Any:
        return np.maximum(one, other) if self.is_max else one + other

    def rests(self) -> list[Floats]:
        """The least that machines ``m`` … N − 1 add, by the state before machine m; the first entry is the optimum."""
        rests = [self.steps[-1].min(axis=1)]
        for step in reversed(self.steps[:-1]):
            rests.append(self.joined(step, rests[-1][None, :]).min(axis=1))
        return rests[::-1]


def solve_chain(
    problem: ChainProblem, objective: Objective, budget: Budget | None = None, least: str = "value"
) -> ChainPlan:
    """The best plan over all cuts and codecs of every hop within a budget; everything on one machine competes.

    Dynamic programming over hops: a partial plan that ends in the same state as another one and is no better in any
    criterion (value so far, latency, slowest stage, damage) cannot become better later, since each of them adds up or
    is a maximum. What cannot get below the best complete plan that is known is dropped too, by the least that the
    further machines add.

    Args:
        problem: times, bytes and damages.
        objective: what is minimised; ``edge`` and ``byte`` count the first machine.
        budget: what the plan may take at most.
        least: ``value``, or ``damage`` for the best score within the budget.

    Raises:
        ConfigError: no plan keeps the budget; names what the nearest plan takes.
        ValueError: ``least`` is neither, or more than ``MOST_LABELS`` partial plans are unbeaten.
    """
    if least not in ("value", "damage"):
        raise ValueError(f"least must be 'value' or 'damage', got {least!r}")
    return _Search(problem, objective, budget or Budget(), least).best()


def evaluated(problem: ChainProblem, objective: Objective, cuts: Sequence[int], codecs: Sequence[int]) -> ChainPlan:
    """The plan with this cut and codec on each hop, whatever it takes.

    Raises:
        ValueError: a codec cannot carry what crosses there, or cuts fall.
    """
    search = _Search(problem, objective, Budget(), "value")
    states = [min(cut * problem.num_codecs + codec, problem._end) for cut, codec in zip(cuts, codecs, strict=True)]
    if not set(states) <= set(problem._states.tolist()) or sorted(cuts) != list(cuts):
        raise ValueError(f"no plan has the cuts {list(cuts)} with the codecs {list(codecs)}")
    return search.plan(np.searchsorted(problem._states, states).tolist())


class _Search:
    """One search; criteria in the order of ``names``."""

    names = ("latency", "cycle", "damage", "extra")

    def __init__(self, problem: ChainProblem, objective: Objective, budget: Budget, least: str) -> None:
        self.problem, self.objective, self.budget, self.least = problem, objective, budget, least
        states = problem._states
        works, no_way_back = problem.works_s(), states == problem._end
        busy_s, delay_s = problem._at(problem.link_busy_s), problem._at(problem.link_delay_s)
        back_s = [np.where(no_way_back, 0.0, way_s) for way_s in problem.answer_s]
        back_busy_s = [np.where(no_way_back, 0.0, way_s) for way_s in problem.answer_busy_s]
        hops = range(problem.num_machines - 1)
        latency = [works[h] + (busy_s[h] + delay_s[h] + back_s[h])[None, :] for h in hops]
        paced = [work + transport for work, transport in zip(works, problem.transports_s(), strict=True)]
        pace = [np.maximum(paced[h], np.maximum(busy_s[h], back_busy_s[h])[None, :]) for h in hops]
        lost = np.append(problem._at(problem.damage)[:-1], 0.0)
        anew = np.where(np.eye(len(states), dtype=bool), 0.0, lost[None, :])
        anew[:, -1] = 0.0  # what was lost before stays lost, and computing to the end loses nothing
        first = objective.edge * paced[0] + objective.byte * problem._at(problem.payload_bytes)[None, :]
        none = [np.zeros_like(work) for work in works[1:]]
        self.works = works
        self.tables = {
            "latency": _Table([*latency, works[-1]], is_max=False),
            "cycle": _Table([*pace, paced[-1]], is_max=True),
            "damage": _Table([lost[None, :], *(anew for _ in hops[1:]), np.zeros_like(works[-1])], is_max=False),
            "extra": _Table([first, *none], is_max=False),
        }
        self.rests = {name: table.rests() for name, table in self.tables.items()}
        self.policies = [self.policy(name) for name in ("latency", "cycle")]
        self.relevant = [
            name
            for name, wanted in (
                ("latency", objective.latency > 0 or budget.latency_s < inf),
                ("cycle", objective.cycle > 0 or budget.cycle_s < inf),
                ("damage", budget.damage < inf or least == "damage"),
                ("extra", bool(objective.edge or objective.byte)),
            )
            if wanted
        ]

    def value(self, got: Mapping[str, Any]) -> Floats:
        """The objective's value of criteria that may be inf."""
        found = np.zeros(np.shape(got["latency"]))
        for weight, name in ((self.objective.latency, "latency"), (self.objective.cycle, "cycle"), (1.0, "extra")):
            if weight and (name != "extra" or self.objective.edge or self.objective.byte):
                found = found + weight * got[name]
        return found

    def keeps(self, got: dict[str, Floats]) -> NDArray[np.bool_]:
        """Whether criteria keep the budget."""
        limits = {name: getattr(self.budget, name) for name in ("latency_s", "cycle_s", "damage", "value")}
        seen = {"latency_s": got["latency"], "cycle_s": got["cycle"], "damage": got["damage"], "value": self.value(got)}
        kept = np.isfinite(got["latency"])
        for name, limit in limits.items():
            if limit < inf:
                kept &= seen[name] <= limit + ROUNDING * (1.0 if name == "damage" else limit)
        return kept

    def best(self) -> ChainPlan:
        """See ``solve_chain``."""
        got = {name: np.zeros(1) for name in self.names}
        at, bound = np.zeros(1, np.intp), inf
        trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        for hop in range(self.problem.num_machines - 1):
            onward = {name: t.joined(got[name][:, None], t.steps[hop][at]) for name, t in self.tables.items()}
            for known in self.policies:
                bound = min(bound, float(self.led(self.ended(onward, known, hop)).min()))
            leads = self.led(self.ended(onward, self.rests, hop))
            parent, place = np.nonzero(leads <= bound * (1 + ROUNDING)) if bound < inf else np.nonzero(leads < inf)
            if not len(place):
                raise ConfigError(self.refusal())
            got = {name: values[parent, place] for name, values in onward.items()}
            kept = unbeaten(place, [got[name] for name in self.relevant])
            got, at = {name: values[kept] for name, values in got.items()}, place[kept]
            trail.append((parent[kept], at))
            if len(at) > MOST_LABELS:
                raise ValueError(f"more than {MOST_LABELS} partial plans are unbeaten: give fewer cuts or codecs")
        whole = {name: t.joined(got[name], t.steps[-1][at, 0]) for name, t in self.tables.items()}
        second = whole["damage"] if self.least == "value" else self.value(whole)
        return self.plan(_walked(trail, int(np.lexsort((whole["latency"], second, self.led(whole)))[0])))

    def ended(self, onward: dict[str, Floats], rests: dict[str, list[Floats]], hop: int) -> dict[str, Floats]:
        """Partial plans and what comes after them."""
        return {name: table.joined(onward[name], rests[name][hop + 1]) for name, table in self.tables.items()}

    def led(self, got: dict[str, Floats]) -> Floats:
        """What is minimised; inf beyond the budget."""
        return np.where(self.keeps(got), self.value(got) if self.least == "value" else got["damage"], inf)

    def policy(self, name: str) -> dict[str, list[Floats]]:
        """What the completion of least latency (or cycle, …) takes in each criterion, by the state before a machine."""
        totals = {other: [table.steps[-1][:, 0]] for other, table in self.tables.items()}
        table = self.tables[name]
        for m in range(self.problem.num_machines - 2, -1, -1):
            onward = table.joined(table.steps[m], totals[name][0][None, :])
            choice = np.where(np.isfinite(self.works[m]), onward, inf).argmin(axis=1)
            rows = np.arange(len(choice))
            for other, one in self.tables.items():
                totals[other].insert(0, one.joined(one.steps[m][rows, choice], totals[other][0][choice]))
        return totals

    def plan(self, path: Sequence[int]) -> ChainPlan:
        """The plan of these states."""
        problem = self.problem
        pairs = list(pairwise([0, *path, 0]))
        got = {name: 0.0 for name in self.names}
        for m, (one, other) in enumerate(pairs):
            for name, table in self.tables.items():
                got[name] = float(table.joined(np.float64(got[name]), table.steps[m][one, other]))
        states = [int(problem._states[place]) for place in path]
        return ChainPlan(
            tuple(state // problem.num_codecs for state in states),
            tuple(0 if state == problem._end else state % problem.num_codecs for state in states),
            tuple(float(self.works[m][pair]) for m, pair in enumerate(pairs)),
            got["latency"],
            got["cycle"],
            float(problem._at(problem.payload_bytes)[path[0]]),
            got["damage"],
            float(self.value({name: np.float64(value) for name, value in got.items()})),
        )

    def refusal(self) -> str:
        """One line: what the budget allows, and the least of each by itself."""
        least: dict[str, Any] = {name: np.float64(rests[0][0]) for name, rests in self.rests.items()}
        least |= {"value": self.value(least)}
        told = []
        for name, limit in vars(self.budget).items():
            if name == "cycle_s" and limit < inf:
                told.append(f"a pace of {1 / limit:g} samples/s (the highest is {1 / least['cycle']:.4g})")
            elif limit < inf:
                told.append(f"{name} {limit:g} (the least is {least[name.removesuffix('_s')]:.4g})")
        return f"no cut and codec keeps {', '.join(told)}: allow more of one of them"


def _walked(trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]], label: int) -> list[int]:
    path = []
    for parent, at in reversed(trail):
        path.append(int(at[label]))
        label = int(parent[label])
    return path[::-1]


def unbeaten(group: NDArray[np.intp], criteria: Sequence[Floats]) -> NDArray[np.intp]:
    """Indices of what nothing of its group is as good as in all criteria, the first of equal ones.

    >>> unbeaten(np.array([0, 0, 0, 1]), [np.array([1.0, 2.0, 2.0, 9.0]), np.array([5.0, 5.0, 4.0, 9.0])]).tolist()
    [0, 2, 3]
    """
    order = np.lexsort([*criteria[::-1], group])
    ranked = np.stack([values[order] for values in criteria], axis=1)
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    kept: list[NDArray[np.intp]] = []
    for start, stop in zip(starts, [*starts[1:], len(order)][: len(starts)], strict=True):
        left = np.arange(start, stop)
        while len(left):  # the first of what is left is beaten by nothing behind it
            kept.append(left[:1])
            left = left[1:][(ranked[left[1:]] < ranked[left[0]]).any(axis=1)]
    return order[np.concatenate(kept)] if kept else np.empty(0, np.intp)
