"""The stages of a sample, the objective that solvers minimise, a tier's roofline work, and a score's margin."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.cost.end_to_end import cycle_s, latency_s


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seconds of one sample's stages, or arrays or tensors of seconds; the algebra is that of ``cost.end_to_end``.

    Attributes:
        edge_s: work of the edge: head, coding.
        link_busy_s: how long the payload keeps the link from the next payload.
        link_delay_s: seconds of the payload on its way beyond that, which count in the latency alone. Below 0 where the
            link is busy with what the sample does not wait for.
        server_s: work of the server: coding, tail.
        answer_s: the answer's way back; 0 where none travels.
        answer_busy_s: how long the answer keeps the way back from the next answer.
        edge_transport_s: how long the transport's software keeps the edge busy; counts in the cycle alone.
        server_transport_s: the same on the server.
    """

    edge_s: Any
    link_busy_s: Any
    link_delay_s: Any
    server_s: Any
    answer_s: Any = 0.0
    answer_busy_s: Any = 0.0
    edge_transport_s: Any = 0.0
    server_transport_s: Any = 0.0

    @property
    def link_s(self) -> Any:
        """Seconds of the payload on its way."""
        return self.link_busy_s + self.link_delay_s

    @property
    def latency_s(self) -> Any:
        """See ``cost.end_to_end.latency_s``."""
        return latency_s(self.edge_s, self.link_s, self.server_s, self.answer_s)

    @property
    def busy_s(self) -> tuple[Any, Any, Any, Any]:
        """How long a sample keeps each stage from the next one: edge, link, server, way back."""
        edge_s, server_s = self.edge_s + self.edge_transport_s, self.server_s + self.server_transport_s
        return edge_s, self.link_busy_s, server_s, self.answer_busy_s

    @property
    def cycle_s(self) -> Any:
        """See ``cost.end_to_end.cycle_s``; of numbers and arrays."""
        longest = cycle_s(*self.busy_s)
        return longest if np.ndim(longest) else float(longest)

    @property
    def throughput_hz(self) -> float:
        """Samples a second when the stages of consecutive samples overlap; infinite where no stage is busy."""
        return 1 / self.cycle_s if self.cycle_s else float("inf")


