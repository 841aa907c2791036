"""Cost computes latency, cycle, throughput and the edge's energy of one split inference."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from splitsem.cost.machines import Machine


@dataclass(frozen=True)
class Cost:
    """What one sample costs, in seconds and joules. The energy is **the edge's**; the server's is not counted.

    * ``latency_s = edge_s + link_s + server_s``, ``cycle_s = max(edge_s, link_s, server_s)``
    * ``throughput_hz = 1 / cycle_s`` when the three stages overlap (pipelined), ``1 / latency_s`` when not
    * ``energy_j = edge_s · active_w + link_j + waiting_s · idle_w``

    The edge waits for the rest of the time that one sample takes at this throughput: ``waiting_s = cycle_s - edge_s``
    when pipelined, else ``latency_s - edge_s``. The idle power is the whole board's, ``link_j`` what the radio adds.

    >>> from splitsem.cost.machines import Local
    >>> cost = Cost.of(Local(active_w=5.0, idle_w=2.0), edge_s=0.002, link_s=0.008, server_s=0.001, link_j=0.003)
    >>> round(cost.latency_s, 6), cost.cycle_s, cost.throughput_hz
    (0.011, 0.008, 125.0)
    >>> round(cost.energy_j, 6)  # 2 ms · 5 W + 3 mJ + 6 ms · 2 W
    0.025

    Attributes:
        edge_s: seconds of the head on the edge.
        link_s: seconds of the payload on its way.
        server_s: seconds of the tail on the server.
        edge_j: energy of the edge while computing.
        link_j: energy of the edge for sending.
        idle_j: energy of the edge while waiting.
        pipelined: whether the stages of consecutive samples overlap.
        energy_source: ``estimated`` from power figures, or ``measured`` by a sensor.
    """

    edge_s: float
    link_s: float
    server_s: float
    edge_j: float
    link_j: float
    idle_j: float
    pipelined: bool = True
    energy_source: Literal["estimated", "measured"] = "estimated"

    def __post_init__(self) -> None:
        for name in ("edge_s", "link_s", "server_s", "edge_j", "link_j", "idle_j"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.latency_s == 0:
            raise ValueError("edge_s, link_s and server_s are all zero: a sample must take some time")

    @classmethod
    def of(
        cls, edge: Machine, edge_s: float, link_s: float, server_s: float, link_j: float, pipelined: bool = True
    ) -> "Cost":
        """Estimate the cost from the three times, the energy of sending and the powers of the machine ``edge``."""
        period_s = max(edge_s, link_s, server_s) if pipelined else edge_s + link_s + server_s
        return cls(
            edge_s=edge_s,
            link_s=link_s,
            server_s=server_s,
            edge_j=edge_s * edge.active_w,
            link_j=link_j,
            idle_j=(period_s - edge_s) * edge.idle_w,
            pipelined=pipelined,
        )

    @property
    def latency_s(self) -> float:
        """Seconds from the sensor to the result, for one sample."""
        return self.edge_s + self.link_s + self.server_s

    @property
    def cycle_s(self) -> float:
        """Seconds of the slowest stage."""
        return max(self.edge_s, self.link_s, self.server_s)

    @property
    def throughput_hz(self) -> float:
        """Samples per second in steady state."""
        return 1 / (self.cycle_s if self.pipelined else self.latency_s)

    @property
    def energy_j(self) -> float:
        """All the energy that the edge spends on one sample."""
        return self.edge_j + self.link_j + self.idle_j

    def to_metrics(self) -> dict[str, float | str]:
        """The cost as flat metrics, named as in ``metrics.json``."""
        names = (
            "edge_s",
            "link_s",
            "server_s",
            "latency_s",
            "cycle_s",
            "throughput_hz",
            "energy_j",
            "edge_j",
            "link_j",
            "idle_j",
        )
        return {name: getattr(self, name) for name in names} | {"energy_source": self.energy_source}
