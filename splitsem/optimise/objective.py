"""Objective: what is minimised, a sum of latency, cycle time, edge time and bytes, none with a negative weight."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Objective:
    """``latency·T_lat + cycle·T_cyc + edge·T_E + byte·bytes``, to be minimised.

    T_lat = T_E + T_S + T_com and T_cyc = max(T_E, T_S, T_com). No weight is negative, so that the objective never falls
    when a stage takes longer: this is why, at a given cut, the fastest way of each unit is the best one, under the
    maximum too.

    Attributes:
        latency: weight of the latency.
        cycle: weight of the cycle time.
        edge: weight of the seconds that the edge computes.
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

    def __call__(
        self, edge_s: Any, link_s: Any, server_s: Any, link_bytes: Any, maximum: Callable[..., Any] = np.maximum
    ) -> Any:
        """The value for finite times and bytes, numbers or arrays that broadcast; tensors with ``torch.maximum``."""
        value = self.latency * (edge_s + link_s + server_s) + self.edge * edge_s + self.byte * link_bytes
        return value + self.cycle * maximum(maximum(edge_s, link_s), server_s) if self.cycle else value


def t_eff(omega: float = 0.5) -> Objective:
    """The ω-mix ``T_eff = ω·T_lat + (1 − ω)·T_cyc`` in seconds (arXiv 2411.00838, Eq. 7).

    >>> round(float(t_eff(0.5)(0.002, 0.005, 0.001, 0)), 6)  # latency 8 ms, cycle 5 ms
    0.0065

    Args:
        omega: share of the latency, 0…1.

    Raises:
        ValueError: ``omega`` is outside 0…1.
    """
    if not 0 <= omega <= 1:
        raise ValueError(f"omega must be 0…1, got {omega}")
    return Objective(latency=omega, cycle=1 - omega)


def latency() -> Objective:
    """Seconds from the sensor to the result, of one sample."""
    return t_eff(1.0)


def cycle() -> Objective:
    """Seconds of the slowest stage: 1 / throughput when the stages of consecutive samples overlap."""
    return t_eff(0.0)


def energy(active_w: float, idle_w: float, j_per_byte: float = 0.0, pipelined: bool = True) -> Objective:
    """The edge device's energy for one sample, in joules, estimated from powers as in ``cost.end_to_end.Cost``.

    ``T_E · active + (T − T_E) · idle + bytes · j_per_byte``, where T is T_cyc when pipelined and T_lat when not.

    Args:
        active_w: power of the edge machine while it computes, in watts.
        idle_w: its power while it waits, in watts; at most ``active_w``.
        j_per_byte: what sending a byte adds, in joules.
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