@dataclass(frozen=True)
class Objective:
    """``latency·T_lat + cycle·T_cyc + edge·T_E + byte·bytes``, to be minimised.

    T_lat and T_cyc are the latency and the cycle of ``cost.end_to_end``: the link's delay counts in T_lat alone. No
    weight is negative, so the objective never falls when a stage takes longer. Hence the fastest γ of each unit is the
    best γ at a given cut, under the maximum too.

    Attributes:
        latency: weight of the latency.
        cycle: weight of the cycle time.
        edge: weight of the seconds that the edge is busy.
        byte: weight of the bytes that cross.
        unit: of the value, ``s`` or ``J``.
    """

    latency: float = 0.0
    cycle: float = 0.0
    edge: float = 0.0
    byte: float = 0.0
    unit: str = "s"

    def __post_init__(self) -> None:
        weights = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "unit"}
        for name, weight in weights.items():
            if not (isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {weight}")
        if not any(weights.values()):
            raise ValueError("one of latency, cycle, edge and byte must be above 0, got 0 for all")

    def __call__(self, stages: Stages, link_bytes: Any, maximum: Callable[..., Any] = np.maximum) -> Any:
        """The value for finite times and bytes, numbers or arrays that broadcast; tensors with ``torch.maximum``."""
        value = self.latency * stages.latency_s + self.edge * stages.busy_s[0] + self.byte * link_bytes
        if not self.cycle:
            return value
        return value + self.cycle * cycle_s(*stages.busy_s, maximum)

    @property
    def words(self) -> str:
        """What is minimised, for a reader: ``T_eff = 0.5·latency + 0.5·cycle``."""
        if self.unit == "J":
            return "energy of the edge"
        if self.edge == self.byte == 0 and 0 in (self.latency, self.cycle):
            return "latency" if self.latency else "cycle"
        terms = ((self.latency, "latency"), (self.cycle, "cycle"), (self.edge, "edge"), (self.byte, "bytes"))
        total = " + ".join(f"{weight:g}·{name}" for weight, name in terms if weight)
        return f"T_eff = {total}" if self.edge == self.byte == 0 else total


def t_eff(omega: float = 0.5) -> Objective:
    """The ω-mix ``T_eff = ω·T_lat + (1 − ω)·T_cyc`` in seconds (arXiv 2411.00838, Eq. 7).

    >>> stages = Stages(edge_s=0.002, link_busy_s=0.005, link_delay_s=0.004, server_s=0.001)
    >>> round(float(t_eff(0.5)(stages, 0)), 6)  # latency 12 ms, cycle 5 ms
    0.0085

    Args:
        omega: share of the latency, 0…1.

    Raises:
        ValueError: ``omega`` is outside 0…1.
    """
    if not 0 <= omega <= 1:
        raise ValueError(f"omega must be 0…1, got {omega}")
    return Objective(latency=omega, cycle=1 - omega)


def latency() -> Objective:
    """The objective of seconds from the sensor to the result, for one sample."""
    return t_eff(1.0)


def cycle() -> Objective:
    """The objective of the slowest stage's seconds: 1 / throughput when the stages of consecutive samples overlap."""
    return t_eff(0.0)


def energy(active_w: float, idle_w: float, j_per_byte: float = 0.0, pipelined: bool = True) -> Objective:
    """The objective of the edge's joules for one sample, estimated from powers as in ``cost.end_to_end.Cost``.

    ``T_E · active + (T − T_E) · idle + bytes · j_per_byte``, where T is T_cyc when pipelined and T_lat when not.

    Args:
        active_w: power of the edge while computing, in watts.
        idle_w: power of the edge while waiting, in watts; at most ``active_w``.
        j_per_byte: energy of sending a byte, in joules.
        pipelined: whether the stages of consecutive samples overlap.

    Raises:
        ValueError: a number is negative or not finite, or ``idle_w`` is above ``active_w``.
    """
    if not (isfinite(active_w) and 0 <= idle_w <= active_w):
        raise ValueError(f"need 0 <= idle_w <= active_w, both finite, got idle_w={idle_w} and active_w={active_w}")
    if not (isfinite(j_per_byte) and j_per_byte >= 0):
        raise ValueError(f"j_per_byte must be finite and not negative, got {j_per_byte}")
    waiting = {"cycle": idle_w} if pipelined else {"latency": idle_w}
    return Objective(edge=active_w - idle_w, byte=j_per_byte, unit="J", **waiting)


@dataclass(frozen=True, eq=False)
class TierWork:
    """What the units compute and move on one machine.

    Attributes:
        flops: floating-point operations of each unit and γ, ``(U, 14)``; entries of γ not offered are not read.
        moved_bytes: bytes read and written, **weights included**, ``(U, 14)``.
        peak_flops_per_s: the machine's measured peak.
        memory_bytes_per_s: the machine's measured memory bandwidth.
    """

    flops: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]
    peak_flops_per_s: float
    memory_bytes_per_s: float

    def __post_init__(self) -> None:
        for name in ("flops", "moved_bytes"):
            values = np.array(getattr(self, name), dtype=float)
            if values.ndim != 2 or values.shape[1] != 14:
                raise ValueError(f"{name} must have shape (units, 14), got {values.shape}")
            if np.isnan(values).any() or (values < 0).any():
                raise ValueError(f"{name} must not be negative or NaN")
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if self.flops.shape != self.moved_bytes.shape:
            raise ValueError(f"flops has shape {self.flops.shape}, moved_bytes {self.moved_bytes.shape}")
        for name in ("peak_flops_per_s", "memory_bytes_per_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    @property
    def knee(self) -> float:
        """FLOP per byte above which the machine is bound by arithmetic."""
        return self.peak_flops_per_s / self.memory_bytes_per_s

    def term(self, flops: Any, moved_bytes: Any, rho: float = 0.1) -> Any:
        """``relu(knee − F/B) + ρ·(F/F_peak + B/B_peak)`` of a tier's sums F and B; 0 for a tier that moves nothing.

        The measured times contain this effect already, so the term is reported, and weighs nothing by default.

        >>> work = TierWork([[0] * 14], [[0] * 14], peak_flops_per_s=100.0, memory_bytes_per_s=10.0)
        >>> round(work.term(40.0, 10.0, rho=0.1), 6)  # knee 10, intensity 4
        6.14

        Args:
            flops: the sum F over the tier, a number or a tensor.
            moved_bytes: the sum B over the tier, likewise.
            rho: weight of the second summand.
        """
        below = self.knee - flops / (moved_bytes + 1e-9)
        busy = (moved_bytes > 0) * 1.0
        roof = flops / self.peak_flops_per_s + moved_bytes / self.memory_bytes_per_s
        return below * (below > 0) * busy + rho * roof


def paired_margin(right: ArrayLike, right_ref: ArrayLike, confidence: float = 0.99) -> float:
    """``z · sd(d) / √n`` of the differences d = right_ref − right, sample by sample; z is the confidence's quantile.

    A network that loses at most ε less this margin on these samples loses at most ε on others with this confidence
    (one-sided, normal approximation). The margin is small for a network that errs on the samples on which the reference
    errs, and 0 for a network that computes the reference's function; a standard error of one accuracy ignores this.

    >>> paired_margin([1, 1, 0, 1], [1, 1, 0, 1])
    0.0
    >>> round(paired_margin([1, 0, 1, 1] * 100, [1, 1, 1, 1] * 100, 0.95), 4)
    0.0357

    Args:
        right: whether the network is right on each sample, ``(n,)``.
        right_ref: whether the reference is right on each sample, ``(n,)``.
        confidence: in (0.5, 1).

    Raises:
        ValueError: the two shapes differ, there are fewer than two samples, or the confidence is not in (0.5, 1).
    """
    z = quantile(confidence)
    own, reference = np.asarray(right, dtype=float), np.asarray(right_ref, dtype=float)
    if own.ndim != 1 or own.shape != reference.shape or len(own) < 2:
        raise ValueError(
            f"right and right_ref must be of the same samples, two or more, got {own.shape} and {reference.shape}"
        )
    return float(z * (reference - own).std(ddof=1) / len(own) ** 0.5)


def quantile(confidence: float) -> float:
    """How many standard errors away a one-sided bound of this confidence is (normal approximation).

    Args:
        confidence: in (0.5, 1).

    Raises:
        ValueError: the confidence is not in (0.5, 1).
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be above 0.5 and below 1, got {confidence}")
    return NormalDist().inv_cdf(confidence)
