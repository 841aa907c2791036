"""The algebra of a split inference: latency, cycle, throughput and the edge's energy, from the times of its stages."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from splitsem.cost.machines import Machine


def latency_s(edge_s: Any, link_s: Any, server_s: Any, answer_s: Any = 0.0) -> Any:
    """``edge_s + link_s + server_s + answer_s``: seconds from the sensor to the result, of one sample alone.

    Takes numbers, arrays or tensors of seconds that broadcast, as the other functions here do.

    Args:
        edge_s: work of the edge.
        link_s: the payload's way, from its first byte offered to its last byte received.
        server_s: work of the server.
        answer_s: the answer's way back; 0 where no answer travels.
    """
    return edge_s + link_s + server_s + answer_s


def cycle_s(
    edge_busy_s: Any,
    link_busy_s: Any,
    server_busy_s: Any,
    answer_busy_s: Any = 0.0,
    maximum: Callable[[Any, Any], Any] = np.maximum,
) -> Any:
    """``max(edge_busy_s, link_busy_s, server_busy_s, answer_busy_s)``: seconds of the stage that bounds the pace.

    A stage bounds the pace by the time that it is busy with one sample. What a link delays, it does not bound: while
    bits are on their way, the next ones follow.

    >>> float(cycle_s(0.002, 0.0015, 0.001))  # whatever the delay of the link is
    0.002

    Args:
        edge_busy_s: work of the edge, the transport's included.
        link_busy_s: how long a payload keeps the way up from the next one.
        server_busy_s: work of the server, the transport's included.
        answer_busy_s: how long an answer keeps the way back from the next one.
        maximum: of two; ``torch.maximum`` for tensors.
    """
    slowest = maximum(maximum(edge_busy_s, link_busy_s), server_busy_s)
    return slowest if isinstance(answer_busy_s, float) and answer_busy_s == 0 else maximum(slowest, answer_busy_s)


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of one sample's stages, in the order in which they come.

    Attributes:
        head_s: the head, on the edge.
        encode_s: making the payload, on the edge.
        link_s: the payload's way to the server, from its first byte offered to its last byte received.
        link_busy_s: how long the payload keeps the link from the next payload.
        decode_s: reading the payload, on the server.
        tail_s: the tail, on the server.
        answer_encode_s: coding the answer, where the tail runs.
        answer_s: the answer's way back to the edge; 0 where none travels.
        answer_busy_s: how long the answer keeps the way back from the next answer.
        answer_decode_s: reading the answer, on the edge.
        edge_transport_s: how long the transport's software keeps the edge's processor busy by the sample. What of it
            the sample waits for is in ``link_s``, so this counts in the cycle alone.
        server_transport_s: the same on the server.
    """

    head_s: float = 0.0
    encode_s: float = 0.0
    link_s: float = 0.0
    link_busy_s: float = 0.0
    decode_s: float = 0.0
    tail_s: float = 0.0
    answer_encode_s: float = 0.0
    answer_s: float = 0.0
    answer_busy_s: float = 0.0
    answer_decode_s: float = 0.0
    edge_transport_s: float = 0.0
    server_transport_s: float = 0.0

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def edge_s(self) -> float:
        """Work of the edge: head, encoding, reading the answer."""
        return self.head_s + self.encode_s + self.answer_decode_s

    @property
    def server_s(self) -> float:
        """Work of the server: decoding, tail, coding the answer."""
        return self.decode_s + self.tail_s + self.answer_encode_s

    @property
    def edge_busy_s(self) -> float:
        """How long a sample keeps the edge from the next one: its work, and the transport's."""
        return self.edge_s + self.edge_transport_s

    @property
    def server_busy_s(self) -> float:
        """How long a sample keeps the server from the next one."""
        return self.server_s + self.server_transport_s

    @property
    def latency_s(self) -> float:
        """See ``latency_s``."""
        return float(latency_s(self.edge_s, self.link_s, self.server_s, self.answer_s))

    @property
    def cycle_s(self) -> float:
        """See ``cycle_s``."""
        return float(cycle_s(self.edge_busy_s, self.link_busy_s, self.server_busy_s, self.answer_busy_s))


@dataclass(frozen=True)
class Cost:
    """What one sample costs, in seconds and joules. The energy is **the edge's**; the server's is not counted.

    * ``throughput_hz = 1 / cycle_s`` when consecutive samples overlap (pipelined), ``1 / latency_s`` when not
    * ``energy_j = edge_busy_s · active_w + link_j + waiting_s · idle_w``

    The edge waits for the rest of the time that one sample takes at this throughput: ``waiting_s`` is
    ``cycle_s - edge_busy_s`` when pipelined, else ``latency_s - edge_busy_s``. The idle power is the whole board's,
    ``link_j`` what the radio adds.

    >>> times = StageTimes(head_s=0.0015, encode_s=0.0005, link_s=0.018, link_busy_s=0.008, tail_s=0.001)
    >>> cost = Cost(times, link_j=0.003, active_w=5.0, idle_w=2.0)
    >>> round(cost.times.latency_s, 6), cost.times.cycle_s, cost.throughput_hz
    (0.021, 0.008, 125.0)
    >>> round(cost.energy_j, 6)  # 2 ms · 5 W + 3 mJ + 6 ms · 2 W
    0.025

    Attributes:
        times: of the stages.
        link_j: energy of the edge for sending the payload and receiving the answer.
        active_w: power of the edge while computing, in watts.
        idle_w: power of the edge while waiting, in watts.
        pipelined: whether the stages of consecutive samples overlap.
        energy_source: ``estimated`` from power figures, or ``measured`` by a sensor.
    """

    times: StageTimes
    link_j: float
    active_w: float
    idle_w: float
    pipelined: bool = True
    energy_source: Literal["estimated", "measured"] = "estimated"

    def __post_init__(self) -> None:
        for name in ("link_j", "active_w", "idle_w"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.times.latency_s == 0:
            raise ValueError("all stages take no time: a sample must take some time")

    @classmethod
    def of(cls, edge: "Machine", times: StageTimes, link_j: float, pipelined: bool = True) -> "Cost":
        """Estimate the cost from the times, the energy on the link and the powers of the machine ``edge``."""
        return cls(times, link_j, edge.active_w, edge.idle_w, pipelined)

    @property
    def period_s(self) -> float:
        """Seconds from one result to the next, in steady state."""
        return self.times.cycle_s if self.pipelined else self.times.latency_s

    @property
    def throughput_hz(self) -> float:
        """Samples per second in steady state; infinite where no stage is busy."""
        return 1 / self.period_s if self.period_s else float("inf")

    @property
    def edge_j(self) -> float:
        """Energy of the edge while computing."""
        return self.times.edge_busy_s * self.active_w

    @property
    def idle_j(self) -> float:
        """Energy of the edge while waiting."""
        return max(0.0, self.period_s - self.times.edge_busy_s) * self.idle_w

    @property
    def energy_j(self) -> float:
        """All the energy that the edge spends on one sample."""
        return self.edge_j + self.link_j + self.idle_j

    def to_metrics(self) -> dict[str, float | str]:
        """The cost as flat metrics, named as in ``metrics.json``."""
        names = ("edge_s", "server_s", "latency_s", "cycle_s")
        joules = ("energy_j", "edge_j", "link_j", "idle_j")
        return {
            **asdict(self.times),
            **{name: getattr(self.times, name) for name in names},
            "throughput_hz": self.throughput_hz,
            **{name: getattr(self, name) for name in joules},
            "energy_source": self.energy_source,
        }
