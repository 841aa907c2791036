"""SettingTable: what each setting (a cut and a codec) takes and scores, and what that makes under given conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.cost.end_to_end import cycle_s, latency_s

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Conditions:
    """How link and machines are now.

    Attributes:
        bandwidth_bps: bits per second that frames get, both ways together.
        rtt_s: seconds of an empty frame and its answer, the ends' work aside.
        edge_factor: seconds on the edge for each second of the table.
        server_factor: seconds on the server for each second of the table.
        queue_s: seconds for which a frame waits on the server.
    """

    bandwidth_bps: float
    rtt_s: float
    edge_factor: float = 1.0
    server_factor: float = 1.0
    queue_s: float = 0.0


class Predicted(NamedTuple):
    """What each setting would do, an array value a setting.

    Attributes:
        latency_s: from the sensor to the result, ``max(Σ stages, window · slowest stage)``.
        period_s: from one result to the next, ``latency_s / window``.
        energy_j: the edge's, for a frame.
        away_s: of the latency, what passes between sending the frame and its answer.
    """

    latency_s: Values
    period_s: Values
    energy_j: Values
    away_s: Values


class Powers(NamedTuple):
    """What the edge's energy is made of; an estimate where the machine's powers are one.

    Attributes:
        active_w: while it works.
        idle_w: while it waits.
        j_per_bit: for each bit sent or received, in joules.
    """

    active_w: float = 0.0
    idle_w: float = 0.0
    j_per_bit: float = 0.0


NO_POWERS = Powers()


class SettingTable:
    """The settings that a controller chooses from; each array has a value a setting.

    Exactly one setting sends nothing: the whole network on the edge, ``home``.

    Args:
        names: cut and codec, in words.
        edge_s: work of the edge, reading the answer included.
        payload_bytes: of a frame; 0: nothing is sent.
        server_s: work of the server.
        answer_bytes: of the answer.
        score: on the validation split, more is better.
        powers: of the edge.
        edge_transport_s: how long the transport's software keeps the edge busy, see ``cost.end_to_end.StageTimes``; a
            value a setting, or 0.0 where it is not known.
        server_transport_s: the same of the server.

    Raises:
        ValueError: arrays of different lengths, negative or infinite values, or not one ``home``.
    """

    def __init__(
        self,
        names: Sequence[str],
        edge_s: ArrayLike,
        payload_bytes: ArrayLike,
        server_s: ArrayLike,
        answer_bytes: ArrayLike,
        score: ArrayLike,
        powers: Powers = NO_POWERS,
        edge_transport_s: ArrayLike = 0.0,
        server_transport_s: ArrayLike = 0.0,
    ) -> None:
        self.names = tuple(names)
        columns = {"edge_s": edge_s, "payload_bytes": payload_bytes, "server_s": server_s, "answer_bytes": answer_bytes}
        made = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
        transports = {"edge_transport_s": edge_transport_s, "server_transport_s": server_transport_s}
        made |= {name: np.broadcast_to(np.asarray(v, float), len(self.names)) for name, v in transports.items()}
        self.score = np.asarray(score, dtype=float)
        for name, values in {**made, "score": self.score}.items():
            if values.shape != (len(self.names),):
                raise ValueError(f"{name} must have a value for each of {len(self.names)} settings, got {values.shape}")
            if not (np.isfinite(values).all() and (name == "score" or (values >= 0).all())):
                raise ValueError(f"{name} must be finite and not negative, got {values}")
        self.edge_s, self.payload_bytes = made["edge_s"], made["payload_bytes"]
        self.server_s, self.answer_bytes = made["server_s"], made["answer_bytes"]
        self.edge_transport_s, self.server_transport_s = made["edge_transport_s"], made["server_transport_s"]
        self.powers = powers
        homes = np.flatnonzero(self.payload_bytes == 0)
        if len(homes) != 1:
            raise ValueError(f"exactly one setting must send nothing (all on the edge), got {len(homes)}")
        self.home = int(homes[0])
        self.is_remote = self.payload_bytes > 0
        self.wire_bytes = self.payload_bytes + self.answer_bytes

    def only(self, settings: Sequence[int]) -> "SettingTable":
        """The table of these settings, in this order; ``home`` must be among them."""
        at = list(settings)
        names = [self.names[each] for each in at]
        times = self.edge_s[at], self.payload_bytes[at], self.server_s[at]
        transports = self.edge_transport_s[at], self.server_transport_s[at]
        return SettingTable(names, *times, self.answer_bytes[at], self.score[at], self.powers, *transports)

    def __len__(self) -> int:
        return len(self.names)

    def rest_here_s(self, setting: int) -> float:
        """Seconds in which the edge finishes a frame of this setting itself, an estimate: what ``home`` has more."""
        return max(0.0, float(self.edge_s[self.home] - self.edge_s[setting]))

    def predicted(self, now: Conditions, window: int = 1) -> Predicted:
        """What the settings would do with ``window`` frames under way, whose stages overlap.

        The times are those of ``cost.end_to_end``; with several frames under way, a frame waits for the slowest stage,
        and with one nothing overlaps.
        """
        edge = now.edge_factor * self.edge_s
        busy = 8 * self.wire_bytes / now.bandwidth_bps
        server = self.is_remote * (now.server_factor * self.server_s + now.queue_s)
        alone: Values = latency_s(edge, busy + self.is_remote * now.rtt_s, server)
        transports = now.edge_factor * self.edge_transport_s, now.server_factor * self.server_transport_s
        slowest: Values = cycle_s(edge + transports[0], busy, server + transports[1])
        latency = np.where(self.is_remote, np.maximum(alone, window * slowest), edge)
        period = np.where(self.is_remote, latency / window, edge)
        waits = np.maximum(period - edge, 0.0)
        powers = self.powers
        energy = edge * powers.active_w + 8 * self.wire_bytes * powers.j_per_bit + waits * powers.idle_w
        return Predicted(latency, period, energy, np.where(self.is_remote, latency - edge, 0.0))
