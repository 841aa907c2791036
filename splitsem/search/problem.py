"""Problem is what a solver sees of a network, two machines and a link; masks say which γ a solver may choose.

λ is the number of units on the edge, U the number of all units; γ is one of 14 branch configurations of a unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.cost.branch_lut import BranchArrays, BranchLut
from splitsem.cost.hardware_lut import HardwareLut
from splitsem.models.branches import GAMMAS, whole_gamma
from splitsem.search.objective import Objective, Stages, TierWork

NUM_GAMMAS = len(GAMMAS)
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LinkCost:
    """``link_busy_s = fixed_busy_s + s_per_byte · bytes`` and a delay; a cut that sends no byte takes no time.

    Attributes:
        fixed_busy_s: seconds that any transfer keeps the link from the next one, whatever its size.
        s_per_byte: seconds that each byte adds.
        delay_s: seconds that a sample spends beyond the stages, in its latency and not in the cycle. Below 0 where a
            stage's time holds work that its own sample does not wait for.
        free_bytes: bytes of a lone sample that the link takes at once, like a token bucket; they take time in the
            cycle only.
    """

    fixed_busy_s: float
    s_per_byte: float
    delay_s: float = 0.0
    free_bytes: float = 0.0

    def __post_init__(self) -> None:
        if not isfinite(self.delay_s):
            raise ValueError(f"delay_s must be finite, got {self.delay_s}")
        for name in ("fixed_busy_s", "s_per_byte", "free_bytes"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    def link_busy_s(self, num_bytes: ArrayLike) -> Floats:
        """Seconds that the link is busy with each number of bytes."""
        num_bytes = np.asarray(num_bytes, dtype=float)
        return np.where(num_bytes > 0, self.fixed_busy_s + self.s_per_byte * num_bytes, 0.0)

    def link_delay_s(self, num_bytes: ArrayLike) -> Floats:
        """Seconds that a lone payload of each number of bytes is on its way beyond those in which the link is busy."""
        num_bytes = np.asarray(num_bytes, dtype=float)
        return np.where(num_bytes > 0, self.delay_s - self.s_per_byte * np.minimum(num_bytes, self.free_bytes), 0.0)


@dataclass(frozen=True, eq=False)
class Problem:
    """A chain of units, of which the first λ run on the edge.

    The branches of a unit are summed before the cut, so that the bytes that cross depend on λ alone.

    Attributes:
        units: names of the U units, in the order of execution.
        edge_s: seconds of each unit and γ on the edge, ``(U, 14)``; inf where the γ is not offered. A unit without
            branches offers γ 0 only.
        server_s: seconds of each unit and γ on the server, ``(U, 14)``; inf where the γ is not offered.
        link_bytes: bytes that cross, by λ, ``(U + 1,)``: the input at 0, the answer at U; 0 where nothing crosses.
        link: what the bytes take.
        edge_base_s: seconds of the edge for any sample of which something crosses: its work of sending and receiving.
        server_base_s: seconds of the server for any sample of which something crosses.
        answer_s: seconds of the answer on its way back, which it goes at every cut but U; 0 where none travels back.
        answer_busy_s: how long the answer keeps the way back from the next answer.
        edge_work: FLOPs and bytes on the edge, for the roofline term.
        server_work: FLOPs and bytes on the server, for the roofline term.

    Raises:
        ValueError: a shape, a time or a number of bytes is impossible, or no cut offers every unit.
    """

    units: tuple[str, ...]
    edge_s: Floats
    server_s: Floats
    link_bytes: Floats
    link: LinkCost
    edge_work: TierWork | None = None
    server_work: TierWork | None = None
    edge_base_s: float = 0.0
    server_base_s: float = 0.0
    answer_s: float = 0.0
    answer_busy_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("edge_base_s", "server_base_s", "answer_s", "answer_busy_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")
        object.__setattr__(self, "units", tuple(self.units))
        if not self.units:
            raise ValueError("units must name at least one unit, got none")
        if len(set(self.units)) < len(self.units):
            raise ValueError(f"every unit needs a name of its own, got {', '.join(self.units)}")
        shape = (len(self.units), NUM_GAMMAS)
        for name in ("edge_s", "server_s"):
            object.__setattr__(self, name, _checked(name, getattr(self, name), shape, self.units))
        link_bytes = _frozen("link_bytes", self.link_bytes, (len(self.units) + 1,))
        if not (np.isfinite(link_bytes).all() and (link_bytes >= 0).all()):
            raise ValueError(f"link_bytes must be finite and not negative, got {link_bytes.tolist()}")
        object.__setattr__(self, "link_bytes", link_bytes)
        for name in ("edge_work", "server_work"):
            work = getattr(self, name)
            if work is not None and work.flops.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {work.flops.shape}")
        nowhere = np.logical_not(self.offered.any(axis=1))
        if nowhere.any():
            raise ValueError(f"no γ is offered for {self._names(nowhere)}: give a time on the edge or on the server")
        self.cuts(self.offered)

    @property
    def num_units(self) -> int:
        """U, the number of units; λ goes from 0 to U."""
        return len(self.units)

    @property
    def offered(self) -> Mask:
        """Which γ each unit can run in on at least one machine, ``(U, 14)``."""
        return np.isfinite(self.edge_s) | np.isfinite(self.server_s)

    @cached_property
    def beside_units(self) -> Stages:
        """What a sample takes beside its units, by λ, ``(U + 1,)`` each."""
        crosses = self.link_bytes > 0
        answered = np.arange(self.num_units + 1) < self.num_units
        return Stages(
            edge_s=self.edge_base_s * crosses,
            link_busy_s=self.link.link_busy_s(self.link_bytes),
            link_delay_s=self.link.link_delay_s(self.link_bytes),
            server_s=self.server_base_s * crosses,
            answer_s=self.answer_s * answered,
            answer_busy_s=self.answer_busy_s * answered,
            edge_transport_s=np.zeros(len(crosses)),  # the bases of the ends hold it
            server_transport_s=np.zeros(len(crosses)),
        )

    def stages(self, split_index: Any, edge_units_s: Any, server_units_s: Any) -> Stages:
        """The stages of samples, numbers or arrays that broadcast.

        Args:
            split_index: λ.
            edge_units_s: sum of the units on the edge.
            server_units_s: sum of the units on the server.
        """
        beside = self.beside_units
        return Stages(
            edge_s=beside.edge_s[split_index] + edge_units_s,
            link_busy_s=beside.link_busy_s[split_index],
            link_delay_s=beside.link_delay_s[split_index],
            server_s=beside.server_s[split_index] + server_units_s,
            answer_s=beside.answer_s[split_index],
            answer_busy_s=beside.answer_busy_s[split_index],
            edge_transport_s=beside.edge_transport_s[split_index],
            server_transport_s=beside.server_transport_s[split_index],
        )

    def tiers(self, allowed: Mask | None = None) -> tuple[Floats, Floats]:
        """``edge_s`` and ``server_s`` with inf for γ that are not allowed; None allows every offered γ.

        Raises:
            ValueError: ``allowed`` has another shape, or leaves a unit no γ.
        """
        if allowed is None:
            return self.edge_s, self.server_s
        allowed = np.asarray(allowed, dtype=bool)
        if allowed.shape != self.edge_s.shape:
            raise ValueError(f"allowed must have shape {self.edge_s.shape}, got {allowed.shape}")
        nothing = np.logical_not((allowed & self.offered).any(axis=1))
        if nothing.any():
            raise ValueError(f"no γ that is offered is allowed for {self._names(nothing)}; a block needs a branch")
        return np.where(allowed, self.edge_s, np.inf), np.where(allowed, self.server_s, np.inf)

    def cuts(self, allowed: Mask | None = None) -> NDArray[np.intp]:
        """Every λ at which each unit can run in an allowed γ on its machine.

        Raises:
            ValueError: there is no such λ.
        """
        edge_s, server_s = self.tiers(allowed)
        cuts = np.flatnonzero(can_cut(edge_s, server_s))
        if not len(cuts):
            not_edge, not_server = (np.isinf(times).all(axis=1) for times in (edge_s, server_s))
            raise ValueError(
                f"no cut has every unit where it can run: the edge cannot run {self._names(np.asarray(not_edge))}, "
                f"the server cannot run {self._names(np.asarray(not_server))}"
            )
        return cuts

    def times(self, split_index: int, gammas: tuple[int, ...]) -> Stages:
        """The stages with the first ``split_index`` units on the edge and each unit run in its γ.

        Raises:
            ValueError: λ or the number of γ does not fit, or a unit's machine does not offer the unit's γ.
        """
        if not 0 <= split_index <= self.num_units:
            raise ValueError(f"split_index must be 0…{self.num_units}, got {split_index}")
        if len(gammas) != self.num_units:
            raise ValueError(f"gammas must have one γ for each of {self.num_units} units, got {len(gammas)}")
        if not all(0 <= gamma < NUM_GAMMAS for gamma in gammas):
            raise ValueError(f"each γ must be 0…{NUM_GAMMAS - 1}, got {list(gammas)}")
        on_edge = np.arange(self.num_units) < split_index
        rows = np.arange(self.num_units)
        taken = np.where(on_edge, self.edge_s[rows, list(gammas)], self.server_s[rows, list(gammas)])
        if not np.isfinite(taken).all():
            unit = int(np.flatnonzero(~np.isfinite(taken))[0])
            side = "edge" if on_edge[unit] else "server"
            raise ValueError(f"unit {self.units[unit]!r} is not offered in γ {gammas[unit]} on the {side}")
        stages = self.stages(split_index, taken[on_edge].sum(), taken[~on_edge].sum())
        return Stages(**{field.name: float(getattr(stages, field.name)) for field in fields(stages)})

    def value(self, objective: Objective, split_index: Any, edge_units_s: Any, server_units_s: Any) -> Any:
        """The objective's value; arguments as for ``stages``."""
        return objective(self.stages(split_index, edge_units_s, server_units_s), self.link_bytes[split_index])

    def _names(self, mask: Mask) -> str:
        return ", ".join(repr(self.units[u]) for u in np.flatnonzero(mask)) or "none"


