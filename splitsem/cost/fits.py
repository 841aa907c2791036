"""LinkFit fits a link as a straight line to measured transfers; FrameFit fits all stages of measured frames.

FrameFit exists since a line through latencies cannot tell where a frame's time goes. Work at an end (encoding,
messages, the kernel's part) keeps a core busy and slows the pace of that end; bytes on the wire keep the link busy;
waking a thread keeps nothing busy and counts in the latency only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitsem import extras


@dataclass(frozen=True)
class LinkFit:
    """A link as a straight line ``link_s = k · bytes + b`` through payloads that had it to themselves.

    The bytes keep the link busy; what any payload takes, the link only delays: the next payload can follow.

    Attributes:
        s_per_byte: k.
        delay_s: b; below 0 where the bytes keep the link busy for longer than a payload waits (duty cycle).
        residual_s: root mean square distance of the measured times from the line.
        num_transfers: number of measured transfers.
    """

    s_per_byte: float
    delay_s: float
    residual_s: float
    num_transfers: int

    def __post_init__(self) -> None:
        for name in ("s_per_byte", "delay_s", "residual_s"):
            value = getattr(self, name)
            if not (isfinite(value) and (value >= 0 or name == "delay_s")):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if self.num_transfers < 1:
            raise ValueError(f"num_transfers must be at least 1, got {self.num_transfers}")

    def link_s(self, payload_bytes: float) -> float:
        """Seconds for a payload of this size."""
        return self.s_per_byte * payload_bytes + self.delay_s


def fit_link(transfers: Sequence[tuple[float, float]]) -> LinkFit:
    """Fit by least squares over ``(bytes, seconds)`` pairs, neither k nor b negative.

    Where a burst or a slowly opening window bends the line (``residual_s`` says so), ``links.probed.ProbedLink``
    describes the link better.

    >>> fit = fit_link([(0, 0.002), (1000, 0.010), (3000, 0.026)])
    >>> round(fit.s_per_byte * 1e6, 6), round(fit.delay_s, 6), fit.num_transfers
    (8.0, 0.002, 3)

    Raises:
        ValueError: there are fewer than two sizes, or a size or time is negative or not finite.
    """
    points = np.asarray(transfers, dtype=float).reshape(-1, 2)
    if not (np.isfinite(points).all() and (points >= 0).all()):
        raise ValueError("transfers must have sizes and times that are finite and not negative")
    sizes, times_s = points.T
    if len(np.unique(sizes)) < 2:
        raise ValueError(f"transfers must have at least two sizes, got {len(np.unique(sizes))}")
    deviations = sizes - sizes.mean()
    slope = float(deviations @ times_s / (deviations @ deviations))
    base_s = float(times_s.mean() - slope * sizes.mean())
    if slope < 0:
        slope, base_s = 0.0, float(times_s.mean())
    elif base_s < 0:
        slope, base_s = float(sizes @ times_s / (sizes @ sizes)), 0.0
    residual_s = float(np.sqrt(np.mean((times_s - slope * sizes - base_s) ** 2)))
    return LinkFit(slope, base_s, residual_s, len(sizes))


@dataclass(frozen=True)
class AnswerWay:
    """Where a sample's answer is needed, and what its way there takes.

    Attributes:
        at: ``edge``: it comes back, unless the whole network ran there; ``server``: it goes up, if it did.
        num_bytes: of the answer.
        back_s: seconds of its way back; 0 where none travels, or where other times hold it.
        back_busy_s: how long it keeps the way back from the next answer.
    """

    at: Literal["edge", "server"]
    num_bytes: int
    back_s: float = 0.0
    back_busy_s: float = 0.0

    @property
    def up_bytes(self) -> int:
        """Bytes that cross where the whole network runs on the edge."""
        return self.num_bytes if self.at == "server" else 0


Floats = NDArray[np.float64]
_SPREAD = 0.03  # expected relative error of a measurement; the priors matter only where measurements say nothing
_PRIORS = {"factor": 0.25, "base": 0.5, "delay": 1.0, "free": 16e3}
_MOST_FREE_BYTES = 64e3
_LEAST_JOBS = 4


@dataclass(frozen=True)
class TimedFrames:
    """Frames of one network at one cut: the tables' times of its halves, and the measured times of whole frames.

    Attributes:
        edge_s: sum of the head's units by the edge's table.
        server_s: sum of the tail's units by the server's table.
        payload_bytes: of the crossing tensor.
        latency_s: of a frame that is alone on the link.
        cycle_s: 1 / throughput, with all stages at work.
    """

    edge_s: float
    server_s: float
    payload_bytes: float
    latency_s: float
    cycle_s: float


@dataclass(frozen=True)
class FrameFit:
    """``cycle = max(E, W, S)`` and ``latency = E + W + S + delay``, with E, W and S as in ``stages``.

    Attributes:
        edge_factor: time of units on the edge while frames run ÷ time in the edge's table.
        server_factor: time of units on the server while frames run ÷ time in the server's table.
        edge_base_s: work of the edge for any frame beyond its units: encoding, sending, receiving the answer.
        server_base_s: work of the server for any frame beyond its units.
        delay_s: seconds of a lone frame in which no stage works; may be below 0, see ``LinkCost``.
        s_per_byte: of the wire.
        free_bytes: of a lone frame that the wire takes at once, like a token bucket that had time to fill.
        latency_error: root mean square of the latencies' relative errors after the fit.
        cycle_error: root mean square of the cycles' relative errors after the fit.
        num_jobs: number of measured pairs of a network and a cut.
    """

    edge_factor: float
    server_factor: float
    edge_base_s: float
    server_base_s: float
    delay_s: float
    s_per_byte: float
    free_bytes: float
    latency_error: float
    cycle_error: float
    num_jobs: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isfinite(value) and (value >= 0 or field.name == "delay_s")):
                raise ValueError(f"{field.name} must be finite and not negative, got {value}")

    def stages(self, edge_s: Any, payload_bytes: Any, server_s: Any) -> tuple[Any, Any, Any]:
        """Seconds for which a frame keeps edge, wire and server busy; numbers or arrays.

        Args:
            edge_s: sum of the head's units by the table.
            payload_bytes: of the crossing tensor.
            server_s: sum of the tail's units by the table.
        """
        edge = self.edge_factor * edge_s + self.edge_base_s
        return edge, self.s_per_byte * payload_bytes, self.server_factor * server_s + self.server_base_s

    def latency_s(self, edge_s: Any, payload_bytes: Any, server_s: Any) -> Any:
        """Latency of a lone frame in seconds; arguments as for ``stages``."""
        free_s = self.s_per_byte * np.minimum(payload_bytes, self.free_bytes)
        return sum(self.stages(edge_s, payload_bytes, server_s)) - free_s + self.delay_s

    def line(self) -> LinkFit:
        """The part of the latency that is neither head nor tail, as a straight line, for code that knows no stages."""
        delay_s = max(0.0, self.edge_base_s + self.server_base_s + self.delay_s)
        return LinkFit(self.s_per_byte, delay_s, self.latency_error * delay_s, self.num_jobs)


def fit_frames(jobs: Sequence[TimedFrames]) -> FrameFit:
    """Fit by least squares of the relative errors of latencies and cycles, robust against a disturbed job.

    Priors decide where the measurements cannot (an end that was never the slowest stage shows only that it is no
    slower): factors stay near 1, the bases of both ends near each other and the delay near 0.

    Raises:
        ValueError: there are too few jobs, all jobs have one size, or a number is negative or not finite.
    """
    table = np.array([[getattr(job, field.name) for field in fields(TimedFrames)] for job in jobs], dtype=float)
    if len(jobs) < _LEAST_JOBS or len(np.unique(table[:, 2])) < 2:
        raise ValueError(f"jobs must be at least {_LEAST_JOBS}, of at least two sizes, got {len(jobs)}")
    if not (np.isfinite(table).all() and (table >= 0).all() and (table[:, 3:] > 0).all()):
        raise ValueError("jobs must have times and sizes that are finite and not negative")
    edge_s, server_s, sizes, latency_s, cycle_s = table.T
    unit_s = float(np.median(latency_s))
    per_byte = unit_s / sizes.max()  # so that all unknowns are about 1

    def model(x: Floats) -> tuple[Floats, Floats]:
        stages = x[0] * edge_s + x[2] * unit_s, x[5] * per_byte * sizes, x[1] * server_s + x[3] * unit_s
        free_s = x[5] * per_byte * np.minimum(sizes, x[6] * _PRIORS["free"])
        return sum(stages) - free_s + x[4] * unit_s, np.max(stages, axis=0)

    def residuals(x: Floats) -> Floats:
        latency, cycle = model(x)
        doubts = [(x[0] - 1) / _PRIORS["factor"], (x[1] - 1) / _PRIORS["factor"]]
        doubts += [(x[2] - x[3]) / _PRIORS["base"], x[4] / _PRIORS["delay"], x[6]]
        return np.concatenate([(latency / latency_s - 1) / _SPREAD, (cycle / cycle_s - 1) / _SPREAD, doubts])

    lower = [0.2, 0.2, 0.0, 0.0, -2.0, 0.0, 0.0]
    upper = [5.0, 5.0, 2.0, 2.0, 2.0, 20.0, _MOST_FREE_BYTES / _PRIORS["free"]]
    base = float(np.clip(np.median((latency_s - edge_s - server_s) / unit_s), 0.05, 1.0))
    starts = [
        [1.0, 1.0, share * base, (0.9 - share) * base, 0.1 * base, wire, free_bytes / _PRIORS["free"]]
        for share in (0.3, 0.45, 0.6)
        for wire in (0.3, 1.0)
        for free_bytes in (500.0, 4000.0)
    ]
    with extras.needed("training", "fitting a measured link"):
        from scipy.optimize import least_squares
    found = min(
        (least_squares(residuals, start, bounds=(lower, upper), loss="soft_l1") for start in starts),
        key=lambda one: float(one.cost),
    )
    x, (latency, cycle) = found.x, model(found.x)
    errors = [float(np.sqrt(np.mean((own / true - 1) ** 2))) for own, true in ((latency, latency_s), (cycle, cycle_s))]
    edge_factor, server_factor, edge_base, server_base, delay, wire, free = map(float, x)
    return FrameFit(
        edge_factor=edge_factor,
        server_factor=server_factor,
        edge_base_s=edge_base * unit_s,
        server_base_s=server_base * unit_s,
        delay_s=delay * unit_s,
        s_per_byte=wire * per_byte,
        free_bytes=free * _PRIORS["free"],
        latency_error=errors[0],
        cycle_error=errors[1],
        num_jobs=len(jobs),
    )