def can_cut(edge_s: Floats, server_s: Floats) -> Mask:
    """For each λ, whether every unit has a finite time on its machine, ``(U + 1,)``."""
    on_edge, on_server = np.isfinite(edge_s).any(axis=1), np.isfinite(server_s).any(axis=1)
    heads = np.append(True, np.logical_and.accumulate(on_edge))
    tails = np.append(True, np.logical_and.accumulate(np.flip(on_server)))[::-1]
    return heads & tails


def _checked(name: str, values: ArrayLike, shape: tuple[int, ...], units: tuple[str, ...]) -> Floats:
    values = _frozen(name, values, shape)
    wrong = np.logical_or(np.isnan(values), values < 0)
    if wrong.any():
        unit, gamma = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name} of unit {units[unit]!r}, γ {gamma}, must be a time of 0 s or more, or inf where the γ is not "
            f"offered, got {values[unit, gamma]}"
        )
    return values


def _frozen(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Floats:
    values = np.array(values, dtype=float)
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
    values.flags.writeable = False
    return values


def parallel_gammas(problem: Problem) -> tuple[int, ...]:
    """The γ of each unit with all branches in parallel: the usual baseline."""
    return _whole(problem, folded=False)


def fused_gammas(problem: Problem) -> tuple[int, ...]:
    """The γ of each unit with all branches folded into one: the stronger baseline."""
    return _whole(problem, folded=True)


def only(gammas: Sequence[int]) -> Mask:
    """A mask, ``(U, 14)``, that allows each unit its given γ alone; the cut stays free.

    Raises:
        ValueError: a γ is not 0…13.
    """
    return np.arange(NUM_GAMMAS) == _column(gammas)


def function_equivalent(gammas: Sequence[int]) -> Mask:
    """A mask, ``(U, 14)``, that allows each unit the γ that compute the same function as its given γ.

    Raises:
        ValueError: a γ is not 0…13.
    """
    same = np.array([[a.branches == b.branches for b in GAMMAS] for a in GAMMAS])
    return same[_column(gammas)[:, 0]]


def _whole(problem: Problem, folded: bool) -> tuple[int, ...]:
    return tuple(whole_gamma(np.flatnonzero(row).tolist(), folded) for row in problem.offered)


def _column(gammas: Sequence[int]) -> np.ndarray:
    values = np.asarray(gammas, dtype=int).reshape(-1, 1)
    if not ((values >= 0) & (values < NUM_GAMMAS)).all():
        raise ValueError(f"each γ must be 0…{NUM_GAMMAS - 1}, got {list(gammas)}")
    return values


def measured_problem(lut: HardwareLut, calibrated: bool = True, undisturbed: bool = False) -> Problem:
    """The Problem of two machines' tables and the link between them.

    If ``lut`` has a FrameFit, the fit's factors scale the tables' times, each end adds its base time, the link is the
    wire alone, and the delay holds the time in which no stage works. The answer's way is part of these; without a
    FrameFit, it is a stage of its own. Where the whole network runs on the edge, only an answer that the server needs
    crosses.

    Args:
        lut: both machines and the link.
        calibrated: multiply each machine's times by its calibration's factor, if the machine has a calibration.
        undisturbed: take 10th percentiles instead of medians; not together with ``calibrated``.

    Raises:
        ValueError: the link was not measured, or ``calibrated`` and ``undisturbed`` are both set.
    """
    if lut.link is None:
        raise ValueError("lut must have a link, got none")
    edge, server = (table.to_arrays(calibrated, undisturbed) for table in (lut.edge, lut.server))
    units = tuple(unit.name for unit in lut.edge.units)
    works = _work(lut.edge, edge), _work(lut.server, server)
    frames, answer = lut.frames, lut.answer
    if frames is None:
        link = LinkCost(fixed_busy_s=0.0, s_per_byte=lut.link.s_per_byte, delay_s=lut.link.delay_s)
        problem = Problem(units, edge.time_s, server.time_s, lut.link_bytes, link, *works)
        return problem if answer is None else replace(problem, answer_s=answer.back_s, answer_busy_s=answer.back_busy_s)
    return Problem(
        units=units,
        edge_s=frames.edge_factor * edge.time_s,
        server_s=frames.server_factor * server.time_s,
        link_bytes=lut.link_bytes,
        link=LinkCost(0.0, s_per_byte=frames.s_per_byte, delay_s=frames.delay_s, free_bytes=frames.free_bytes),
        edge_work=works[0],
        server_work=works[1],
        edge_base_s=frames.edge_base_s,
        server_base_s=frames.server_base_s,
    )


def offered_by(gammas: list[tuple[int, ...]]) -> Mask:
    """A mask, ``(U, 14)``, of the γ that each unit of a network offers; a pruned network offers fewer than a table."""
    mask = np.zeros((len(gammas), 14), dtype=bool)
    for unit, offered in enumerate(gammas):
        mask[unit, list(offered)] = True
    return mask


def _work(lut: BranchLut, arrays: BranchArrays) -> TierWork | None:
    if lut.rates is None:
        return None
    return TierWork(arrays.flops, arrays.bytes, lut.rates.peak_flops_per_s, lut.rates.memory_bytes_per_s)
